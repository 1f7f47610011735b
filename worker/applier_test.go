package worker

import "testing"

// TestTheTargetFollowsTheCommitIndex: also down, after a loss. Entries beyond it
// would be applied, and answered, before they are committed.
func TestTheTargetFollowsTheCommitIndex(t *testing.T) {
	a := newApplier(&Member{})
	for _, index := range []uint64{9, 3, 4} {
		if a.commit(index); a.target != index {
			t.Fatalf("applies up to %d, committed is %d", a.target, index)
		}
	}
}
