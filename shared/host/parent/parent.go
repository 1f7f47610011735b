package parent

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/signal"
	"runtime/debug"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/rules/keeper"
)

// Leader returns the last known owner of the cluster's lock, which leads or is dead.
type Leader func() (proc.Identity, error)

// Options say how Run starts the cluster and what it does besides.
type Options struct {
	// Argv are the arguments of the leader, with the name of the program first.
	Argv   []string
	Leader Leader
	// Members returns the pids of the living members.
	Members func() []int
	// Container says that this process is the first of its PID namespace. All members that it
	// finds then belong to this cluster, and Run starts the cluster again when all of them were
	// killed. Otherwise another cluster may own the data directory, and only the members that
	// succeed the process that Run started are those of this cluster.
	Container bool
	// Stopping is called when the first signal to stop arrives. It may be nil.
	Stopping func()
	// Hurry is called for each further signal to stop. It reports whether it did something that
	// ends the waiting. If not, the leader gets the signal. It may be nil, and may take long.
	Hurry func() bool
}

// pace is how often the parent checks for what the kernel does not report: a new leader that
// has to be stopped, and the end of a member that is no child.
const pace = 20 * time.Millisecond

// oneRequest is the time in which signals to stop count as one. A shell script and the terminal
// may both pass on the same Ctrl-C.
const oneRequest = 500 * time.Millisecond

// parent is the state of Run. One goroutine uses it.
type parent struct {
	Options
	signals chan os.Signal
	first   proc.Identity // the process that this parent started last
	led     bool          // the members in the data directory are those of this cluster

	// stopping is true when every leader has to get SIGTERM. told holds the leaders that got it.
	stopping bool
	told     map[proc.Identity]bool
	stopAt   time.Time // of the last signal to stop
	hurried  chan bool // results of Hurry

	seen      map[int]bool     // pids of members that are not reaped yet
	last      *unix.WaitStatus // of the member that ended last
	noChild   bool
	remaining bool // at least one member lives
}

// Run starts this program again as the leader and watches over the cluster. It passes on signals
// to whoever leads. It returns when the last member has ended, with the exit code of that member,
// or 128 plus the number of the signal that ended it.
func Run(o Options) (int, error) {
	p := &parent{Options: o, led: o.Container, signals: make(chan os.Signal, 64), told: map[proc.Identity]bool{},
		hurried: make(chan bool, 1), seen: map[int]bool{}}
	signal.Notify(p.signals, unix.SIGCHLD, unix.SIGTERM, unix.SIGINT, unix.SIGHUP, unix.SIGQUIT, unix.SIGUSR1, unix.SIGUSR2)
	defer signal.Stop(p.signals)
	if !o.Container {
		// The kernel makes this process the parent of the members whose leader has died. So it
		// learns how each of them ended.
		if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
			return 1, fmt.Errorf("become the parent of the cluster's processes: %w", err)
		}
		return p.once()
	}
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
		code, err := p.once()
		if err != nil || p.stopping || !p.last.Signaled() {
			return code, err
		}
		starts.Down(time.Since(began), seat)
	}
}

// once starts the cluster and returns how it ended.
func (p *parent) once() (int, error) {
	if err := p.start(); err != nil {
		return 1, err
	}
	if err := p.watch(); err != nil {
		return 1, err
	}
	if p.last == nil {
		return 1, errors.New("all members are gone, and it is unknown how the last one ended")
	}
	return exitCode(*p.last), nil
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
			if p.signalled(s.(syscall.Signal)); p.stopping {
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
	pid, err := syscall.ForkExec(proc.Executable(), p.Argv, &syscall.ProcAttr{
		Env: os.Environ(), Files: []uintptr{0, 1, 2},
		// A Ctrl-C in the terminal should reach only this process, which passes it on.
		Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		return fmt.Errorf("start the leader as a child of this process: %w", err)
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
		p.leads()
		var look <-chan time.Time
		if p.stopping || p.noChild || !p.led {
			look = time.After(pace)
		}
		select {
		case s := <-p.signals:
			p.signalled(s.(syscall.Signal))
		case done := <-p.hurried:
			if !done {
				clear(p.told)
			}
		case <-look:
		}
		if err := p.reap(); err != nil {
			return err
		}
		if p.stopping {
			p.stop()
		}
	}
	return nil
}

// leads notes that the process that this parent started leads, or has led and is dead.
func (p *parent) leads() {
	if !p.led {
		id, err := p.Leader()
		p.led = err == nil && id == p.first && id.PID != 0
	}
}

// signalled passes a signal on. A signal that ends the cluster is repeated to later leaders, in
// case a leader dies before it obeys. Each further such signal says not to wait any longer.
func (p *parent) signalled(s syscall.Signal) {
	switch s {
	case unix.SIGCHLD:
	case unix.SIGTERM, unix.SIGINT:
		p.requested(time.Now())
	default:
		p.send(p.target(), s)
	}
}

// requested notes a signal to stop.
func (p *parent) requested(now time.Time) {
	again := p.stopping
	if again && now.Sub(p.stopAt) < oneRequest {
		return
	}
	p.stopping, p.stopAt = true, now
	if again && p.Hurry != nil {
		go func() {
			select {
			case p.hurried <- p.Hurry():
			default: // the parent has not read an earlier result yet
			}
		}()
		return
	}
	if !again && p.Stopping != nil {
		p.Stopping()
	}
	clear(p.told)
}

func (p *parent) stop() {
	if to := p.target(); to.PID != 0 && !p.told[to] {
		p.told[to] = true
		p.send(to, unix.SIGTERM) // a process that has only begun to start would lose a SIGINT
	}
}

// target returns the living leader, or the first process while it is about to become leader.
func (p *parent) target() proc.Identity {
	first := func() (proc.Identity, error) { return p.first, nil }
	find := []Leader{p.Leader, first}
	if !p.led {
		find = []Leader{first}
	}
	for _, f := range find {
		id, err := f()
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
			p.look()
		}
	}
}

// look finds the living members, whoever started them.
func (p *parent) look() {
	p.leads()
	var alive []int
	if p.led {
		alive = p.Members()
	}
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
