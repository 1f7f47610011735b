package worker

import (
	"path/filepath"
	"testing"

	"github.com/dynast-io/dynast/shared/entry"
	replog "github.com/dynast-io/dynast/shared/log"
)

// TestAcknowledgementsOfAnotherLogDoNotCount: after a loss, a follower can have
// entries in the place of the leader's, and more of them. What it says of them must
// not pass for the acknowledgement of a snapshot, nor of entries.
func TestAcknowledgementsOfAnotherLogDoNotCount(t *testing.T) {
	log, err := replog.Create(replog.Options{Dir: filepath.Join(t.TempDir(), "log")}, entry.Position{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := log.Append([]entry.Entry{{Index: 1, Epoch: 1}, {Index: 2, Epoch: 1}, {Index: 3, Epoch: 8}}); err != nil {
		t.Fatal(err)
	}
	m := &Member{replica: &replica{cur: copyOf{log: log}}}
	for p, want := range map[entry.Position]bool{
		{Epoch: 1, Index: 2}: true, {Epoch: 8, Index: 3}: true,
		{Epoch: 2, Index: 3}: false, // in the place of another
		{Epoch: 2, Index: 9}: false, // beyond the end
		{Epoch: 8, Index: 4}: false,
	} {
		if got := m.mine(p); got != want {
			t.Errorf("%s is in this log: %t", p, got)
		}
	}
}
