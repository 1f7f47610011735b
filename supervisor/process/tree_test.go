package process

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/cgroup"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// instance is an instance under test.
type instance struct {
	Instance
	main   *proc.Process
	output string
}

// startInstance starts a helper with a lock and a token.
func startInstance(t *testing.T, mode string, change func(*Program)) *instance {
	t.Helper()
	dir := t.TempDir()
	i := &instance{output: filepath.Join(dir, "output")}
	i.Lock, i.Token = filepath.Join(dir, "lock"), filepath.Base(filepath.Dir(dir))+filepath.Base(dir)
	out, err := os.OpenFile(i.output, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer out.Close()
	lock, err := proc.TakeInstanceLock(i.Lock)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	p := Program{Path: proc.Executable(), Argv: []string{"helper"}, Env: append(withMode(mode), TokenVariable+"="+i.Token), Stdout: out, Lock: lock}
	if change != nil {
		change(&p)
	}
	i.main = run(t, p)
	i.Main = i.main.Identity()
	// Also if the test fails, nothing stays.
	t.Cleanup(func() { i.killReported(t) })
	return i
}

// reported returns the processes that have said that they are ready. They may be dead.
func (i *instance) reported(t *testing.T) []int {
	t.Helper()
	raw, err := os.ReadFile(i.output)
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for line := range strings.Lines(string(raw)) {
		var pid int
		if _, err := fmt.Sscanf(line, "ready %d\n", &pid); err != nil {
			t.Fatalf("output %q", raw)
		}
		pids = append(pids, pid)
	}
	slices.Sort(pids)
	return pids
}

// ready waits for a number of processes.
func (i *instance) ready(t *testing.T, n int) []int {
	t.Helper()
	testkit.Eventually(t, fmt.Sprint(n, " processes"), func() bool { return len(i.reported(t)) >= n })
	return i.reported(t)
}

func (i *instance) killReported(t *testing.T) {
	for _, pid := range i.reported(t) {
		if id, err := proc.Identify(pid); err == nil && isHelper(pid) {
			_ = proc.Signal(id, unix.SIGKILL)
		}
	}
}

// isHelper reports whether a pid is still a helper's.
func isHelper(pid int) bool {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/cmdline")
	return err == nil && bytes.HasPrefix(raw, []byte("helper\x00"))
}

// tree returns the pids of the tree.
func (i *instance) tree(t *testing.T) []int {
	t.Helper()
	ids, err := i.Tree()
	if err != nil {
		t.Fatal(err)
	}
	var pids []int
	for _, id := range ids {
		pids = append(pids, id.PID)
	}
	slices.Sort(pids)
	return pids
}

// becomes waits until the tree has these processes and not those that are about to exit.
func (i *instance) becomes(t *testing.T, want []int) {
	t.Helper()
	testkit.Eventually(t, fmt.Sprint("the tree is ", want), func() bool { return slices.Equal(i.tree(t), want) })
}

func (i *instance) kill(t *testing.T) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := i.KillTree(ctx); err != nil {
		t.Fatal(err)
	}
	for _, pid := range i.reported(t) {
		if id, err := proc.Identify(pid); err == nil && isHelper(pid) {
			t.Errorf("%v lives", id)
		}
	}
	if got := i.tree(t); len(got) != 0 {
		t.Errorf("left: %v", got)
	}
	f, err := proc.TakeInstanceLock(i.Lock)
	if err != nil {
		t.Errorf("the lock is not free: %v", err)
		return
	}
	f.Close()
}

// Each kind of process is found by at least one of its marks, and nothing else is.
func TestTree(t *testing.T) {
	for _, x := range []struct {
		name, mode string
		stay       int
	}{
		{"only the program", "stay", 1},
		{"ignores signals", "deaf", 1},
		{"child in the session", "parent le:stay", 2},
		{"child in another session", "parent sle:stay", 2},
		{"orphan in the session", "parent vle:deaf", 2},
		{"daemon with the lock", "parent sve:stay", 2},
		{"daemon with the token", "parent svl:stay", 2},
		{"all at once", "parent le:stay sle:stay vle:stay sv:stay sve:deaf svl:stay", 7},
		{"program that has ended, with daemons", "vanish s:stay sv:deaf", 2},
	} {
		t.Run(x.name, func(t *testing.T) {
			other := startInstance(t, "parent s:stay", nil)
			i := startInstance(t, x.mode, nil)
			want := i.ready(t, x.stay)
			bystanders := other.ready(t, 2)
			if strings.HasPrefix(x.mode, "vanish") {
				<-i.main.Done()
			}
			i.becomes(t, want)
			i.kill(t)
			if got := other.tree(t); !slices.Equal(got, bystanders) {
				t.Errorf("another instance has %v, want %v", got, bystanders)
			}
		})
	}
}

