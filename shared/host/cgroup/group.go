package cgroup

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// Group is a control group for processes.
type Group struct {
	dir     string
	limits  []string
	noLimit string
}

// At returns the group in a directory, for example one that an earlier process created. It need
// not exist. Such a group cannot be limited; use Create for that.
func At(dir string) *Group { return &Group{dir: dir, noLimit: "the group was opened by its path"} }

// Path returns the directory of the group.
func (g *Group) Path() string { return g.dir }

// Limit sets the limits of the group. 0 means no limit. cpuMillis is in thousandths of one
// processor. If the memory is used up, the kernel kills all processes of the group and not just
// one. The error is ErrUnavailable if a limit other than 0 is not possible; the others are set.
func (g *Group) Limit(memoryBytes uint64, cpuMillis, processes int) error {
	const periodMicros = 100_000
	quota := 0
	if cpuMillis > 0 {
		quota = max(cpuMillis*periodMicros/1000, 1000) // the kernel's minimum is 1 ms
	}
	return errors.Join(
		g.limit("memory", "memory.max", memoryBytes, ""),
		g.limit("cpu", "cpu.max", uint64(quota), " "+strconv.Itoa(periodMicros)),
		g.limit("pids", "pids.max", uint64(max(processes, 0)), ""),
		g.killTogether(memoryBytes > 0),
	)
}

func (g *Group) limit(controller, file string, value uint64, suffix string) error {
	if !slices.Contains(g.limits, controller) {
		if value == 0 {
			return nil
		}
		return fmt.Errorf("limit %s: %w: %s", controller, ErrUnavailable, g.noLimit)
	}
	text := "max"
	if value > 0 {
		text = strconv.FormatUint(value, 10)
	}
	if err := write(filepath.Join(g.dir, file), text+suffix); err != nil {
		return fmt.Errorf("limit %s: %w", controller, err)
	}
	return nil
}

func (g *Group) killTogether(limited bool) error {
	if !limited || !slices.Contains(g.limits, "memory") {
		return nil
	}
	return write(filepath.Join(g.dir, "memory.oom.group"), "1")
}

// OpenDir opens the directory, for SysProcAttr.CgroupFD.
func (g *Group) OpenDir() (*os.File, error) { return os.Open(g.dir) }

// Kill sends SIGKILL to all processes of the group and of groups below it, including those that
// they are about to fork.
func (g *Group) Kill() error {
	if err := write(filepath.Join(g.dir, "cgroup.kill"), "1"); err != nil && !gone(err) {
		return fmt.Errorf("kill a control group: %w", err)
	}
	return nil
}

// gone reports whether an error means that the group was removed.
func gone(err error) bool { return errors.Is(err, fs.ErrNotExist) || errors.Is(err, unix.ENODEV) }

// Populated reports whether the group, or a group below it, has a living process.
func (g *Group) Populated() (bool, error) {
	raw, err := os.ReadFile(filepath.Join(g.dir, "cgroup.events"))
	if err != nil {
		if gone(err) {
			return false, nil
		}
		return false, fmt.Errorf("control group: %w", err)
	}
	return populated(raw), nil
}

// populated parses cgroup.events, which has lines like "populated 1".
func populated(events []byte) bool {
	fields := strings.Fields(string(events))
	i := slices.Index(fields, "populated")
	return i >= 0 && i+1 < len(fields) && fields[i+1] != "0"
}

// WaitEmpty waits until no process is left in the group.
func (g *Group) WaitEmpty(ctx context.Context) error {
	f, err := os.Open(filepath.Join(g.dir, "cgroup.events"))
	if gone(err) {
		return nil
	}
	if err != nil {
		return fmt.Errorf("control group: %w", err)
	}
	defer f.Close()
	buf := make([]byte, 256)
	for {
		n, err := f.ReadAt(buf, 0)
		if gone(err) || n > 0 && !populated(buf[:n]) {
			return nil
		}
		if n == 0 {
			return fmt.Errorf("control group: read cgroup.events: %w", err)
		}
		if ctx.Err() != nil {
			return fmt.Errorf("control group %s still has processes: %w", g.dir, ctx.Err())
		}
		// The kernel reports a change of the file as POLLPRI. The timeout bounds how long the end
		// of ctx goes unnoticed.
		_, err = unix.Poll([]unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}, 20)
		if err != nil && err != unix.EINTR {
			return fmt.Errorf("control group: poll: %w", err)
		}
	}
}

// Procs returns the pids of the processes of the group and of groups below it. Dead processes
// that nobody has reaped are included.
func (g *Group) Procs() ([]int, error) {
	var pids []int
	err := g.walk(func(dir string) error {
		raw, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
		if gone(err) || errors.Is(err, unix.EOPNOTSUPP) { // a threaded group has no processes of its own
			return nil
		}
		if err != nil {
			return err
		}
		for _, text := range strings.Fields(string(raw)) {
			pid, err := strconv.Atoi(text)
			if err != nil {
				return err
			}
			pids = append(pids, pid)
		}
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("processes of a control group: %w", err)
	}
	return pids, nil
}

// CPU returns the processor time of all processes that are or were in the group and in groups
// below it. The kernel counts it without the cpu controller too.
func (g *Group) CPU() (time.Duration, error) {
	raw, err := os.ReadFile(filepath.Join(g.dir, "cpu.stat"))
	if err != nil {
		return 0, fmt.Errorf("processor time of a control group: %w", err)
	}
	fields := strings.Fields(string(raw))
	i := slices.Index(fields, "usage_usec")
	if i < 0 || i+1 >= len(fields) {
		return 0, fmt.Errorf("processor time of a control group: %s/cpu.stat has no usage_usec", g.dir)
	}
	micros, err := strconv.ParseInt(fields[i+1], 10, 64)
	if err != nil {
		return 0, fmt.Errorf("processor time of a control group: %w", err)
	}
	return time.Duration(micros) * time.Microsecond, nil
}

// walk calls f with the directory of the group and of all groups below it, from the top down.
func (g *Group) walk(f func(dir string) error) error {
	err := filepath.WalkDir(g.dir, func(path string, d fs.DirEntry, err error) error {
		switch {
		case gone(err):
			return nil
		case err != nil:
			return err
		case d.IsDir():
			return f(path)
		}
		return nil
	})
	return err
}

// Remove removes the group and the groups below it. It is no error if it does not exist. It is one
// if it has processes.
func (g *Group) Remove() error {
	var dirs []string
	if err := g.walk(func(dir string) error { dirs = append(dirs, dir); return nil }); err != nil {
		return fmt.Errorf("remove a control group: %w", err)
	}
	for _, dir := range slices.Backward(dirs) {
		if err := unix.Rmdir(dir); err != nil && !gone(err) {
			return fmt.Errorf("remove the control group %s: %w", dir, err)
		}
	}
	return nil
}
