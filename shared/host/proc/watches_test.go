package proc

import (
	"errors"
	"os"
	"strings"
	"testing"
	"time"
)

// told is a death that a Watches reported.
type told struct {
	key string
	Death
}

func newTold(t *testing.T) (*Watches[string], chan told) {
	deaths := make(chan told, 10)
	stop := make(chan struct{})
	t.Cleanup(func() { close(stop) })
	return NewWatches(stop, func(key string, d Death) { deaths <- told{key, d} }), deaths
}

func next(t *testing.T, deaths chan told) told {
	t.Helper()
	select {
	case d := <-deaths:
		return d
	case <-time.After(30 * time.Second):
		t.Fatal("no death was told")
		return told{}
	}
}

func TestWatchesTellDeaths(t *testing.T) {
	w, deaths := newTold(t)
	a, b := ready(t, "wait"), ready(t, "wait")
	for key, h := range map[string]*helper{"a": a, "b": b} {
		id, err := Identify(h.Process.Pid)
		if err != nil {
			t.Fatal(err)
		}
		for range 2 { // the second time changes nothing
			if err := w.Watch(key, id); err != nil {
				t.Fatal(err)
			}
		}
	}
	w.Unwatch("b")
	if err := b.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := w.Kill("b"); err != nil {
		t.Errorf("kill of what is not watched: %v", err)
	}
	if err := w.Kill("a"); err != nil {
		t.Fatal(err)
	}
	d := next(t, deaths)
	if d.key != "a" || d.At.IsZero() || !strings.Contains(d.Reason, "killed") && d.Reason != "ended" {
		t.Errorf("told %+v", d)
	}
	// Its death is being reported, and then the pidfd is closed.
	for deadline := time.Now().Add(30 * time.Second); !errors.Is(w.open["a"].process.Kill(), os.ErrClosed); {
		if time.Now().After(deadline) {
			t.Fatal("the pidfd is open")
		}
		<-time.After(time.Millisecond) // the pace of asking
	}
	if err := w.Kill("a"); err != nil {
		t.Errorf("kill of a dead process: %v", err)
	}
	w.Unwatch("a")
	select {
	case d := <-deaths:
		t.Errorf("told too much: %+v", d)
	default:
	}
}

// The death of a process that is dead before the watch begins is reported at once, and so is
// that of a process whose pid was reused.
func TestWatchOfADeadProcess(t *testing.T) {
	w, deaths := newTold(t)
	h := ready(t, "wait")
	id, err := Identify(h.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	other := id
	other.StartTime++
	if err := w.Watch("another", other); err != nil {
		t.Fatal(err)
	}
	if d := next(t, deaths); d.key != "another" || d.Reason != "gone" {
		t.Errorf("told %+v", d)
	}
}
