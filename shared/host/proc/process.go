package proc

import (
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"
)

// Process is a living or dead process, held by a pidfd. Several goroutines may use it.
type Process struct {
	id   Identity
	done chan struct{}

	watch    *deathWatch
	watchKey int32

	mu     sync.RWMutex // protects the descriptor from Close
	closed bool
	pidfd  int

	exitMu sync.Mutex
	exit   Exit
}

// Open returns the process that an identity names. The error is ErrGone if it is dead or if its
// pid belongs to another process.
//
// A Process holds a descriptor until it is closed. All processes together need one thread.
func Open(id Identity) (*Process, error) {
	pidfd, err := openVerified(id)
	if err != nil {
		return nil, fmt.Errorf("open %v: %w", id, err)
	}
	return newProcess(id, pidfd)
}

// OpenChild returns the child with a pid, even if it is dead already. Nothing may wait for the
// child before.
func OpenChild(pid int) (*Process, error) {
	pidfd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return nil, fmt.Errorf("open child %d: pidfd_open: %w", pid, err)
	}
	st, err := readStat(pid) // a child keeps its pid until it is reaped
	if err != nil {
		unix.Close(pidfd)
		return nil, fmt.Errorf("open child %d: %w", pid, err)
	}
	return newProcess(Identity{PID: pid, StartTime: st.startTicks}, pidfd)
}

func newProcess(id Identity, pidfd int) (*Process, error) {
	p := &Process{id: id, done: make(chan struct{}), pidfd: pidfd}
	if err := awaitDeath(p); err != nil {
		unix.Close(pidfd)
		return nil, fmt.Errorf("open %v: %w", id, err)
	}
	return p, nil
}

// openVerified opens a pidfd, which is always close-on-exec, and then compares the start time.
// The order matters: once the pidfd exists, a matching start time proves that the pidfd refers
// to the wanted process.
func openVerified(id Identity) (int, error) {
	if id.PID <= 0 {
		return -1, ErrGone
	}
	pidfd, err := unix.PidfdOpen(id.PID, 0)
	// EINVAL means that the pid is now a thread of another process.
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) {
		return -1, ErrGone
	}
	if err != nil {
		return -1, fmt.Errorf("pidfd_open: %w", err)
	}
	st, err := readStat(id.PID)
	if err == nil && (st.startTicks != id.StartTime || dead(pidfd)) {
		err = ErrGone
	}
	if err != nil {
		unix.Close(pidfd)
		return -1, err
	}
	return pidfd, nil
}

// dead reports whether the process behind a pidfd is dead. It does not wait.
func dead(pidfd int) bool {
	fds := []unix.PollFd{{Fd: int32(pidfd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(fds, 0)
		if err != unix.EINTR {
			return n > 0
		}
	}
}

// Identity returns the identity with which the process was opened.
func (p *Process) Identity() Identity { return p.id }

// Done is closed when the process is dead. Close does not close it, because an unwatched
// Process knows nothing.
func (p *Process) Done() <-chan struct{} { return p.done }

// Signal sends a signal. The error is ErrGone if the process is dead, and os.ErrClosed after
// Close.
func (p *Process) Signal(sig unix.Signal) error {
	err := p.with(func(pidfd int) error {
		// A zombie would accept the signal.
		if dead(pidfd) {
			return ErrGone
		}
		err := unix.PidfdSendSignal(pidfd, sig, nil, 0)
		if errors.Is(err, unix.ESRCH) {
			return ErrGone
		}
		return err
	})
	if err != nil {
		return fmt.Errorf("send %s to %v: %w", unix.SignalName(sig), p.id, err)
	}
	return nil
}

// Kill sends SIGKILL. Done is closed when the process is dead.
func (p *Process) Kill() error { return p.Signal(unix.SIGKILL) }

// with calls f with the pidfd, which stays open meanwhile.
func (p *Process) with(f func(pidfd int) error) error {
	p.mu.RLock()
	defer p.mu.RUnlock()
	if p.closed {
		return os.ErrClosed
	}
	return f(p.pidfd)
}

// Close closes the descriptor. It does not affect the process. A second Close does nothing.
func (p *Process) Close() error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	p.closed = true
	p.watch.forget(p)
	if err := unix.Close(p.pidfd); err != nil {
		return fmt.Errorf("close %v: %w", p.id, err)
	}
	return nil
}