// The session of a program that no longer exists counts only if the program was watched, or if one
// of its processes has another mark.
func TestTreeAfterTheProgramWasReaped(t *testing.T) {
	for _, x := range []struct {
		mode    string
		watched bool
		want    int
	}{
		{"vanish le:stay le:stay", true, 2},
		{"vanish le:stay le:stay", false, 0},
		{"vanish le:stay l:stay", false, 2},
	} {
		i := startInstance(t, x.mode, nil)
		i.ready(t, 2)
		<-i.main.Done()
		i.main.Exit()
		i.Watched = x.watched
		if got := i.tree(t); len(got) != x.want {
			t.Errorf("%s, watched %v: %v, want %d", x.mode, x.watched, got, x.want)
		}
		if x.want > 0 {
			i.kill(t)
		}
	}
}

// Another process has the pid of the program by now.
func TestTreeOfAReusedPID(t *testing.T) {
	other := startInstance(t, "parent :stay s:stay", nil)
	want := other.ready(t, 3)
	i := Instance{Main: other.Main, Watched: true}
	i.Main.StartTime--
	if ids, err := i.Tree(); err != nil || len(ids) != 0 {
		t.Errorf("%v, %v", ids, err)
	}
	if err := i.KillTree(t.Context()); err != nil {
		t.Error(err)
	}
	if got := other.tree(t); !slices.Equal(got, want) {
		t.Errorf("got %v, want %v", got, want)
	}
}

// Members of the cluster and this process are never part of an instance, whatever they hold.
func TestTreeExcludesMembers(t *testing.T) {
	i := startInstance(t, "parent s:stay", nil)
	pids := i.ready(t, 2)
	lock, err := os.Open(i.Lock)
	if err != nil {
		t.Fatal(err)
	}
	defer lock.Close()
	child, err := proc.Identify(pids[slices.IndexFunc(pids, func(pid int) bool { return pid != i.Main.PID })])
	if err != nil {
		t.Fatal(err)
	}
	all := i.Instance
	i.Members = []proc.Identity{child}
	if got := i.tree(t); !slices.Equal(got, []int{i.Main.PID}) {
		t.Errorf("got %v, want only %d", got, i.Main.PID)
	}
	i.Instance = all
	i.kill(t)
}

// A chain of processes, each of which forks the next one and exits, is faster than a listing.
func TestKillTreeOfAChain(t *testing.T) {
	dir := t.TempDir()
	script, stop, began := filepath.Join(dir, "script"), filepath.Join(dir, "stop"), filepath.Join(dir, "began")
	t.Cleanup(func() { _ = os.WriteFile(stop, nil, 0o600) }) // ends the chain if the test fails
	text := fmt.Sprintf("[ -e '%s' ] && exit\n: >'%s'\n/bin/sh '%s' &\n", stop, began, script)
	if err := os.WriteFile(script, []byte(text), 0o700); err != nil {
		t.Fatal(err)
	}
	p, _ := shell(t, ". "+script)
	main := run(t, p)
	<-main.Done()
	testkit.Eventually(t, "the chain runs", func() bool { _, err := os.Stat(began); return err == nil })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := (Instance{Main: main.Identity()}).KillTree(ctx); err != nil {
		t.Fatal(err)
	}
	// A living link would write the file again.
	entries, err := proc.List()
	if err != nil {
		t.Fatal(err)
	}
	for _, e := range entries {
		if e.Session == main.Identity().PID && !e.Dead {
			t.Errorf("%v lives", e)
		}
	}
}

// Processes that fork without end, in sessions and groups of their own.
func TestKillTreeOfForkingProcesses(t *testing.T) {
	stop := filepath.Join(t.TempDir(), "stop")
	t.Cleanup(func() { _ = os.WriteFile(stop, nil, 0o600) })
	// set -m gives each job a process group of its own.
	p, path := shell(t, fmt.Sprintf(`set -m; echo began; while [ ! -e '%s' ]; do (sleep 100 & sleep 0.01); done`, stop))
	main := run(t, p)
	testkit.Eventually(t, "it forks", func() bool { raw, err := os.ReadFile(path); return err == nil && len(raw) > 0 })
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	i := Instance{Main: main.Identity()}
	if err := i.KillTree(ctx); err != nil {
		t.Fatal(err)
	}
	if ids, err := i.Tree(); err != nil || len(ids) != 0 {
		t.Errorf("left: %v, %v", ids, err)
	}
}

// The deadline ends the wait for a process, and the error names it.
func TestKillTreeEndsWithItsContext(t *testing.T) {
	i := startInstance(t, "stay", nil)
	i.ready(t, 1)
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	// Main may die before the wait begins. Then there is nothing to wait for.
	if err := i.KillTree(ctx); err != nil && (!errors.Is(err, context.Canceled) || !strings.Contains(err.Error(), i.Main.String())) {
		t.Error(err)
	}
	<-i.main.Done()
}

