package proc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// A process that is killed takes its memory apart first, page by page, and only
// then closes its files and tells of its death: 12 ms for 200 MiB, 50 ms for
// 900 MiB, and several times that on a busy host. Until then its locks are held
// and its clients wait. Memory is taken apart by the last process that uses it. So
// a reaper shares it (clone(2) with CLONE_VM): it has no files, hears no signals,
// waits for the other's death, and is the last then, 30 ms later, when who takes
// over has done it. (What is mapped into memory stays open as long, with the flock
// that bbolt has on its file.) The name is that of the kernel's oom_reaper,
// which does the same for who is out of memory.

// reaperName is the comm of reapers, by which they are told from the process
// whose memory, and so whose arguments, they share.
const reaperName = "dynast-reaper"

// reaperPoll is how often StartReaper looks whether the reaper has come that far.
const reaperPoll = 100 * time.Microsecond

// ErrNoReaper says that this kernel, or this build, has no reapers.
var ErrNoReaper = errors.New("no reaper: a death takes longer to be noticed, the more memory there is")

var reaper struct {
	mu sync.Mutex
	// poll and name are used by the reaper, for as long as it lives. It writes to poll.
	poll unix.PollFd
	name [16]byte
}

// StartReaper starts a process that shares the memory of this one and takes it
// apart when this one has died, so that its death, the release of its locks and
// the end of its connections take as long with much memory as with little. The reaper
// ends soon after; it is a child of this process, known to IsReaper. There
// is one at a time. The error is ErrNoReaper where there can be none.
//
// Who ends the reaper ends nothing else: when Done of what is returned is closed,
// Bury has to be called, and another one may be started.
func StartReaper() (*Process, error) {
	reaper.mu.Lock()
	defer reaper.mu.Unlock()
	self, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return nil, fmt.Errorf("start a reaper: pidfd_open: %w", err)
	}
	defer unix.Close(self)
	reaper.poll = unix.PollFd{Fd: int32(self), Events: unix.POLLIN}
	copy(reaper.name[:], reaperName)

	pid, err := cloneBlocked(self)
	if err != nil {
		return nil, fmt.Errorf("start a reaper: %w", err)
	}
	for {
		switch st, err := readStat(pid); {
		case err != nil || st.dead():
			_, _ = unix.Wait4(pid, nil, unix.WALL, nil)
			return nil, fmt.Errorf("start a reaper: it ended at once: %w", ErrNoReaper) // no close_range(2) before Linux 5.9
		case st.comm == reaperName: // it holds no files of this process any more
			return Open(Identity{PID: pid, StartTime: st.startTicks})
		}
		time.Sleep(reaperPoll)
	}
}

// cloneBlocked clones with all signals blocked: a handler would run in the
// reaper too, on the stack of a thread of this process.
func cloneBlocked(self int) (int, error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return 0, fmt.Errorf("block signals: %w", err)
	}
	pid, err := cloneReaper(self, &reaper.poll, &reaper.name)
	if e := unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil); e != nil {
		panic(fmt.Sprintf("proc: signals that were blocked cannot be unblocked: %v", e))
	}
	return pid, err
}

// Bury frees the process table's entry of a reaper that has ended.
func Bury(reaper *Process) error {
	_, err := unix.Wait4(reaper.Identity().PID, nil, unix.WALL, nil)
	return errors.Join(err, reaper.Close())
}

// IsReaper reports whether a pid is that of a reaper, whose arguments are those of
// another process.
func IsReaper(pid int) bool {
	st, err := readStat(pid)
	return err == nil && st.comm == reaperName
}

// Reapers are all living reapers whose processes live too, by the pids of those.
func Reapers() map[int]Identity {
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	found := map[int]Identity{}
	for _, path := range paths {
		pid, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			continue
		}
		if st, err := readStat(pid); err == nil && st.comm == reaperName && !st.dead() {
			found[st.ppid] = Identity{PID: pid, StartTime: st.startTicks}
		}
	}
	return found
}
