package events

import (
	"context"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dynast-io/dynast/shared/rules/core"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

func record(t *testing.T, dir string, leading bool, es ...Event) {
	t.Helper()
	r := NewRecorder(dir, "127.0.0.1:7400")
	if leading {
		r.SetLeading()
	}
	for _, e := range es {
		r.Record(e)
	}
	r.Close(patience)
	if n := r.LostEvents(); n != 0 {
		t.Fatalf("%d events lost", n)
	}
}

func kinds(es []Event) string {
	var out []string
	for _, e := range es {
		out = append(out, e.Kind)
	}
	return strings.Join(out, " ")
}

func read(t *testing.T, dir string) []Event {
	t.Helper()
	es, err := Read(dir)
	if err != nil {
		t.Fatal(err)
	}
	return es
}

func TestRecordedEventsAreRead(t *testing.T) {
	dir := t.TempDir()
	if es := read(t, dir); len(es) != 0 {
		t.Fatalf("events of nothing: %v", es)
	}
	at := time.Date(2026, 1, 2, 3, 4, 5, 6000, time.UTC)
	want := Event{At: at, Epoch: 7, Kind: "member_died", Member: "127.0.0.1:7401", PID: 42, Detail: "signal: \"killed\"\nand more", Seconds: .25}
	record(t, dir, true, want)
	want.By = "127.0.0.1:7400"
	if es := read(t, dir); len(es) != 1 || es[0] != want {
		t.Errorf("got %+v, want %+v", es, want)
	}
}

// A line that a full disk or a kill tore is the only loss.
func TestTornLines(t *testing.T) {
	dir := t.TempDir()
	record(t, dir, true, Event{Kind: "a"})
	f, err := os.OpenFile(filepath.Join(dir, fileName), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	_, err = f.WriteString("garbage\n\n[1]\n{\"kind\":3}\n{\"at\":\"2026-01-02T03:04:05Z\",\"kind\":\"tor")
	if err = errors.Join(err, f.Close()); err != nil {
		t.Fatal(err)
	}
	record(t, dir, false, Event{Kind: "b"})
	if got := kinds(read(t, dir)); got != "a b" {
		t.Errorf("read %q", got)
	}
}

func TestTheFileIsBounded(t *testing.T) {
	dir := t.TempDir()
	const bound = 4096
	for i := range 300 {
		r := newRecorder(dir, "x", bound)
		r.SetLeading()
		r.Record(Event{Kind: "spawning", Epoch: uint64(i), Detail: strings.Repeat("x", 100)})
		r.Close(patience)
		// A follower appends to the file and never begins a new one.
		record(t, dir, false, Event{Kind: "leader_lost", Epoch: uint64(i)})
	}
	var size int64
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		info, err := n.Info()
		if err != nil {
			t.Fatal(err)
		}
		size += info.Size()
	}
	if size > 2*bound+2048 {
		t.Errorf("%d bytes in %v, want two files of %d and the totals", size, names, bound)
	}
	es := read(t, dir)
	if last := es[len(es)-1]; last.Epoch != 299 || len(es) < 20 {
		t.Errorf("%d events, the last of epoch %d", len(es), last.Epoch)
	}
	for i, e := range es[1:] {
		if e.Epoch < es[i].Epoch || e.Epoch > es[i].Epoch+1 {
			t.Fatalf("epoch %d after %d", e.Epoch, es[i].Epoch)
		}
	}
}

// A reader that follows sees each event once, even if a new file is begun meanwhile or a line
// is written in two pieces.
func TestFollow(t *testing.T) {
	dir := t.TempDir()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	seen := make(chan Event, 1000)
	done := make(chan error, 1)
	go func() {
		r := NewReader(dir)
		defer r.Close()
		done <- r.Follow(ctx, func(es []Event) error {
			for _, e := range es {
				seen <- e
			}
			return nil
		})
	}()
	expect := func(epoch uint64) {
		t.Helper()
		select {
		case e := <-seen:
			if e.Epoch != epoch {
				t.Fatalf("epoch %d, want %d", e.Epoch, epoch)
			}
		case <-ctx.Done():
			t.Fatalf("event %d never seen", epoch)
		}
	}
	r := newRecorder(dir, "x", 300)
	r.SetLeading()
	for i := range 12 {
		r.Record(Event{Kind: "spawning", Epoch: uint64(i + 1), Detail: strings.Repeat("y", 50)})
		expect(uint64(i + 1))
	}
	r.Close(patience)
	f, err := os.OpenFile(filepath.Join(dir, fileName), os.O_APPEND|os.O_WRONLY, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for _, piece := range []string{`{"at":"2026-01-02T03:04:05Z","kind":"x",`, `"epoch":13}`, "\n"} {
		if _, err := f.WriteString(piece); err != nil {
			t.Fatal(err)
		}
	}
	expect(13)
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// Events that the disk refuses are lost, counted and reported.
func TestDiskFullLosesAndCountsEvents(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, fileName)
	if err := os.Mkdir(path, 0o700); err != nil { // nobody can write to it, root neither
		t.Fatal(err)
	}
	r := NewRecorder(dir, "x")
	r.SetLeading()
	r.Record(Event{Kind: "a"})
	for deadline := time.Now().Add(patience); r.LostEvents() != 1; {
		if time.Now().After(deadline) {
			t.Fatal("the loss is not counted")
		}
		<-time.After(time.Millisecond)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	r.Record(Event{Kind: "b"})
	r.Close(patience)
	es := read(t, dir)
	if kinds(es) != Lost+" b" || !strings.Contains(es[0].Detail, "1 event ") || !strings.Contains(es[0].Detail, "is a directory") {
		t.Errorf("read %+v", es)
	}
}

// A stuck or closed recorder does not hold up anybody.
func TestRecordNeverWaits(t *testing.T) {
	r := NewRecorder(t.TempDir(), "x")
	r.Close(patience)
	for range 2 * queueEvents {
		r.Record(Event{Kind: "a"})
	}
	if n := r.LostEvents(); n != 2*queueEvents {
		t.Errorf("%d lost", n)
	}
}

func TestTotalsSurviveTheirLeader(t *testing.T) {
	dir := t.TempDir()
	died, spawnError := core.MemberDied.String(), core.SpawnError.String()
	r := NewRecorder(dir, "x")
	r.SetLeading()
	r.Record(Event{Kind: Started})
	r.CountStart(1)
	r.CountStart(2)
	r.CountStart(2)
	r.Record(Event{Kind: Serving})
	r.Record(Event{Kind: died, Detail: "signal: killed"})
	r.Record(Event{Kind: died, Detail: "silent for 1s"})
	r.Record(Event{Kind: spawnError, Detail: "slot 3: no"})
	r.Record(Event{Kind: core.MemberLeaving.String(), PID: 9}) // who was told to leave is not replaced
	r.Record(Event{Kind: died, PID: 9, Detail: "exit status 0"})
	r.Close(patience)

	r = NewRecorder(dir, "y")
	r.SetLeading()
	r.Record(Event{Kind: Serving, Detail: TakeoverDetail("signal: killed"), Seconds: .012})
	r.CountStart(1)
	r.Record(Event{Kind: died, Detail: "exit status 1"})
	r.Close(patience)
	got := r.Totals()
	for reason, want := range map[string]uint64{ReasonSignal: 2, ReasonSilent: 1, ReasonStart: 1, ReasonExit: 1} {
		if got.Restarts[reason] != want {
			t.Errorf("restarts for %s: %d, want %d", reason, got.Restarts[reason], want)
		}
	}
	if got.AllRestarts() != 5 || got.AllTakeovers() != 1 || got.Takeovers[ReasonSignal] != 1 {
		t.Errorf("totals %+v", got)
	}
	if got.FailoverCounts[3] != 1 || math.Abs(got.FailoverSeconds-.012) > 1e-9 { // (10ms, 15ms]
		t.Errorf("failovers %v, %g s", got.FailoverCounts, got.FailoverSeconds)
	}
	for slot, want := range map[int]uint64{1: 1, 2: 1, 3: 0} {
		if n := got.RestartsIn(slot); n != want {
			t.Errorf("restarts in slot %d: %d, want %d", slot, n, want)
		}
	}

	// A follower does not change the totals. With "up" the slots' counts begin at zero. Damage
	// is reported.
	record(t, dir, false, Event{Kind: died, Detail: "signal: killed"})
	record(t, dir, true, Event{Kind: Started})
	again, err := readTotals(dir)
	if err != nil || again.AllRestarts() != 5 || again.RestartsIn(2) != 0 {
		t.Errorf("totals %+v, %v", again, err)
	}
	if err := os.WriteFile(filepath.Join(dir, totalsName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	record(t, dir, true, Event{Kind: Serving})
	es := read(t, dir)
	if e := es[len(es)-2]; e.Kind != Lost || !strings.Contains(e.Detail, "begin at zero") {
		t.Errorf("damage is told as %+v", e)
	}
}

func TestReasons(t *testing.T) {
	for text, want := range map[string]string{
		"signal: killed": ReasonSignal, "signal: aborted (core dumped)": ReasonSignal, "exit status 0": ReasonExit,
		"silent, killed": ReasonSilent, "silent for 1.2s": ReasonSilent, "stopped by a signal for 1s": ReasonSilent,
		"handing over to 127.0.0.1:7401, exit status 0": ReasonHandedOver, "handing over to 127.0.0.1:7401, signal: killed": ReasonSignal,
		"did not join in time": ReasonStart, "ended": ReasonUnknown, "gone": ReasonUnknown, "": ReasonUnknown,
	} {
		if got := Reason(text); got != want {
			t.Errorf("%q is %s, want %s", text, got, want)
		}
	}
}

// Many writers and one reader: each line arrives whole.
func TestManyWriters(t *testing.T) {
	dir := t.TempDir()
	const writers, each = 8, 50
	done := make(chan struct{})
	for w := range writers {
		go func() {
			defer func() { done <- struct{}{} }()
			r := NewRecorder(dir, fmt.Sprint(w))
			for i := range each {
				r.Record(Event{Kind: "a", Epoch: uint64(i)})
			}
			r.Close(patience)
		}()
	}
	for range writers {
		<-done
	}
	next := map[string]uint64{}
	r := NewReader(dir)
	defer r.Close()
	es, err := r.Next()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range es {
		if e.Epoch != next[e.By] {
			t.Fatalf("writer %s: event %d, want %d", e.By, e.Epoch, next[e.By])
		}
		next[e.By]++
	}
	for by, n := range next {
		if n != each {
			t.Errorf("writer %s: %d events", by, n)
		}
	}
	if len(next) != writers {
		t.Errorf("%d writers", len(next))
	}
}

func FuzzDecode(f *testing.F) {
	f.Add([]byte(`{"at":"2026-01-02T03:04:05Z","kind":"x"}`))
	f.Fuzz(func(t *testing.T, line []byte) {
		e, err := decode(line)
		if err != nil {
			return
		}
		out, err := e.encode()
		if err != nil {
			t.Skip() // a year that RFC 3339 has not
		}
		if again, err := decode(out); err != nil || again.Kind != e.Kind && !strings.Contains(e.Kind, "\ufffd") {
			t.Errorf("%q becomes %q: %v", line, out, err)
		}
	})
}
