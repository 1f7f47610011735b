package e2e

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/observe/tree"
)

// TestTimerSlackOfMembers: every member has the timer slack that the first process set. This
// includes the members that a later leader starts.
func TestTimerSlackOfMembers(t *testing.T) {
	if n, err := unix.PrctlRetInt(unix.PR_GET_TIMERSLACK, 0, 0, 0, 0); err != nil || n != 50_000 {
		t.Skipf("this test has a timer slack of %d ns (error %v), which dynast would not change", n, err)
	}
	c := start(t)
	before := c.full()
	checkSlack(t, before)
	c.signal(leaderOf(before), syscall.SIGKILL)
	c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != before.Leader })
	checkSlack(t, c.full())
}

func checkSlack(t *testing.T, tr *tree.Tree) {
	t.Helper()
	for _, m := range tr.Members {
		ns, err := os.ReadFile(fmt.Sprintf("/proc/%d/timerslack_ns", m.PID))
		if errors.Is(err, os.ErrPermission) {
			t.Skip("needs CAP_SYS_NICE to read the timer slack of another process")
		}
		if err != nil || strings.TrimSpace(string(ns)) != "1000000" {
			t.Errorf("%s %s has a timer slack of %q ns (error %v), want 1000000", m.Role, m.Address, ns, err)
		}
	}
}
