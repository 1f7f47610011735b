package proc

import (
	"fmt"
	"sync"

	"golang.org/x/sys/unix"
)

// deaths waits for the death of all open processes, in one goroutine with a thread of its own.
//
// The runtime's network poller would save the thread, but it is asked last when there is other
// work. Measured with all processors busy, it reported a death after 7 ms, and a thread that
// waits in the kernel after 0.3 ms.
var deaths struct {
	mu      sync.Mutex
	current *deathWatch // nil while no living process is open
}

// deathWatch is one run of the goroutine. It ends when there is nothing more to wait for.
type deathWatch struct {
	epoll, wake int
	next        int32              // keys name processes, because a descriptor's number is used again
	processes   map[int32]*Process // not dead and not closed
}

// wakeKey is the key of the eventfd, with which the goroutine is told to look at processes.
const wakeKey = -1

// awaitDeath makes the goroutine close p.done when p is dead.
func awaitDeath(p *Process) error {
	deaths.mu.Lock()
	defer deaths.mu.Unlock()
	w := deaths.current
	if w == nil {
		var err error
		if w, err = newDeathWatch(); err != nil {
			return err
		}
		deaths.current = w
		go w.run()
	}
	key := w.next
	for w.processes[key] != nil {
		key = (key + 1) & 0x7fffffff
	}
	if err := w.add(p.pidfd, key); err != nil {
		w.wakeIfIdle()
		return err
	}
	w.next = (key + 1) & 0x7fffffff
	w.processes[key] = p
	p.watch, p.watchKey = w, key
	return nil
}

func newDeathWatch() (*deathWatch, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, fmt.Errorf("epoll_create1: %w", err)
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		unix.Close(epoll)
		return nil, fmt.Errorf("eventfd: %w", err)
	}
	w := &deathWatch{epoll: epoll, wake: wake, processes: map[int32]*Process{}}
	if err := w.add(wake, wakeKey); err != nil {
		unix.Close(epoll)
		unix.Close(wake)
		return nil, err
	}
	return w, nil
}

func (w *deathWatch) add(fd int, key int32) error {
	err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: key})
	if err != nil {
		return fmt.Errorf("epoll_ctl: %w", err)
	}
	return nil
}

// forget ends the wait for a process that is about to be closed.
func (w *deathWatch) forget(p *Process) {
	deaths.mu.Lock()
	defer deaths.mu.Unlock()
	if w.remove(p.watchKey) {
		w.wakeIfIdle()
	}
}

// remove returns false if the process was removed before. The caller holds deaths.mu.
func (w *deathWatch) remove(key int32) bool {
	p := w.processes[key]
	if p == nil {
		return false
	}
	delete(w.processes, key)
	if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, p.pidfd, nil); err != nil {
		panic(fmt.Sprintf("proc: epoll_ctl of the pidfd of %v: %v", p.id, err)) // it was added and is open
	}
	return true
}

// wakeIfIdle ends the goroutine if it has nothing to wait for. The caller holds deaths.mu.
func (w *deathWatch) wakeIfIdle() {
	if len(w.processes) > 0 {
		return
	}
	one := [8]byte{1} // any non-zero count, whatever the byte order
	if _, err := unix.Write(w.wake, one[:]); err != nil {
		panic(fmt.Sprintf("proc: write to an eventfd: %v", err))
	}
}

func (w *deathWatch) run() {
	events := make([]unix.EpollEvent, 64)
	for {
		n, err := uninterrupted(func() (int, error) { return unix.EpollWait(w.epoll, events, -1) })
		if err != nil {
			// This happens only with bad arguments. Reporting a death that was not seen would
			// break the succession.
			panic(fmt.Sprintf("proc: epoll_wait: %v", err))
		}
		if w.handle(events[:n]) {
			return
		}
	}
}

// handle reports deaths. It returns true if there is nothing more to wait for; the descriptors
// are closed then.
func (w *deathWatch) handle(events []unix.EpollEvent) (idle bool) {
	deaths.mu.Lock()
	defer deaths.mu.Unlock()
	for _, e := range events {
		if e.Fd == wakeKey {
			var count [8]byte
			_, _ = unix.Read(w.wake, count[:])
			continue
		}
		if p := w.processes[e.Fd]; p != nil && w.remove(e.Fd) {
			close(p.done)
		}
	}
	if len(w.processes) > 0 {
		return false
	}
	deaths.current = nil
	unix.Close(w.epoll)
	unix.Close(w.wake)
	return true
}
