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
