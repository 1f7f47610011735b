package proc

import "golang.org/x/sys/unix"

// cloneReaper starts the reaper. The reaper runs in assembly code, because it has no stack and
// no thread of Go's runtime. It closes all files except the pidfd self, and waits for it.
func cloneReaper(self int, poll *unix.PollFd, name *[16]byte) (pid int, err error) {
	r := rawCloneReaper(self, poll, name)
	if r < 0 {
		return 0, unix.Errno(-r)
	}
	return r, nil
}

//go:noescape
func rawCloneReaper(self int, poll *unix.PollFd, name *[16]byte) int
