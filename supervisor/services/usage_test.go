package services

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// burn uses so much processor time that it is seen in steps of 10 ms.
const burn = `i=0; while [ $i -lt 300000 ]; do i=$((i+1)); done`

// The usage of an instance includes its children, also those that have ended, and is the same
// however its processes are found.
func TestUsageOfAProcessTree(t *testing.T) {
	done := filepath.Join(t.TempDir(), "done")
	r := newRig(t, fmt.Sprintf("service \"p\" {\n script = \"sh -c '%s'; sleep 600 & touch %s; wait\"\n}", burn, done))
	r.lead()
	pid := r.await("p/1", 0).PID
	testkit.Eventually(t, "the child has ended", func() bool { _, err := os.Stat(done); return err == nil })
	main, err := proc.ReadUsage(pid)
	if err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the memory of the second child is counted", func() bool {
		i := r.instance("p/1")
		return i.RSSBytes > main.RSSBytes*5/4
	})
	if i := r.instance("p/1"); i.CPUSeconds < main.CPU.Seconds()+0.05 {
		t.Errorf("%.2f s of processor time, of which the main process has used %.2f s itself: its child is missing", i.CPUSeconds, main.CPU.Seconds())
	}
}

// Without control groups, one look at all processes finds each tree: by session if a parent is
// dead, and by parent if a child has a session of its own. Two trees have no process in common.
func TestTreesAreFoundTogether(t *testing.T) {
	trees, started := map[string]running{}, map[string]*exec.Cmd{}
	for _, name := range []string{"a/1", "b/1"} {
		// The first sleep has no parent any more, the second has a session of its own.
		cmd := exec.Command("/bin/sh", "-c", "(sleep 600 &); setsid -w sleep 601 & wait")
		cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() {
			if all, err := proc.Loads(); err == nil {
				for _, l := range newForest(all).tree(cmd.Process.Pid) {
					_ = proc.Signal(l.Identity, unix.SIGKILL)
				}
			}
			_ = cmd.Wait()
		})
		trees[name], started[name] = running{main: cmd.Process.Pid}, cmd
	}
	testkit.Eventually(t, "both trees are complete", func() bool {
		all, err := proc.Loads()
		if err != nil {
			t.Fatal(err)
		}
		f := newForest(all)
		seen := map[int]bool{}
		for name := range trees {
			loads := f.tree(started[name].Process.Pid)
			for _, l := range loads {
				if seen[l.PID] {
					t.Fatalf("pid %d is in two trees", l.PID)
				}
				seen[l.PID] = true
			}
			if len(loads) != 3 { // the shell and two sleeps; the shell of the first sleep has ended
				return false
			}
		}
		return true
	})
	main, err := proc.ReadUsage(trees["a/1"].main)
	if err != nil {
		t.Fatal(err)
	}
	// A process that has just been forked or executes a program has no memory for a moment.
	testkit.Eventually(t, "the memory of the tree is more than that of its main process", func() bool {
		return measure(trees)["a/1"].rss > main.RSSBytes
	})
	if u, ok := measure(map[string]running{"gone/1": {main: 1 << 30}})["gone/1"]; ok {
		t.Errorf("a process that does not exist uses %+v", u)
	}
}

// BenchmarkMeasure is the cost of a report about 1,000 instances without control groups.
func BenchmarkMeasure(b *testing.B) {
	trees := map[string]running{}
	for n := range 1000 {
		trees[fmt.Sprint("p/", n)] = running{main: os.Getpid()}
	}
	for b.Loop() {
		measure(trees)
	}
}
