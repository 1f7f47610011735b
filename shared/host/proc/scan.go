package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// Entry is a process in a listing.
type Entry struct {
	Identity
	Dead    bool // nobody has reaped it yet
	PPID    int
	Group   int // the process group
	Session int
}

// List returns all processes, including dead ones that nobody has reaped. It is not a snapshot: a
// process that starts meanwhile may be missing.
func List() ([]Entry, error) {
	pids, err := listPIDs()
	if err != nil {
		return nil, err
	}
	entries := make([]Entry, 0, len(pids))
	for _, pid := range pids {
		if st, err := readStat(pid); err == nil {
			entries = append(entries, st.entry(pid))
		}
	}
	return entries, nil
}

func (s stat) entry(pid int) Entry {
	return Entry{Identity: Identity{PID: pid, StartTime: s.startTicks}, Dead: s.dead(), PPID: s.ppid, Group: s.group, Session: s.session}
}

func listPIDs() ([]int, error) {
	dir, err := os.Open("/proc")
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	defer dir.Close()
	names, err := dir.Readdirnames(-1)
	if err != nil {
		return nil, fmt.Errorf("list processes: %w", err)
	}
	pids := make([]int, 0, len(names))
	for _, name := range names {
		if pid, err := strconv.Atoi(name); err == nil {
			pids = append(pids, pid)
		}
	}
	return pids, nil
}

// Exists reports whether a process lives, or is dead but not reaped. As long as it exists, its pid
// names no other process, process group or session.
func Exists(id Identity) bool {
	st, err := readStat(id.PID)
	return err == nil && st.startTicks == id.StartTime
}

// Holder is a process that holds a lock.
type Holder struct {
	Identity
	// CloseOnExec means that no descriptor of the file outlives an execve. Such a process may
	// be between fork and exec, and have the descriptor only because its parent had it.
	CloseOnExec bool
}

// LockHolders returns every living process that has a descriptor with a flock of a file, except
// this process. A process that has only opened the file holds no lock. LockHolders skips processes
// that this user may not inspect.
func LockHolders(path string) ([]Holder, error) {
	var file unix.Stat_t
	if err := unix.Stat(path, &file); err != nil {
		return nil, fmt.Errorf("holders of %s: %w", path, err)
	}
	pids, err := listPIDs()
	if err != nil {
		return nil, err
	}
	var holders []Holder
	for _, pid := range pids {
		var closeOnExec bool
		id, ok := identifyIf(pid, func() (found bool) {
			found, closeOnExec = holds(pid, filepath.Base(path), &file)
			return found
		})
		if ok {
			holders = append(holders, Holder{Identity: id, CloseOnExec: closeOnExec})
		}
	}
	return holders, nil
}

// identifyIf returns the identity of a living process that fulfils a condition, unless it is
// this process. The pid may get another process at any time. So the condition is checked again
// between two looks at the identity.
func identifyIf(pid int, condition func() bool) (Identity, bool) {
	if pid == os.Getpid() || !condition() {
		return Identity{}, false
	}
	id, err := Identify(pid)
	if err != nil || !condition() {
		return Identity{}, false
	}
	again, err := Identify(pid)
	return id, err == nil && again == id
}

// holds looks through the descriptors of a process. It compares names first, because reading
// the name of a file never waits, while stat(2) may wait for a network file system.
func holds(pid int, base string, file *unix.Stat_t) (found, closeOnExec bool) {
	dir, err := os.Open("/proc/" + strconv.Itoa(pid) + "/fd")
	if err != nil {
		return false, false
	}
	defer dir.Close()
	names, _ := dir.Readdirnames(-1)
	raw, err := dir.SyscallConn()
	if err != nil {
		return false, false
	}
	closeOnExec = true
	suffix := []byte("/" + base)
	target := make([]byte, unix.PathMax)
	_ = raw.Control(func(fd uintptr) {
		for _, name := range names {
			n, err := unix.Readlinkat(int(fd), name, target)
			if err != nil || !bytes.HasSuffix(bytes.TrimSuffix(target[:n], []byte(" (deleted)")), suffix) {
				continue
			}
			var st unix.Stat_t
			if unix.Fstatat(int(fd), name, &st, 0) != nil || st.Dev != file.Dev || st.Ino != file.Ino {
				continue
			}
			if locked, marked := descriptor(pid, name); locked {
				found = true
				closeOnExec = closeOnExec && marked
			}
		}
	})
	return found, found && closeOnExec
}

// descriptor reads from /proc whether a descriptor has a flock and whether it is close-on-exec;
// see proc_pid_fdinfo(5).
func descriptor(pid int, fd string) (locked, closeOnExec bool) {
	raw, err := readProc("/proc/"+strconv.Itoa(pid)+"/fdinfo/"+fd, make([]byte, 1024), func([]byte) bool { return false })
	if err != nil {
		return false, false // it was closed meanwhile
	}
	for line := range strings.Lines(string(raw)) {
		key, value, _ := strings.Cut(line, ":")
		switch key {
		case "flags":
			flags, err := strconv.ParseUint(strings.TrimSpace(value), 8, 64)
			closeOnExec = err == nil && flags&unix.O_CLOEXEC != 0
		case "lock":
			locked = locked || strings.Contains(value, "FLOCK")
		}
	}
	return locked, closeOnExec
}

// WithEnvironment returns the living processes that were started with a variable in their
// environment, except this process. It skips processes that this user may not inspect. A
// process can hide or change its environment.
func WithEnvironment(name, value string) ([]Identity, error) {
	pids, err := listPIDs()
	if err != nil {
		return nil, err
	}
	want := []byte(name + "=" + value)
	buf := make([]byte, 16<<10)
	var found []Identity
	for _, pid := range pids {
		if id, ok := identifyIf(pid, func() bool { return hasVariable(pid, want, buf) }); ok {
			found = append(found, id)
		}
	}
	return found, nil
}

// hasVariable looks for a variable in the initial environment of a process.
func hasVariable(pid int, want, buf []byte) bool {
	raw, err := readProc("/proc/"+strconv.Itoa(pid)+"/environ", buf, func([]byte) bool { return false })
	if err != nil || !bytes.Contains(raw, want) {
		return false
	}
	for variable := range bytes.SplitSeq(raw, []byte{0}) {
		if bytes.Equal(variable, want) {
			return true
		}
	}
	return false
}

// Variable returns a variable of the initial environment of a process. It returns false if the
// process does not have it, is gone, or may not be inspected.
func Variable(pid int, name string) (string, bool) {
	raw, err := os.ReadFile("/proc/" + strconv.Itoa(pid) + "/environ")
	if err != nil {
		return "", false
	}
	for variable := range bytes.SplitSeq(raw, []byte{0}) {
		if value, ok := bytes.CutPrefix(variable, []byte(name+"=")); ok {
			return string(value), true
		}
	}
	return "", false
}
