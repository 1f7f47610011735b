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

// ErrLocked means that another open file holds the lock.
var ErrLocked = errors.New("locked")

// Lock is an exclusive flock(2). It is held until Unlock or the end of the process. Dropping
// the last reference does not free it, because it holds a bare descriptor that the garbage
// collector does not know.
type Lock struct {
	path string

	mu sync.Mutex
	fd int // -1 once unlocked
}

// lockTries bounds how often TryLock opens a file again that was replaced meanwhile.
const lockTries = 8

// TryLock takes the lock of a file without waiting. It creates the file if it is missing.
// The file names the owner, for people. It must never be unlinked, because then two
// processes could hold locks on two files of the same name. If the lock is held
// elsewhere, in this process or another, the error is ErrLocked and names the owner as
// far as it is known.
//
// The kernel frees the lock when the last copy of the descriptor is closed, at the latest
// when the owner dies. One copy can outlive the owner for an instant: that of a child
// which was forked and has not called exec yet. So a caller that knows that the owner is
// dead and still gets ErrLocked should try again for some milliseconds.
func TryLock(path string) (*Lock, error) {
	for range lockTries {
		fd, err := tryLock(path)
		if err != nil {
			return nil, fmt.Errorf("lock %s: %w", path, err)
		}
		l := &Lock{path: path, fd: fd}
		if l.Check() != nil {
			l.Unlock() // the file was replaced meanwhile; try the new one
			continue
		}
		if err := writeOwner(fd); err != nil {
			l.Unlock()
			return nil, fmt.Errorf("lock %s: write the owner into the file: %w", path, err)
		}
		return l, nil
	}
	return nil, fmt.Errorf("lock %s: the file is replaced again and again; find out which program does that", path)
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

// Check returns an error if the path no longer names the locked file. Then somebody removed or
// replaced the file, and the lock excludes nobody.
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
	// Unlock explicitly, because a child between fork and exec may share the descriptor.
	err := errors.Join(unix.Flock(l.fd, unix.LOCK_UN), unix.Close(l.fd))
	l.fd = -1
	if err != nil {
		return fmt.Errorf("unlock %s: %w", l.path, err)
	}
	return nil
}

// Owner is what a lock file says about its last owner. It is for people; only TryLock tells
// whether the lock is held.
type Owner struct {
	Identity Identity
	Text     string
}

const ownerMaxBytes = 1024

// writeOwner neither syncs nor replaces the file atomically. The flock is the lock; the text
// may lag behind it.
func writeOwner(fd int) error {
	id := Self()
	name, _ := os.ReadFile("/proc/self/comm")
	var b bytes.Buffer
	fmt.Fprintf(&b, "%d %d\n", id.PID, id.StartTime)
	fmt.Fprintf(&b, "pid %d (%s)\n", id.PID, strings.TrimSpace(string(name)))
	b.WriteString("The lock is a flock(2) on this file. Removing the file does not free it.\n")
	if _, err := unix.Pwrite(fd, b.Bytes(), 0); err != nil {
		return err
	}
	return unix.Ftruncate(fd, int64(b.Len()))
}

// ReadOwner returns the owner that last took the lock of a file.
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
		return o, fmt.Errorf("read lock owner: %s names no owner", path)
	}
	if _, err := fmt.Sscanf(lines[0], "%d %d", &o.Identity.PID, &o.Identity.StartTime); err != nil {
		return Owner{}, fmt.Errorf("read lock owner: %s: %w", path, err)
	}
	if o.Identity.PID <= 0 {
		return Owner{}, fmt.Errorf("read lock owner: %s: %d is not a pid", path, o.Identity.PID)
	}
	// The text is shown to people, and anybody may have written it.
	o.Text = strings.Map(func(r rune) rune {
		if unicode.IsPrint(r) && r != unicode.ReplacementChar {
			return r
		}
		return '?'
	}, lines[1])
	return o, nil
}
