package datadir

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A host's record that is missing although an engine may have served is damage, and not a single host:
// otherwise old data would appear again, and the newer data would be removed.
func TestALostRecordIsDamage(t *testing.T) {
	d, err := Open(filepath.Join(t.TempDir(), "data"), true)
	if err != nil {
		t.Fatal(err)
	}
	single := func(when string) {
		t.Helper()
		if _, err := d.ReadHost(); !errors.Is(err, os.ErrNotExist) || d.ManyHosts() {
			t.Errorf("%s: %v", when, err)
		}
	}
	lost := func(when string) {
		t.Helper()
		if _, err := d.ReadHost(); err == nil || errors.Is(err, os.ErrNotExist) || !strings.Contains(err.Error(), "put the file back") || !d.ManyHosts() {
			t.Errorf("%s: %v", when, err)
		}
	}
	single("at first")
	if err := d.BeginHosts(); err != nil {
		t.Fatal(err)
	}
	single("begun")
	fill := func() {
		t.Helper()
		if err := os.MkdirAll(filepath.Join(d.Engine(), "member"), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	fill()
	single("with an engine that has served nobody")
	host := Host{Cluster: "c", Name: "a", Address: "127.0.0.1:1", Members: map[string]string{"a": "127.0.0.1:1"}}
	if err := d.WriteHost(host); err != nil {
		t.Fatal(err)
	}
	for range 2 { // it may be repeated
		if err := d.EndBeginning(); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := d.ReadHost(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(d.hostPath()); err != nil {
		t.Fatal(err)
	}
	lost("after the engine has served")
	if err := d.WriteLeft(Left{Cluster: "c", Name: "a"}); err != nil {
		t.Fatal(err)
	}
	single("of a host that has left")
	if err := d.DropHosts(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(d.Hosts()); err != nil || len(entries) != 1 || entries[0].Name() != leftName {
		t.Errorf("after DropHosts: %v %v", entries, err)
	}
	// A new beginning forgets the one before, and an interrupted one is dropped as a whole.
	fill()
	if err := d.BeginHosts(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(d.Hosts()); err != nil || len(entries) != 1 || entries[0].Name() != beginningName {
		t.Errorf("after BeginHosts: %v %v", entries, err)
	}
	fill()
	if err := d.DropHosts(); err != nil {
		t.Fatal(err)
	}
	if entries, err := os.ReadDir(d.Hosts()); err != nil || len(entries) != 0 {
		t.Errorf("after DropHosts: %v %v", entries, err)
	}
	single("at last")
}
