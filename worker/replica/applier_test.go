package replica

import (
	"testing"

	"github.com/dynast-io/dynast/shared/config"
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

// While another member takes over, a follower applies nothing. A leader does.
func TestFollowerRestsDuringATakeover(t *testing.T) {
	sh, _ := statetest.New(t, &config.Config{}, false)
	a := newApplier(sh, nil, nil)
	if a.resting() {
		t.Fatal("it rests from the start")
	}
	a.rest()
	if !a.resting() {
		t.Error("it does not rest")
	}
	sh.Leading.Store(true)
	if a.resting() {
		t.Error("a leader rests")
	}
	sh.Leading.Store(false)
	<-a.notify // the end of the rest wakes it
	if a.resting() {
		t.Error("it still rests")
	}
}
