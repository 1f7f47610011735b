package e2e

import (
	"syscall"
	"testing"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// TestLeaderStoppedBeforeItsFollowersReachedIt: the leader is stopped after its followers died
// and before their replacements have connected to it.
func TestLeaderStoppedBeforeItsFollowersReachedIt(t *testing.T) {
	c := start(t, withTimeout("800ms"))
	put(t, c.dial(), "kept", "1")
	before := c.full()
	old := map[proc.Identity]bool{}
	for _, id := range c.processes() {
		old[id] = true
	}
	for _, f := range followersOf(before) {
		c.signal(f, syscall.SIGKILL)
	}
	eventually(t, "two new processes own slots", func() bool {
		fresh := 0
		for _, id := range c.processes() {
			if !old[id] {
				fresh++
			}
		}
		return fresh == 2
	})
	c.signal(leaderOf(before), syscall.SIGSTOP)
	c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != before.Leader })
	reads(t, c.dial(), "kept", "1")
	c.full()
}
