package datadir

import (
	"os"
	"strings"
	"testing"
)

func TestNotes(t *testing.T) {
	d, err := Open(t.TempDir()+"/data", true)
	if err != nil {
		t.Fatal(err)
	}
	s := d.Slot(2)
	if _, yes := s.Condemned(); yes || s.OwesDefrag() {
		t.Fatal("notes where there is no slot")
	}
	if err := s.Condemn("x"); err == nil {
		t.Error("a note in a slot that does not exist")
	}
	if err := s.Make(); err != nil {
		t.Fatal(err)
	}
	for _, reason := range []string{"its keys differ", strings.Repeat("long ", 5000)} {
		if err := s.Condemn(reason); err != nil {
			t.Fatal(err)
		}
		got, yes := s.Condemned()
		if !yes || !strings.HasPrefix(reason, got) || got == "" {
			t.Errorf("condemned: %t, %.40q", yes, got)
		}
	}
	if err := s.OweDefrag(); err != nil || !s.OwesDefrag() {
		t.Errorf("owes: %v", err)
	}
	for range 2 { // the second time there is nothing to remove
		if err := s.Pardon(); err != nil {
			t.Error(err)
		}
		if err := s.PaidDefrag(); err != nil {
			t.Error(err)
		}
	}
	if _, yes := s.Condemned(); yes || s.OwesDefrag() {
		t.Error("the notes are still there")
	}
	// A note that cannot be read counts too.
	if err := os.Mkdir(s.note(condemnedName), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, yes := s.Condemned(); !yes {
		t.Error("a note that cannot be read is passed over")
	}
}
