package proc

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ListeningSocket returns a duplicate of the first listening socket of a process whose local
// address fulfils a condition, or nil if the process has none. It needs the permission to trace
// the process.
func ListeningSocket(id Identity, condition func(unix.Sockaddr) bool) (*os.File, error) {
	pidfd, err := openVerified(id)
	if err != nil {
		return nil, fmt.Errorf("sockets of %v: %w", id, err)
	}
	defer unix.Close(pidfd)
	dir := "/proc/" + strconv.Itoa(id.PID) + "/fd"
	entries, err := os.ReadDir(dir)
	if err != nil {
		return nil, fmt.Errorf("sockets of %v: %w", id, err)
	}
	for _, e := range entries {
		number, err := strconv.Atoi(e.Name())
		if err != nil {
			continue
		}
		if target, err := os.Readlink(dir + "/" + e.Name()); err != nil || !strings.HasPrefix(target, "socket:") {
			continue // closed in the meantime, or another kind of file
		}
		fd, err := unix.PidfdGetfd(pidfd, number, 0)
		if err == unix.EBADF {
			continue // closed in the meantime
		}
		if err != nil {
			return nil, fmt.Errorf("sockets of %v: pidfd_getfd: %w", id, err)
		}
		listening, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
		if err == nil && listening != 0 {
			if address, err := unix.Getsockname(fd); err == nil && condition(address) {
				return os.NewFile(uintptr(fd), "socket"), nil
			}
		}
		unix.Close(fd)
	}
	return nil, nil
}
