package container

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"runtime/debug"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/rules/keeper"
)

// Needed reports whether this process is the first of its PID namespace.
func Needed() bool { return os.Getpid() == 1 }

// Leader returns the last known owner of the cluster's lock, which leads or is dead.
type Leader func() (proc.Identity, error)

// pace is how often the parent checks for what the kernel does not report: a new leader that
// has to be stopped, and the end of a member that is no child.
const pace = 20 * time.Millisecond

// parent is the state of Run. One goroutine uses it.
type parent struct {
	argv    []string
	leader  Leader
	signals chan os.Signal
	first   proc.Identity // the process that this parent started last

	// stopping is the signal that every leader has to get. told holds the leaders that got it.
	stopping syscall.Signal
	told     map[proc.Identity]bool

	seen      map[int]bool     // pids of members that are not reaped yet
	last      *unix.WaitStatus // of the member that ended last
	noChild   bool
	remaining bool // at least one member lives
}

// Run starts this program again with the same arguments and watches over it. When all members
// were killed, Run starts it again, with growing delays. Run returns when the last member has
// ended in another way, or after a signal to stop. The exit code is that of the last member, or
// 128 plus the number of the signal that ended it.
func Run(argv []string, leader Leader) (int, error) {
	p := &parent{argv: argv, leader: leader, signals: make(chan os.Signal, 64), told: map[proc.Identity]bool{}, seen: map[int]bool{}}
	signal.Notify(p.signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(p.signals)
	const seat = 0
	began := time.Now()
	starts := keeper.New(pacing, rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())))
	for {
		delay := starts.Fill(time.Since(began), seat)
		if delay > 0 {
			fmt.Fprintf(os.Stderr, "dynast: all members were killed; starting the cluster again in %s\n", delay.Round(time.Millisecond))
		}
		if !p.pause(delay) {
			return exitCode(*p.last), nil
		}
		starts.Due(time.Since(began))
		if err := p.start(); err != nil {
			return 1, err
		}
		if err := p.watch(); err != nil {
			return 1, err
		}
		if p.last == nil {
			return 1, errors.New("all members are gone, and it is unknown how the last one ended")
		}
		if p.stopping != 0 || !p.last.Signaled() {
			return exitCode(*p.last), nil
		}
		starts.Down(time.Since(began), seat)
	}
}

// pacing delays the starts after the death of all members. Whatever killed them may do so
// again, for instance a memory limit.
var pacing = keeper.Config{Base: 500 * time.Millisecond, Max: 30 * time.Second, HalfLife: time.Minute}

// pause waits before a start. It returns false if a signal to stop came meanwhile.
func (p *parent) pause(d time.Duration) bool {
	after := time.After(d)
	for d > 0 {
		select {
		case s := <-p.signals:
			if p.signalled(s.(syscall.Signal)); p.stopping != 0 {
				return false
			}
		case <-after:
			return true
		}
	}
	return true
}

// start starts a leader.
func (p *parent) start() error {
	pid, err := syscall.ForkExec(proc.Executable(), p.argv, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
		// A Ctrl-C in the terminal should reach only this process, which passes it on.
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return fmt.Errorf("start the leader as a child of the container's first process: %w", err)
	}
	p.seen[pid], p.remaining, p.noChild = true, true, false
	if p.first, err = proc.Identify(pid); err != nil && !errors.Is(err, proc.ErrGone) {
		return err
	}
	debug.FreeOSMemory()
	return nil
}

// watch passes on signals and reaps processes until no member is left.
func (p *parent) watch() error {
	for p.remaining {
		var look <-chan time.Time
		if p.stopping != 0 || p.noChild {
			look = time.After(pace)
		}
		select {
		case s := <-p.signals:
			p.signalled(s.(syscall.Signal))
		case <-look:
		}
		if err := p.reap(); err != nil {
			return err
		}
		if p.stopping != 0 {
			p.stop()
		}
	}
	return nil
}

// signalled passes a signal on. A signal that ends the cluster is repeated to later leaders, in
// case a leader dies before it obeys. Each further such signal is passed on at once.
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

// target returns the living leader, or the first process while it is about to become leader.
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

// send sends a signal to exactly this process. If it is gone, send does nothing.
func (p *parent) send(to proc.Identity, s syscall.Signal) {
	if to.PID == 0 {
		return
	}
	if target, err := proc.Open(to); err == nil {
		_ = target.Signal(s)
		_ = target.Close()
	}
}

// reap waits for all children that have ended, members and others, and then looks for living
// members. When a leader dies, its members become children of this process before the death is
// reported. So the last member to end has always been seen before.
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
			return nil // all remaining children live
		}
		if p.seen[pid] {
			p.last = &status
			delete(p.seen, pid)
		}
		p.look()
	}
}

// look finds the living members in this PID namespace, whoever started them.
func (p *parent) look() {
	alive := members()
	if now, err := proc.Identify(p.first.PID); err == nil && now == p.first {
		alive = append(alive, p.first.PID) // also before it has set its name
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

// isMember recognizes a member by the name that it gives itself, or by its arguments if it has
// not set its name yet.
func isMember(pid int) bool {
	dir := "/proc/" + strconv.Itoa(pid)
	if comm, err := os.ReadFile(dir + "/comm"); err == nil && bytes.HasPrefix(comm, []byte("dynast:")) {
		return true
	}
	args, err := os.ReadFile(dir + "/cmdline")
	return err == nil && !proc.IsReaper(pid) && bytes.HasPrefix(args, []byte("dynast\x00worker\x00"))
}
