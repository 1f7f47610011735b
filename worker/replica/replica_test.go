package replica

import (
	"path/filepath"
	"testing"

	"github.com/dynast-io/dynast/shared/config"
	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/worker/state/statetest"
)

// After a loss, a follower can have other entries than the leader at the same indices, and more of
// them. Its acknowledgement must not count for the leader's entries or for a snapshot.
func TestAcksOfAnotherLogDoNotCount(t *testing.T) {
	log, err := replog.Create(replog.Options{Dir: filepath.Join(t.TempDir(), "log")}, entry.Position{})
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	if err := log.Append([]entry.Entry{{Index: 1, Epoch: 1}, {Index: 2, Epoch: 1}, {Index: 3, Epoch: 8}}); err != nil {
		t.Fatal(err)
	}
	sh, _ := statetest.New(t, &config.Config{}, false)
	r := &Replica{Shared: sh, holder: &holder{Shared: sh, cur: Copy{Log: log}}}
	for p, want := range map[entry.Position]bool{
		{Epoch: 1, Index: 2}: true, {Epoch: 8, Index: 3}: true,
		{Epoch: 2, Index: 3}: false, // in the place of another
		{Epoch: 2, Index: 9}: false, // beyond the end
		{Epoch: 8, Index: 4}: false,
	} {
		if got := r.Contains(p); got != want {
			t.Errorf("%s is in this log: %t", p, got)
		}
	}
}
