package e2e

import (
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// reapersOf returns the living reapers among the children of a process, or of any process if it
// is 0.
func reapersOf(t *testing.T, parent int) []int {
	t.Helper()
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		t.Fatal(err)
	}
	var found []int
	for _, path := range paths {
		pid, _ := strconv.Atoi(filepath.Base(path))
		if !proc.IsReaper(pid) {
			continue
		}
		if parent != 0 {
			raw, _ := os.ReadFile(path + "/status")
			if !strings.Contains(string(raw), "\nPPid:\t"+strconv.Itoa(parent)+"\n") {
				continue
			}
		}
		if _, err := proc.Identify(pid); err == nil {
			found = append(found, pid)
		}
	}
	return found
}

// TestReaper: every leader has a process that releases its memory after its death. If this
// process dies, it is replaced and the leader continues. No such process is left at the end.
func TestReaper(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip(proc.ErrNoReaper)
	}
	c := start(t)
	first := leaderOf(c.full())
	seen := map[int]bool{}
	reaper := func(leader int) (pid int) {
		t.Helper()
		eventually(t, "the leader has one reaper", func() bool {
			pids := reapersOf(t, leader)
			if len(pids) == 1 {
				pid = pids[0]
			}
			return len(pids) == 1 && !seen[pid]
		})
		seen[pid] = true
		return pid
	}
	killed := reaper(first.PID)
	if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	reaper(first.PID)
	if _, err := os.Stat("/proc/" + strconv.Itoa(killed)); err == nil {
		t.Error("the reaper that was killed is a zombie")
	}
	if now := leaderOf(c.full()); now.PID != first.PID {
		t.Fatalf("pid %d leads now; pid %d led before its reaper was killed", now.PID, first.PID)
	}
	if _, err := c.dial().Put(testContext(t), "k", "v"); err != nil {
		t.Fatal(err)
	}
	c.signal(first, syscall.SIGKILL)
	c.wait("another member leads", func(tr *tree.Tree) bool { return leaderOf(tr).PID != first.PID && leaderOf(tr).PID != 0 })
	reaper(leaderOf(c.full()).PID)
	c.end()
	eventually(t, "no reaper is left", func() bool {
		for _, pid := range reapersOf(t, 0) {
			if seen[pid] {
				return false
			}
		}
		return true
	})
}
