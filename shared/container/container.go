package container

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/proc"
)

// Needed reports whether this process is the first of its PID namespace.
func Needed() bool { return os.Getpid() == 1 }

// Leader tells who leads, as far as that is known: the last owner of the cluster's
// lock, who may be dead.
type Leader func() (proc.Identity, error)

// pace is how often an event is looked for that the kernel does not tell: a new leader to be
// stopped, the end of a member that is no child.
const pace = 20 * time.Millisecond

// parent is the state of Run, which runs on one goroutine.
type parent struct {
	leader Leader
	first  proc.Identity // the process that was started here

	// stopping is the signal that every leader is to get, told to whom.
	stopping syscall.Signal
	told     map[proc.Identity]bool

	seen      map[int]bool // pids of members not reaped yet
	code      int          // of the member that ended last
	noChild   bool
	remaining bool // a member lives
}

// Run starts this program again with the same arguments and stays above it. It returns
// the exit code once no member is left: the last one's, or 128 and the number of the signal that
// ended it.
func Run(argv []string, leader Leader) (int, error) {
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(signals)
	pid, err := syscall.ForkExec(proc.Executable(), argv, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
		// A Ctrl-C in the terminal reaches this process, which passes it on: not both of them.
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return 1, fmt.Errorf("start the leader below the first process of the container: %w", err)
	}
	p := &parent{leader: leader, told: map[proc.Identity]bool{}, seen: map[int]bool{pid: true}, remaining: true}
	if p.first, err = proc.Identify(pid); err != nil && !errors.Is(err, proc.ErrGone) {
		return 1, err
	}
	debug.FreeOSMemory()
	for p.remaining {
		var look <-chan time.Time
		if p.stopping != 0 || p.noChild {
			look = time.After(pace)
		}
		select {
		case s := <-signals:
			p.signalled(s.(syscall.Signal))
		case <-look:
		}
		if err := p.reap(); err != nil {
			return 1, err
		}
		if p.stopping != 0 {
			p.stop()
		}
	}
	return p.code, nil
}

// signalled passes a signal on. One that ends the cluster is repeated to whoever leads
// later, should the leader die over it; and each further one is passed on at once.
func (p *parent) signalled(s syscall.Signal) {
	switch s {
	case unix.SIGCHLD:
	case unix.SIGTERM, unix.SIGINT:
		p.stopping = s
		clear(p.told)
	default:
		p.send(p.target(), s)
	}
}

func (p *parent) stop() {
	if to := p.target(); to.PID != 0 && !p.told[to] {
		p.told[to] = true
		p.send(to, p.stopping)
	}
}

// target is the living leader, or the first process while it is on its way to be one.
func (p *parent) target() proc.Identity {
	for _, find := range []Leader{p.leader, func() (proc.Identity, error) { return p.first, nil }} {
		id, err := find()
		if err != nil || id.PID == 0 {
			continue
		}
		if now, err := proc.Identify(id.PID); err == nil && now == id {
			return id
		}
	}
	return proc.Identity{}
}

// send sends to exactly this process; one that is gone needs no signal.
func (p *parent) send(to proc.Identity, s syscall.Signal) {
	if to.PID == 0 {
		return
	}
	if target, err := proc.Open(to); err == nil {
		_ = target.Signal(s)
		_ = target.Close()
	}
}

// reap waits for all children that have ended, members and strangers, and sees who is left.
// A member whose leader dies is this process's child before that death is told, so whoever
// can end here as the last one has been seen before.
func (p *parent) reap() error {
	for {
		var status unix.WaitStatus
		pid, err := unix.Wait4(-1, &status, unix.WNOHANG, nil)
		switch {
		case errors.Is(err, unix.EINTR):
			continue
		case errors.Is(err, unix.ECHILD):
			p.noChild = true
			p.look()
			return nil
		case err != nil:
			return fmt.Errorf("wait for children: %w", err)
		case pid == 0:
			p.noChild = false
			return nil // all that are left live
		}
		if p.seen[pid] {
			p.code = exitCode(status)
			delete(p.seen, pid)
		}
		p.look()
	}
}

// look sees which members live, wherever in this PID namespace they come from.
func (p *parent) look() {
	alive := members()
	if now, err := proc.Identify(p.first.PID); err == nil && now == p.first {
		alive = append(alive, p.first.PID) // before it has named itself, too
	}
	for _, pid := range alive {
		p.seen[pid] = true
	}
	p.remaining = len(alive) > 0
}

func exitCode(s unix.WaitStatus) int {
	if s.Signaled() {
		return 128 + int(s.Signal())
	}
	return s.ExitStatus()
}

func members() []int {
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var found []int
	for _, path := range paths {
		pid, err := strconv.Atoi(filepath.Base(path))
		if err != nil || pid == os.Getpid() || !isMember(pid) {
			continue
		}
		if _, err := proc.Identify(pid); err == nil {
			found = append(found, pid)
		}
	}
	return found
}

// isMember goes by the name that members give themselves, and by the arguments of one that
// has not come to that yet.
func isMember(pid int) bool {
	dir := "/proc/" + strconv.Itoa(pid)
	if comm, err := os.ReadFile(dir + "/comm"); err == nil && bytes.HasPrefix(comm, []byte("dynast:")) {
		return true
	}
	args, err := os.ReadFile(dir + "/cmdline")
	return err == nil && !proc.IsReaper(pid) && bytes.HasPrefix(args, []byte("dynast\x00worker\x00"))
}
