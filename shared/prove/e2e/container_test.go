package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/operator/cli"
	"github.com/dynast-io/dynast/shared/operator/term"
)

// container is a cluster in which the leader's parent is the first process of a PID namespace.
// The pids in its tree are those inside the namespace, so the test must not send signals to them.
type container struct {
	*cluster
	cmd *exec.Cmd // unshare(1); its child is the first process of the namespace
}

// contain starts a command in its own PID namespace with a matching /proc.
func contain(t *testing.T, c *cluster, unshare []string, command ...string) *container {
	t.Helper()
	tool, err := exec.LookPath("unshare")
	if err != nil {
		t.Skip("needs unshare(1)")
	}
	args := append([]string{"--pid", "--fork", "--kill-child"}, unshare...)
	if os.Getuid() != 0 {
		args = append([]string{"--user", "--map-root-user"}, args...)
	}
	probe := slices.DeleteFunc(slices.Clone(args), func(a string) bool { return strings.HasPrefix(a, "--root") })
	if out, err := exec.Command(tool, append(probe, "true")...).CombinedOutput(); err != nil {
		t.Skipf("needs root, or permission to create namespaces: %v: %s", err, out)
	}
	cmd := exec.Command(tool, append(args, command...)...)
	cmd.Stderr, cmd.Stdout = c.logs, c.logs
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill() // with --kill-child, this kills all processes inside
		_ = cmd.Wait()
	})
	return &container{cluster: c, cmd: cmd}
}

func (k *container) look() *tree.Tree {
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if cli.Tree(ctx, k.dir, true, &out, term.Style{}) != nil {
		return nil
	}
	tr, err := tree.Decode(out.Bytes())
	if err != nil {
		k.t.Fatal(err)
	}
	return tr
}

// settled waits until two followers are in sync under a leader other than this one.
func (k *container) settled(other string) *tree.Tree {
	k.t.Helper()
	var tr *tree.Tree
	eventually(k.t, "the container has a new leader and two followers in sync", func() bool {
		tr = k.look()
		return tr != nil && tr.Leader != other && count(tr, "in_sync") == 2
	})
	return tr
}

// outside returns the pid of a process of the container as seen outside. The last number of NSpid
// is the pid inside, and the namespace is that of the first process.
func (k *container) outside(inside int) int {
	k.t.Helper()
	want := k.namespace(k.first())
	paths, _ := filepath.Glob("/proc/[0-9]*/status")
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			f := strings.Fields(line)
			if len(f) < 3 || f[0] != "NSpid:" || f[len(f)-1] != strconv.Itoa(inside) {
				continue
			}
			if pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path))); err == nil && k.namespace(pid) == want && want != "" {
				return pid
			}
		}
	}
	k.t.Fatalf("cannot find process %d of the container", inside)
	return 0
}

func (k *container) namespace(pid int) string {
	ns, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/pid", pid))
	if err != nil {
		return ""
	}
	return ns
}

// first returns the first process of the container, which is the only child of unshare.
func (k *container) first() int {
	k.t.Helper()
	var pid int
	eventually(k.t, "the container has a first process", func() bool {
		raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/task/%d/children", k.cmd.Process.Pid, k.cmd.Process.Pid))
		if err != nil {
			return false
		}
		pid, err = strconv.Atoi(strings.TrimSpace(string(raw)))
		return err == nil
	})
	return pid
}

// ended waits for the container and returns its exit code.
func (k *container) ended() int {
	k.t.Helper()
	done := make(chan error, 1)
	go func() { done <- k.cmd.Wait() }()
	select {
	case err := <-done:
		var exit *exec.ExitError
		if err != nil && !errors.As(err, &exit) {
			k.t.Fatal(err)
		}
		return k.cmd.ProcessState.ExitCode()
	case <-time.After(patience):
		k.t.Fatal("the container did not end in time")
		return -1
	}
}

func TestContainerSurvivesItsLeader(t *testing.T) {
	c := newCluster(t)
	k := contain(t, c, []string{"--mount-proc"}, binary, "up", "--config", c.config)
	before := k.settled("")
	cl := c.dial()
	put(t, cl, "container", "x")
	for range 2 { // the first leader is a child of the first process; the second one is an adopted orphan
		if pid := leaderOf(before).PID; pid == 1 {
			t.Fatal("the leader is the first process of the namespace, want a child of it")
		}
		if err := syscall.Kill(k.outside(leaderOf(before).PID), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
		after := k.settled(before.Leader)
		if resp, err := cl.Get(testContext(t), "container"); err != nil || len(resp.Kvs) != 1 {
			t.Fatalf("get after the death of a leader: %v, %v", resp, err)
		}
		before = after
	}
	// SIGHUP to the first process is passed on to the leader. No process may end because of it.
	if err := syscall.Kill(k.first(), syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	noZombies(t, k)
	if err := syscall.Kill(k.first(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := k.ended(); code != 0 {
		t.Errorf("the container was stopped in order: exit code %d, want 0", code)
	}
	if !strings.Contains(c.logText(), "stopping the cluster") {
		t.Error("the log does not show that a leader stopped the cluster")
	}
}

// noZombies checks that the first process reaps dead processes.
func noZombies(t *testing.T, k *container) {
	t.Helper()
	ns := k.namespace(k.first())
	eventually(t, "all dead processes are reaped", func() bool {
		paths, _ := filepath.Glob("/proc/[0-9]*/status")
		for _, path := range paths {
			raw, err := os.ReadFile(path)
			pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
			if err == nil && strings.Contains(string(raw), "State:\tZ") && k.namespace(pid) == ns {
				return false
			}
		}
		return true
	})
}

// TestContainerStartsAgain kills all members repeatedly. The container starts them again with
// growing delays, and a stop signal ends the wait.
func TestContainerStartsAgain(t *testing.T) {
	c := newCluster(t)
	k := contain(t, c, []string{"--mount-proc"}, binary, "up", "--config", c.config, "--followers", "0", "--replication-min-sync", "0")
	cl := c.dial()
	var before, tr *tree.Tree
	for n := range 3 {
		eventually(t, "a new leader without followers", func() bool {
			tr = k.look()
			return tr != nil && (before == nil || leaderOf(tr).PID != leaderOf(before).PID)
		})
		before = tr
		if n == 0 {
			put(t, cl, "container", "x")
		} else if resp, err := cl.Get(testContext(t), "container"); err != nil || len(resp.Kvs) != 1 {
			t.Fatalf("get after the death of all members: %v, %v", resp, err)
		}
		if err := syscall.Kill(k.outside(leaderOf(tr).PID), syscall.SIGKILL); err != nil {
			t.Fatal(err)
		}
	}
	eventually(t, "the log shows three delays", func() bool { return strings.Count(c.logText(), "starting the cluster again in") == 3 })
	if err := syscall.Kill(k.first(), syscall.SIGTERM); err != nil {
		t.Fatal(err)
	}
	if code := k.ended(); code != 128+int(syscall.SIGKILL) {
		t.Errorf("the container has exit code %d, want the one of a killed process", code)
	}
}

// TestContainerEndsWithItsLastMember checks that the container also reports how that member
// ended.
func TestContainerEndsWithItsLastMember(t *testing.T) {
	c := newCluster(t)
	blocker := listen(t, c.client)
	defer blocker.Close()
	if code := contain(t, c, []string{"--mount-proc"}, binary, "up", "--config", c.config).ended(); code != 1 || !strings.Contains(c.logText(), c.client) {
		t.Errorf("a leader that cannot start: exit code %d, want 1 and a message with the address\n%s", code, c.logText())
	}
}
