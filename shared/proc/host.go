package proc

import (
	"errors"
	"fmt"
	"os"
	"strings"
	"sync"

	"golang.org/x/sys/unix"
)

// titleMaxBytes is the kernel's limit for a name (TASK_COMM_LEN less the
// terminating zero).
const titleMaxBytes = 15

// SetTitle shows a role in the process's comm name, where ps, top and pgrep
// look: "dynast:leader". It may be called from any goroutine. A failure is
// ignored: the name is for people.
func SetTitle(role string) {
	title := "dynast:" + role
	if len(title) > titleMaxBytes {
		title = title[:titleMaxBytes]
	}
	// The name of a process is that of its first thread; /proc/self/comm would
	// do as well, while prctl would rename the thread that happens to run.
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

// BootID is a UUID that the kernel chose when the host booted. What was written
// without fsync is whole as long as it has not changed. It is read once.
func BootID() (string, error) { return bootID() }

// FreeBytes is the room left for an ordinary user on the file system of a path.
// Blocks that are reserved for root don't count, also for root: they are what an
// operator repairs a full disk with.
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

// NoSpace reports whether an error is that of a full disk, or of a used-up quota.
func NoSpace(err error) bool { return errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) }

// Executable is a path that runs this very program once more, from this process
// or a child of it. It names the open file and not its name: `go run` deletes
// the program as soon as the process that it started is dead, while the heir of
// that process has yet to start followers; and a program that was replaced by a
// newer version still starts its own.
//
// The new process's comm name is "exe" until it calls SetTitle.
func Executable() string { return "/proc/self/exe" }
