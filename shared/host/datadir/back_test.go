package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// atWork returns a data directory with the store "old", and a complete store "new" in hosts/back.
func atWork(t *testing.T) *Dir {
	t.Helper()
	d, err := Open(filepath.Join(t.TempDir(), "data"), true)
	if err != nil {
		t.Fatal(err)
	}
	fill := func(base, content string) {
		t.Helper()
		for _, name := range []string{"slots/1/db", "cluster.json", "succession.json", "claims.json", "lease-deadlines"} {
			if name == "lease-deadlines" && content == "new" {
				continue // a new store has none
			}
			path := filepath.Join(base, name)
			if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(path, []byte(content), 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	fill(d.Path(), "old")
	host := Host{Cluster: "c", Name: "a", Address: "127.0.0.1:1", Members: map[string]string{"a": "127.0.0.1:1"}, Halted: true}
	if err := d.WriteHost(host); err != nil {
		t.Fatal(err)
	}
	fill(d.BackData(), "new")
	if err := d.WriteBack(Left{Cluster: "c", Name: "a", Revision: 7, Stopped: time.Now()}); err != nil {
		t.Fatal(err)
	}
	return d
}

func isNew(t *testing.T, d *Dir) {
	t.Helper()
	for _, name := range []string{"slots/1/db", "cluster.json", "succession.json", "claims.json"} {
		raw, err := os.ReadFile(filepath.Join(d.Path(), name))
		if err != nil || string(raw) != "new" {
			t.Errorf("%s is %q, %v", name, raw, err)
		}
	}
	if _, err := os.Stat(d.LeaseDeadlines()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the deadlines of the old store are still there: %v", err)
	}
	if d.ManyHosts() {
		t.Error("the host is still one of several")
	}
	if l, err := d.ReadLeft(); err != nil || l.Revision != 7 {
		t.Errorf("left.json: %+v, %v", l, err)
	}
}

// A process that dies at any step of TakeBack leaves everything for the next one, which starts with
// Open, as a leader does.
func TestTakeBackKilledAtEachStep(t *testing.T) {
	var steps []string
	d := atWork(t)
	if done, err := d.TakeBack(func(s string) { steps = append(steps, s) }); !done || err != nil {
		t.Fatal(done, err)
	}
	isNew(t, d)
	if len(steps) != 10 {
		t.Fatalf("steps %q", steps)
	}
	for _, killed := range steps {
		t.Run(killed, func(t *testing.T) {
			d := atWork(t)
			func() {
				defer func() { _ = recover() }()
				_, err := d.TakeBack(func(s string) {
					if s == killed {
						d.mu.Unlock()
						defer d.mu.Lock() // TakeBack unlocks it
						panic("killed")
					}
				})
				t.Error("it was not killed", err)
			}()
			if !d.ManyHosts() {
				t.Error("the switch is not the last step")
			}
			again, err := Open(d.Path(), true)
			if err != nil {
				t.Fatal(err)
			}
			if done, err := again.TakeBack(func(string) {}); !done || err != nil {
				t.Fatal(done, err)
			}
			isNew(t, again)
			if err := again.DropHosts(); err != nil {
				t.Fatal(err)
			}
			entries, err := os.ReadDir(again.Hosts())
			if err != nil || len(entries) != 1 || entries[0].Name() != leftName {
				t.Errorf("left in hosts: %v, %v", entries, err)
			}
		})
	}
}

// A store that is not complete, or older than the engine's data, is never taken.
func TestTakeBackOnlyCompleteStores(t *testing.T) {
	for name, spoil := range map[string]func(*Dir) error{
		"not complete":        func(d *Dir) error { return os.Remove(filepath.Join(d.Back(), leftName)) },
		"dropped":             func(d *Dir) error { return d.DropBack() },
		"the engine has run":  func(d *Dir) error { _, err := d.UpdateHost(func(h *Host) { h.Halted = false }); return err },
		"a single host's dir": func(d *Dir) error { return d.RemoveHost() },
	} {
		d := atWork(t)
		if err := spoil(d); err != nil {
			t.Fatal(err)
		}
		if done, err := d.TakeBack(func(s string) { t.Errorf("%s: step %s", name, s) }); done || err != nil {
			t.Errorf("%s: %t, %v", name, done, err)
		}
		if raw, err := os.ReadFile(filepath.Join(d.Path(), "slots/1/db")); err != nil || string(raw) != "old" {
			t.Errorf("%s: the store is %q, %v", name, raw, err)
		}
	}
	d := atWork(t)
	if err := os.WriteFile(filepath.Join(d.Back(), leftName), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := d.TakeBack(func(string) {}); err == nil || !strings.Contains(err.Error(), leftName) {
		t.Errorf("a damaged record: %v", err)
	}
}
