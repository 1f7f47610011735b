package proc

import (
	"fmt"
	"os"
	"strconv"
	"time"

	"golang.org/x/sys/unix"
)

// userTick is the unit of times in /proc. USER_HZ is 100 on every architecture that Go
// supports.
const userTick = 10 * time.Millisecond

// Usage is the resource usage of a process at one instant.
type Usage struct {
	RSSBytes  uint64
	CPU       time.Duration // user and system time since the start, in steps of 10 ms
	PPID      int
	Comm      string
	State     byte // as in ps: R, S, D, T, Z, ...
	StartedAt time.Time
	FDs       int // -1 if this user may not see them
}

// ReadUsage reads the usage of a process. The error is ErrGone if there is no process with this
// pid. A zombie has a usage.
func ReadUsage(pid int) (Usage, error) {
	st, err := readStat(pid)
	if err != nil {
		return Usage{}, fmt.Errorf("usage of pid %d: %w", pid, err)
	}
	age := SinceBoot() - time.Duration(st.startTicks)*userTick
	return Usage{
		RSSBytes:  st.rssPages * uint64(os.Getpagesize()),
		CPU:       time.Duration(st.cpuTicks) * userTick,
		PPID:      st.ppid,
		Comm:      st.comm,
		State:     st.state,
		StartedAt: time.Now().Add(-age).Round(0), // without the monotonic clock, because it is for people
		FDs:       countFDs(pid),
	}, nil
}

// Load is a process in a listing, with what it uses.
type Load struct {
	Entry
	RSSBytes uint64
	// CPU is the user and system time since the start of the process, in steps of 10 ms. It includes
	// that of the children which it has reaped. So the sum over a process tree goes on when a child
	// ends.
	CPU time.Duration
}

// Loads returns all processes with what they use, as List does.
func Loads() ([]Load, error) {
	pids, err := listPIDs()
	if err != nil {
		return nil, err
	}
	return LoadsOf(pids), nil
}

// LoadsOf is like Loads for some processes. It leaves out those that are gone.
func LoadsOf(pids []int) []Load {
	page := uint64(os.Getpagesize())
	loads := make([]Load, 0, len(pids))
	for _, pid := range pids {
		if st, err := readStat(pid); err == nil {
			loads = append(loads, Load{Entry: st.entry(pid), RSSBytes: st.rssPages * page, CPU: time.Duration(st.cpuTicks+st.reapedCPU) * userTick})
		}
	}
	return loads
}

// countFDs reads the size of the directory, which is the number of descriptors since Linux 6.2.
// On older kernels the size is 0, and countFDs lists the directory.
func countFDs(pid int) int {
	dir := "/proc/" + strconv.Itoa(pid) + "/fd"
	f, err := os.Open(dir)
	if err != nil {
		return -1
	}
	defer f.Close()
	if info, err := f.Stat(); err == nil && info.Size() > 0 {
		return int(info.Size())
	}
	names, err := f.Readdirnames(-1)
	if err != nil {
		return -1
	}
	return len(names)
}

// SinceBoot returns the time since the host has booted (CLOCK_BOOTTIME). All processes of one boot
// share this clock, unless a time namespace shifts it.
func SinceBoot() time.Duration {
	var t unix.Timespec
	if err := unix.ClockGettime(unix.CLOCK_BOOTTIME, &t); err != nil {
		panic("CLOCK_BOOTTIME: " + err.Error()) // exists since Linux 2.6.39
	}
	return time.Duration(t.Nano())
}
