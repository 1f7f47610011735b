package logging

import (
	"errors"
	"fmt"
	"os"
	"os/signal"
	"sync/atomic"

	"golang.org/x/sys/unix"
)

// chunkBytes is the maximum size of one write. A pipe that is ready takes that much (PIPE_BUF)
// in one piece and without blocking.
const chunkBytes = 4096

// stopCheckMillis is how often a writer that waits for a stuck device checks whether it has to
// stop.
const stopCheckMillis = 200

var errStopped = errors.New("the output was closed")

// descriptor writes to a duplicate of a standard error that other processes share. It uses a
// raw descriptor instead of an os.File for two reasons. An os.File with number 1 or 2 ends the
// process on EPIPE. And if another process has set the file to non-blocking mode, an os.File
// fails with EAGAIN.
type descriptor struct {
	fd       int
	terminal bool
	stop     atomic.Bool
	torn     bool // an error cut off the last line
}

func duplicate(f *os.File) (*descriptor, error) {
	raw, err := f.SyscallConn() // f.Fd() would change the file's mode
	if err != nil {
		return nil, err
	}
	d := &descriptor{}
	var dupErr error
	if err := raw.Control(func(fd uintptr) {
		d.fd, dupErr = unix.FcntlInt(fd, unix.F_DUPFD_CLOEXEC, 3)
	}); err != nil {
		return nil, err
	}
	if dupErr != nil {
		return nil, os.NewSyscallError("fcntl", dupErr)
	}
	if _, err := unix.IoctlGetTermios(d.fd, unix.TCGETS); err == nil {
		d.terminal = true
		signal.Ignore(unix.SIGTTOU)
	}
	return d, nil
}

// Write waits until the device takes the line, fails, or stop is set.
func (d *descriptor) Write(p []byte) (int, error) {
	if d.torn {
		p = append([]byte{'\n'}, p...)
	}
	for done := 0; done < len(p); {
		if err := d.wait(); err != nil {
			d.torn = d.torn || done > 0
			return done, err
		}
		n, err := unix.Write(d.fd, p[done:min(len(p), done+chunkBytes)])
		switch {
		case errors.Is(err, unix.EINTR), errors.Is(err, unix.EAGAIN):
		case err != nil:
			d.torn = d.torn || done > 0
			return done, fmt.Errorf("write standard error: %w", err)
		default:
			done += n
		}
	}
	d.torn = false
	return len(p), nil
}

// wait returns when a write would not block or would fail.
func (d *descriptor) wait() error {
	fds := []unix.PollFd{{Fd: int32(d.fd), Events: unix.POLLOUT}}
	for !d.stop.Load() {
		n, err := unix.Poll(fds, stopCheckMillis)
		if err != nil && !errors.Is(err, unix.EINTR) {
			return fmt.Errorf("poll standard error: %w", err)
		}
		if err == nil && n > 0 {
			return nil
		}
	}
	return errStopped
}

// Close is called by the writing goroutine.
func (d *descriptor) Close() error { return unix.Close(d.fd) }
