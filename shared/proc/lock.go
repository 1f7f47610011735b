package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"sync"
	"unicode"

	"golang.org/x/sys/unix"
)

// ErrLocked says that another open file holds the lock.
var ErrLocked = errors.New("locked")

// Lock is an exclusive flock(2). It is held until Unlock or the end of the
// process. Dropping the last reference does not free it: it holds a bare
// descriptor, which the garbage collector knows nothing of.
type Lock struct {
	path string

	mu sync.Mutex
	fd int // -1 once unlocked
}

// lockTries bounds how often a file that was replaced under TryLock is opened
// again.
const lockTries = 8

// TryLock takes the lock of a file without waiting. The file is made if it is
// missing, tells people who the owner is, and is never unlinked: two processes
// could hold locks on two files of that name then. The error is ErrLocked, with
// the owner as far as known, when the lock is held elsewhere, in this process
// or in another.
//
// The kernel frees the lock when the last copy of the descriptor is closed, so
// at the latest when its owner dies. One copy can outlive the owner for an
// instant: that of a child which was forked and has not called exec yet.
// So who knows that the owner is dead, and meets ErrLocked all the same, tries
// again for some milliseconds.
func TryLock(path string) (*Lock, error) {
	for range lockTries {
		fd, err := tryLock(path)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		l := &Lock{path: path, fd: fd}
		if l.Check() != nil {
			l.Unlock() // it was replaced in between: try the new one
			continue
		}
		if err := writeOwner(fd); err != nil {
			l.Unlock()
			return nil, fmt.Errorf("lock %s: name the owner: %w", path, err)
		}
		return l, nil
	}
	return nil, fmt.Errorf("lock %s: the file is being replaced all the time", path)
}

func tryLock(path string) (int, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC, 0o600)
	})
	if err != nil {
		return -1, err
	}
	_, err = retry(func() (int, error) { return 0, unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err == nil {
		return fd, nil
	}
	unix.Close(fd)
	if !errors.Is(err, unix.EWOULDBLOCK) {
		return -1, fmt.Errorf("flock: %w", err)
	}
	if owner, err := ReadOwner(path); err == nil {
		return -1, fmt.Errorf("%w by %s", ErrLocked, owner.Text)
	}
	return -1, ErrLocked
}

func retry(f func() (int, error)) (int, error) {
	for {
		n, err := f()
		if err != unix.EINTR {
			return n, err
		}
	}
}

// Check reports an error when the path no longer names the locked file: then
// somebody removed or replaced it, and the lock keeps nobody out.
func (l *Lock) Check() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd < 0 {
		return fmt.Errorf("check lock %s: %w", l.path, os.ErrClosed)
	}
	var held, named unix.Stat_t
	if err := unix.Fstat(l.fd, &held); err != nil {
		return fmt.Errorf("check lock %s: %w", l.path, err)
	}
	if err := unix.Stat(l.path, &named); err != nil {
		return fmt.Errorf("check lock %s: %w", l.path, err)
	}
	if held.Dev != named.Dev || held.Ino != named.Ino {
		return fmt.Errorf("check lock %s: the file was replaced while it was locked", l.path)
	}
	return nil
}

// Unlock frees the lock. A second Unlock does nothing.
func (l *Lock) Unlock() error {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.fd < 0 {
		return nil
	}
	// Freed explicitly: a child between fork and exec may share the descriptor.
	err := errors.Join(unix.Flock(l.fd, unix.LOCK_UN), unix.Close(l.fd))
	l.fd = -1
	if err != nil {
		return fmt.Errorf("unlock %s: %w", l.path, err)
	}
	return nil
}

// Owner is what a lock file says about its last owner. That is for people: only
// TryLock tells whether the lock is held.
type Owner struct {
	Identity Identity
	Text     string
}

const ownerMaxBytes = 1024

// writeOwner is not synced and not atomic: the lock is the flock, and the text
// may lag behind it.
func writeOwner(fd int) error {
	id := Self()
	name, _ := os.ReadFile("/proc/self/comm")
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d %d\n", id.PID, id.StartTime)
	fmt.Fprintf(&b, "pid %d (%s)\n", id.PID, strings.TrimSpace(string(name)))
	b.WriteString("The lock is not this file but a flock(2) on it: removing the file frees nothing.\n")
	if _, err := unix.Pwrite(fd, b.Bytes(), 0); err != nil {
		return err
	}
	return unix.Ftruncate(fd, int64(b.Len()))
}

// ReadOwner reads who last took the lock of a file.
func ReadOwner(path string) (Owner, error) {
	f, err := os.Open(path)
	if err != nil {
		return Owner{}, fmt.Errorf("read lock owner: %w", err)
	}
	defer f.Close()
	raw, err := io.ReadAll(io.LimitReader(f, ownerMaxBytes))
	if err != nil {
		return Owner{}, fmt.Errorf("read lock owner: %w", err)
	}
	return parseOwner(path, string(raw))
}

func parseOwner(path, raw string) (Owner, error) {
	lines := strings.SplitN(raw, "\n", 3)
	var o Owner
	if len(lines) < 3 {
		return o, fmt.Errorf("read lock owner: %s names none", path)
	}
	if _, err := fmt.Sscanf(lines[0], "%d %d", &o.Identity.PID, &o.Identity.StartTime); err != nil {
		return Owner{}, fmt.Errorf("read lock owner: %s: %w", path, err)
	}
	if o.Identity.PID <= 0 {
		return Owner{}, fmt.Errorf("read lock owner: %s: %d is no pid", path, o.Identity.PID)
	}
	// It is shown to people, and anything may have written it.
	o.Text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return '?'
	}, lines[1])
	return o, nil
}
