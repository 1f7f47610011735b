package proc

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// titleMaxBytes is the kernel's limit for a process name: TASK_COMM_LEN without the terminating
// zero.
const titleMaxBytes = 15

// SetTitle shows a role in the process name that ps, top and pgrep print, like "dynast:leader".
// It may be called from any goroutine. It ignores failures, because the name is only for
// people.
func SetTitle(role string) {
	title := "dynast:" + role
	if len(title) > titleMaxBytes {
		title = title[:titleMaxBytes]
	}
	// The name of a process is the name of its first thread. prctl would rename the thread that
	// happens to run this code.
	path := fmt.Sprintf("/proc/self/task/%d/comm", os.Getpid())
	_ = os.WriteFile(path, []byte(title), 0)
}

var bootID = sync.OnceValues(func() (string, error) {
	raw, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		return "", fmt.Errorf("read the kernel's boot id: %w", err)
	}
	return strings.TrimSpace(string(raw)), nil
})

// BootID returns the UUID that the kernel chose when the host booted. As long as it is the
// same, data that was written without fsync is intact. It is read once.
func BootID() (string, error) { return bootID() }

// FreeBytes returns the free space for an ordinary user on the file system of a path. Blocks
// reserved for root do not count, even for root: an operator needs them to repair a full disk.
func FreeBytes(path string) (availBytes uint64, err error) {
	var st unix.Statfs_t
	for {
		err = unix.Statfs(path, &st)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return 0, fmt.Errorf("free space of %s: %w", path, err)
	}
	return st.Bavail * uint64(st.Frsize), nil
}

// NoSpace reports whether an error means that the disk is full or a disk quota is used up.
func NoSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// Executable returns a path that starts this same program again, from this process or a
// child of it. The path names the open file and not the file's name, for two reasons.
// `go run` deletes the program as soon as the process that it started is dead, while that
// process's successor still has to start followers. And a program whose file was replaced
// by a newer version must still start its own version.
//
// The new process's name is "exe" until it calls SetTitle.
func Executable() string { return "/proc/self/exe" }

// Build returns a text that differs between two builds: it changes when the executable of this process
// is another file. Processes that were started from the same file have the same text.
func Build() (string, error) {
	var st unix.Stat_t
	if err := unix.Stat(Executable(), &st); err != nil {
		return "", fmt.Errorf("the executable of this process: %w", err)
	}
	return fmt.Sprintf("%d-%d-%d-%d", st.Dev, st.Ino, st.Size, st.Mtim.Nano()), nil
}