func TestKillTreeInAControlGroup(t *testing.T) {
	parent, err := cgroup.Find()
	if errors.Is(err, cgroup.ErrUnavailable) {
		t.Skip(err)
	}
	if err != nil {
		t.Fatal(err)
	}
	var group *cgroup.Group
	for _, launcher := range []bool{false, true} {
		// A new start needs a new group, see Create.
		if group, err = parent.Create("test-" + strconv.Itoa(os.Getpid()) + "-tree"); err != nil {
			t.Fatal(err)
		}
		// The last one has no mark left but the group.
		i := startInstance(t, "parent :stay svle:stay", func(p *Program) {
			p.ListenPID = launcher
			if p.Cgroup, err = group.OpenDir(); err != nil {
				t.Fatal(err)
			}
			t.Cleanup(func() { p.Cgroup.Close() })
		})
		want := i.ready(t, 3)
		i.Group = group
		i.becomes(t, want)
		i.kill(t)
	}
	if err := group.Remove(); err != nil {
		t.Error(err)
	}
	// A group with a member of the cluster is never killed.
	i := Instance{Group: cgroup.At(filepath.Dir(group.Path()))}
	if err := i.KillTree(t.Context()); err == nil || !strings.Contains(err.Error(), "a member of this cluster") {
		t.Fatalf("killed its own group: %v", err)
	}
}

// The process holds the lock from fork on, also while it has not executed the program.
func TestLockIsHeldBeforeExec(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	for try := 0; ; try++ {
		lock, err := proc.TakeInstanceLock(path)
		if err != nil {
			t.Fatal(err)
		}
		type result struct {
			process *proc.Process
			err     error
		}
		done := make(chan result, 1)
		go func() {
			p, err := StartProgram(Program{Path: "/bin/sleep", Argv: []string{"sleep", "1000"}, Lock: lock, ListenPID: true})
			done <- result{p, err}
		}()
		var holder proc.Holder
		testkit.Eventually(t, "the launcher has the lock", func() bool {
			holders, err := proc.LockHolders(path)
			if err != nil || len(holders) != 1 || holders[0].CloseOnExec {
				return false
			}
			holder = holders[0]
			return true
		})
		if err := proc.Signal(holder.Identity, unix.SIGSTOP); err != nil {
			t.Fatal(err)
		}
		testkit.Eventually(t, "it is stopped", func() bool { return proc.Stopped(holder.Identity) })
		raw, err := os.ReadFile("/proc/" + strconv.Itoa(holder.PID) + "/cmdline")
		if err != nil {
			t.Fatal(err)
		}
		early := bytes.HasPrefix(raw, []byte("dynast-launch\x00"))
		if early {
			lock.Close()
			if _, err := proc.TakeInstanceLock(path); !errors.Is(err, proc.ErrLocked) {
				t.Errorf("a launcher that has not executed the program: %v", err)
			}
		}
		if err := proc.Signal(holder.Identity, unix.SIGKILL); err != nil {
			t.Fatal(err)
		}
		r := <-done
		if r.err != nil {
			t.Fatal(r.err)
		}
		<-r.process.Done()
		if e, ended := r.process.Exit(); !ended || e.Signal != unix.SIGKILL {
			t.Errorf("%v, %v", e, ended)
		}
		r.process.Close()
		lock.Close()
		if early {
			break
		}
		if try > 200 {
			t.Fatal("every launcher was too fast")
		}
	}
	lock, err := proc.TakeInstanceLock(path)
	if err != nil {
		t.Fatalf("after its death: %v", err)
	}
	lock.Close()
}

// The leader is killed before it could note the pid. The lock leads to the program, and the kernel
// tells how it ended.
func TestProgramOfAKilledLeader(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "lock")
	leader := startInstance(t, "leader "+lock, nil)
	<-leader.main.Done()
	if e, _ := leader.main.Exit(); e.Signal != unix.SIGKILL {
		raw, _ := os.ReadFile(leader.output)
		t.Fatalf("the leader: %v, output %q", e, raw)
	}
	pids := leader.ready(t, 1)
	if _, err := proc.TakeInstanceLock(lock); !errors.Is(err, proc.ErrLocked) {
		t.Errorf("the lock: %v", err)
	}
	holders, err := proc.LockHolders(lock)
	if err != nil || len(holders) != 1 || holders[0].PID != pids[0] {
		t.Fatalf("holders %v, %v; want only %d", holders, err, pids[0])
	}
	p, err := proc.Open(holders[0].Identity)
	if err != nil {
		t.Fatal(err)
	}
	defer p.Close()
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	<-p.Done()
	e, ended := p.Exit()
	if !ended {
		t.Error("not ended")
	}
	if !e.Known {
		t.Skip("the kernel does not tell how another process's child ended; Linux 6.15 does")
	}
	if e.Signal != unix.SIGKILL {
		t.Errorf("%v", e)
	}
}
