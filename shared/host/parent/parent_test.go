package parent

import (
	"errors"
	"os"
	"os/exec"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// The tasks of an init are tested with real PID namespaces, in package e2e.

func TestExitCode(t *testing.T) {
	for status, want := range map[unix.WaitStatus]int{
		0: 0, 3 << 8: 3, unix.WaitStatus(unix.SIGKILL): 137, unix.WaitStatus(unix.SIGSEGV) | 0x80: 139,
	} {
		if got := exitCode(status); got != want {
			t.Errorf("status %#x: exit code %d, want %d", int(status), got, want)
		}
	}
}

// sleeper is a process with a given name and arguments. It lives until the test ends.
func sleeper(t *testing.T, argv ...string) proc.Identity {
	t.Helper()
	path, err := exec.LookPath("sleep")
	if err != nil {
		t.Skip("needs sleep(1)")
	}
	cmd := &exec.Cmd{Path: path, Args: append(argv, "1000")}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cmd.Process.Kill(); _ = cmd.Wait() })
	id, err := proc.Identify(cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	return id
}

func TestWhoIsAMember(t *testing.T) {
	if id := sleeper(t, "sleep"); isMember(id.PID) {
		t.Error("a stranger is taken for a member")
	}
	if isMember(os.Getpid()) {
		t.Error("this test is taken for a member")
	}
}

// A signal goes to the leader, or to the first process while there is no leader. It never goes
// to a process that only has the same pid.
func TestSignalTarget(t *testing.T) {
	first, leader := sleeper(t, "sleep"), sleeper(t, "sleep")
	leads, err := leader, error(nil)
	p := &parent{first: first, led: true, Options: Options{Leader: func() (proc.Identity, error) { return leads, err }}}
	if got := p.target(); got != leader {
		t.Errorf("%v, want the leader %v", got, leader)
	}
	err = errors.New("no lock file yet")
	if got := p.target(); got != first {
		t.Errorf("%v, want the first process %v", got, first)
	}
	err = nil
	leads.StartTime++ // another process had the pid
	if got := p.target(); got != first {
		t.Errorf("%v, want the first process %v", got, first)
	}
	p.first = proc.Identity{}
	if got := p.target(); got.PID != 0 {
		t.Errorf("%v, want nobody", got)
	}
	p.send(proc.Identity{}, unix.SIGKILL) // to nobody: nothing happens
}

// A second stop signal is passed on too, because it means not to wait any longer. Signals that come
// at once are one.
func TestEachStopSignalIsPassedOnOnce(t *testing.T) {
	leader := sleeper(t, "sleep")
	p := &parent{led: true, told: map[proc.Identity]bool{}, Options: Options{Leader: func() (proc.Identity, error) { return leader, nil }}}
	now := time.Now()
	p.requested(now)
	if !p.stopping || p.told[leader] {
		t.Fatalf("%+v", p)
	}
	p.told[leader] = true
	if p.requested(now.Add(oneRequest / 2)); !p.told[leader] {
		t.Error("the same signal twice is taken for two requests")
	}
	if p.requested(now.Add(oneRequest)); p.told[leader] {
		t.Errorf("a second request is not passed on: %+v", p)
	}
}

// Hurry decides whether a second request is passed on.
func TestHurry(t *testing.T) {
	p := &parent{told: map[proc.Identity]bool{}, hurried: make(chan bool, 1), Options: Options{Hurry: func() bool { return true }}}
	now := time.Now()
	p.requested(now)
	p.told[proc.Identity{PID: 1}] = true
	p.requested(now.Add(time.Minute))
	if !<-p.hurried || len(p.told) != 1 {
		t.Errorf("%+v", p)
	}
}

// Where another cluster owns the data directory, its leader gets no signal, and its members do not
// count.
func TestAnotherClusterIsLeftAlone(t *testing.T) {
	first, other := sleeper(t, "sleep"), sleeper(t, "sleep")
	p := &parent{first: first, seen: map[int]bool{}, Options: Options{
		Leader: func() (proc.Identity, error) { return other, nil }, Members: func() []int { return []int{other.PID} }}}
	if got := p.target(); got != first {
		t.Errorf("a signal goes to %v, want %v", got, first)
	}
	if p.look(); p.seen[other.PID] || !p.seen[first.PID] {
		t.Errorf("members %v, want %d", p.seen, first.PID)
	}
	p.Leader = func() (proc.Identity, error) { return first, nil }
	if p.look(); !p.led || !p.seen[other.PID] {
		t.Errorf("the process leads, and its followers do not count: %v", p.seen)
	}
}
