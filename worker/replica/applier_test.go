package replica

import (
	"testing"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/prove/testkit"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/worker/state/statetest"
)

// After a loss the commit index goes back, and the applier's target must follow. Otherwise
// later entries would be applied, and their clients answered, before they are committed.
func TestTargetFollowsCommitIndex(t *testing.T) {
	sh, _ := statetest.New(t, &config.Config{}, false)
	a := newApplier(sh, nil, nil)
	for _, index := range []uint64{9, 3, 4} {
		if a.commit(index); a.target != index {
			t.Fatalf("applies up to %d, committed is %d", a.target, index)
		}
	}
}

// While another member takes over, a follower applies nothing, also not the rest of what it is
// applying. Afterwards, or when it takes over itself, it goes on.
func TestFollowerPausesDuringATakeover(t *testing.T) {
	r, _ := opened(t)
	const entries = 3
	for i := range uint64(entries) {
		r.Append([]entry.Entry{{Index: i + 1, Epoch: 1}})
		r.writer.next()()
	}
	a := r.applier
	a.commit(entries)
	a.pause()
	if a.step(); r.Applied.Load() != 0 {
		t.Fatalf("applied up to %d during a pause", r.Applied.Load())
	}
	testkit.Eventually(t, "all entries are applied after the pause", func() bool {
		a.step()
		return r.Applied.Load() == entries
	})
	a.pause()
	if a.goOn(); a.paused.Load() {
		t.Error("the pause did not end when this member took over")
	}
}
