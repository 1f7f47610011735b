package proc

import (
	"errors"
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// TakeInstanceLock takes the flock of a file without waiting and returns the open file. It
// creates the file with mode 0600 if it is missing. The error is ErrLocked if the lock is held
// elsewhere. The file must never be unlinked or replaced.
//
// Unlike a Lock, it is meant to be passed on: a child that inherits the descriptor holds the
// lock from fork on. Closing the file here does not free the lock then. It is free when the last
// process that has the descriptor has closed it or is dead. LockHolders finds these processes.
func TakeInstanceLock(path string) (*os.File, error) {
	fd, err := retry(func() (int, error) {
		return unix.Open(path, unix.O_RDWR|unix.O_CREAT|unix.O_CLOEXEC|unix.O_NOFOLLOW, 0o600)
	})
	if err != nil {
		return nil, fmt.Errorf("lock %s: %w", path, err)
	}
	_, err = retry(func() (int, error) { return 0, unix.Flock(fd, unix.LOCK_EX|unix.LOCK_NB) })
	if err != nil {
		unix.Close(fd)
		if errors.Is(err, unix.EWOULDBLOCK) {
			return nil, fmt.Errorf("lock %s: %w", path, ErrLocked)
		}
		return nil, fmt.Errorf("lock %s: flock: %w", path, err)
	}
	return os.NewFile(uintptr(fd), path), nil
}
