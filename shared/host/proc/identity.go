package proc

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"strconv"
	"sync"

	"golang.org/x/sys/unix"
)

// ErrGone means that a process is dead, reaped or not, or that its pid belongs to another
// process by now.
var ErrGone = errors.New("process is gone")

// Identity names one process for good. A pid can be used again, but not within the same clock
// tick (10 ms).
type Identity struct {
	PID int
	// StartTime is the start time in clock ticks since the host booted: field 22 of
	// /proc/PID/stat.
	StartTime uint64
}

func (id Identity) String() string {
	return fmt.Sprintf("pid %d (started at tick %d)", id.PID, id.StartTime)
}

var self = sync.OnceValue(func() Identity {
	st, err := readStat(os.Getpid())
	if err != nil {
		// Nothing here works without /proc: no pidfd could be verified.
		panic(fmt.Sprintf("proc: cannot read this process's own entry in /proc: %v", err))
	}
	return Identity{PID: os.Getpid(), StartTime: st.startTicks}
})

// Self returns the identity of the calling process.
func Self() Identity { return self() }

// Identify returns the identity of the living process with a pid. The error is ErrGone if there
// is none.
func Identify(pid int) (Identity, error) {
	st, err := readStat(pid)
	if err != nil {
		return Identity{}, fmt.Errorf("identify pid %d: %w", pid, err)
	}
	if st.dead() {
		return Identity{}, fmt.Errorf("identify pid %d: it is dead but not reaped yet: %w", pid, ErrGone)
	}
	return Identity{PID: pid, StartTime: st.startTicks}, nil
}

// stat holds the fields of /proc/PID/stat that this package uses; see proc_pid_stat(5).
type stat struct {
	comm       string
	state      byte
	ppid       int
	group      int // the process group
	session    int
	cpuTicks   uint64 // user and system
	reapedCPU  uint64 // the same of the children that it has reaped, and of theirs
	startTicks uint64
	rssPages   uint64
	waitStatus unix.WaitStatus // of a zombie, if this user may read it
}

// dead reports whether the process is a zombie or is being removed.
func (s stat) dead() bool { return s.state == 'Z' || s.state == 'X' || s.state == 'x' }

func readStat(pid int) (stat, error) {
	raw, err := readSmall("/proc/" + strconv.Itoa(pid) + "/stat")
	switch {
	case errors.Is(err, fs.ErrNotExist), errors.Is(err, unix.ESRCH):
		// ESRCH means that it went away between open and read.
		return stat{}, ErrGone
	case err != nil:
		return stat{}, err
	}
	return parseStat(raw)
}

// readSmall reads a short file of /proc that ends with a newline.
func readSmall(path string) ([]byte, error) {
	return readProc(path, make([]byte, 1024), func(read []byte) bool { return read[len(read)-1] == '\n' })
}

// readProc reads a file of /proc into a buffer, or a larger one if it is too small. The file
// ends where complete says so after a read that leaves room. readProc avoids the preparations of
// os.ReadFile for files that may block, and so needs a third of the system calls.
func readProc(path string, buf []byte, complete func(read []byte) bool) ([]byte, error) {
	fd, err := uninterrupted(func() (int, error) { return unix.Open(path, unix.O_RDONLY|unix.O_CLOEXEC, 0) })
	if err != nil {
		return nil, &fs.PathError{Op: "open", Path: path, Err: err}
	}
	defer unix.Close(fd)
	used := 0
	for {
		n, err := uninterrupted(func() (int, error) { return unix.Read(fd, buf[used:]) })
		if err != nil {
			return nil, &fs.PathError{Op: "read", Path: path, Err: err}
		}
		used += n
		if n == 0 || used < len(buf) && complete(buf[:used]) {
			return buf[:used], nil
		}
		if used == len(buf) {
			buf = append(buf, make([]byte, len(buf))...)
		}
	}
}

// uninterrupted repeats a system call that a signal interrupted.
func uninterrupted(call func() (int, error)) (int, error) {
	for {
		n, err := call()
		if !errors.Is(err, unix.EINTR) {
			return n, err
		}
	}
}

// parseStat parses the line of /proc/PID/stat. The second field is the name in parentheses. The
// name may itself contain spaces and parentheses, so it ends at the last closing one.
func parseStat(raw []byte) (stat, error) {
	open, end := bytes.IndexByte(raw, '('), bytes.LastIndexByte(raw, ')')
	if open < 0 || end < open {
		return stat{}, errors.New("parse stat: no name in parentheses")
	}
	f := bytes.Fields(raw[end+1:])
	// f[0] is field 3 of the manual page.
	const first, last = 3, 52
	if len(f) < last-first+1 || len(f[0]) != 1 {
		return stat{}, fmt.Errorf("parse stat: only %d fields after the name", len(f))
	}
	var err error
	number := func(field int) uint64 {
		n, e := strconv.ParseInt(string(f[field-first]), 10, 64)
		if e != nil || n < 0 {
			err = errors.Join(err, fmt.Errorf("parse stat: field %d is %q", field, f[field-first]))
		}
		return uint64(n)
	}
	s := stat{
		comm:       string(raw[open+1 : end]),
		state:      f[0][0],
		ppid:       int(number(4)),
		group:      int(number(5)),
		session:    int(number(6)),
		cpuTicks:   number(14) + number(15),
		reapedCPU:  number(16) + number(17),
		startTicks: number(22),
		rssPages:   number(24),
		waitStatus: unix.WaitStatus(number(52)),
	}
	return s, err
}

// Stopped reports whether a signal has stopped a process. It returns false if the process is
// gone or if its pid belongs to another process by now.
func Stopped(id Identity) bool {
	st, err := readStat(id.PID)
	return err == nil && st.startTicks == id.StartTime && st.state == 'T'
}
