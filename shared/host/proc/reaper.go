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

// A killed process first frees its memory page by page. Only then does it close its files
// and report its death. That takes 12 ms for 200 MiB and 50 ms for 900 MiB, and several
// times as long on a busy host. Until then its locks are held and its clients wait.
//
// The last process that uses memory is the one that frees it. So a reaper process shares
// the memory (clone(2) with CLONE_VM). It has no files, ignores signals, and waits for the
// other process to die. It then waits another 30 ms, in which the successor takes over, and
// ends; that frees the memory. (Files that are mapped into memory stay open as long, with
// the flock that bbolt has on its file.) The name comes from the kernel's oom_reaper, which
// does the same for a process that is killed for lack of memory.

// reaperName is the process name of reapers. It tells a reaper from the process whose memory,
// and therefore whose arguments, it shares.
const reaperName = "dynast-reaper"

// reaperPoll is how often StartReaper checks whether the reaper is ready.
const reaperPoll = 100 * time.Microsecond

// ErrNoReaper means that this kernel or this build has no reapers.
var ErrNoReaper = errors.New("no reaper: the more memory a process has, the later its death is noticed")

var reaper struct {
	mu sync.Mutex
	// The reaper uses poll and name for as long as it lives. It writes to poll.
	poll unix.PollFd
	name [16]byte
}

// StartReaper starts a process that shares the memory of this one and frees it after this
// process has died. So this process's death, the release of its locks and the end of its
// connections take no longer with much memory than with little. The reaper ends soon
// after. It is a child of this process, and IsReaper recognizes it. There is one reaper at
// a time. The error is ErrNoReaper where reapers are not possible.
//
// Ending the reaper harms nothing else. When Done of the returned Process is closed, the
// caller must call Bury and may start another reaper.
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
			return nil, fmt.Errorf("start a reaper: the process ended at once: %w", ErrNoReaper) // no close_range(2) before Linux 5.9
		case st.comm == reaperName: // it has closed this process's files
			return Open(Identity{PID: pid, StartTime: st.startTicks})
		}
		time.Sleep(reaperPoll)
	}
}

// cloneBlocked clones with all signals blocked. Otherwise a signal handler could run in the
// reaper, on the stack of a thread of this process.
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
		panic(fmt.Sprintf("proc: cannot unblock signals: %v", e))
	}
	return pid, err
}

// Bury waits for a reaper that has ended, which frees its entry in the process table.
func Bury(reaper *Process) error {
	_, err := unix.Wait4(reaper.Identity().PID, nil, unix.WALL, nil)
	return errors.Join(err, reaper.Close())
}

// IsReaper reports whether a pid belongs to a reaper. A reaper shows the arguments of another
// process.
func IsReaper(pid int) bool {
	st, err := readStat(pid)
	return err == nil && st.comm == reaperName
}

// Reapers returns all living reapers whose parents live too, by the parents' pids.
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
