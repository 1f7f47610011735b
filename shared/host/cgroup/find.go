package cgroup

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

// ErrUnavailable means that this process may not create control groups, or not limit them.
var ErrUnavailable = errors.New("control groups are not available")

// membersName is the child group into which Find moves the processes of a delegated group.
const membersName = "members"

// controllers are those that limits need.
var controllers = []string{"memory", "cpu", "pids"}

// Parent is a group in which this process may create others.
type Parent struct {
	dir     string
	limits  []string // the enabled controllers
	noLimit string   // why others are not enabled
}

// Find returns the group in which this process may create others: its own, or the one above if
// its own is the child group that Find has moved it to.
func Find() (*Parent, error) { return find("/proc/self") }

// find is Find with another directory of /proc, for tests.
func find(self string) (*Parent, error) {
	own, namespaceRoot, err := ownDirectory(self)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	if filepath.Base(own) == membersName {
		own = filepath.Dir(own)
	}
	if err := probe(own); err != nil {
		return nil, fmt.Errorf("%w: %w", ErrUnavailable, err)
	}
	p := &Parent{dir: own}
	p.enable(namespaceRoot || delegated(own))
	return p, nil
}

// ownDirectory returns the directory of this process's group, and whether the group is the root
// of the control group namespace.
func ownDirectory(self string) (dir string, namespaceRoot bool, err error) {
	raw, err := os.ReadFile(filepath.Join(self, "cgroup"))
	if err != nil {
		return "", false, err
	}
	path, found := "", false
	for line := range strings.Lines(string(raw)) {
		if rest, ok := strings.CutPrefix(line, "0::"); ok {
			path, found = strings.TrimSuffix(rest, "\n"), true
		}
	}
	if !found {
		return "", false, errors.New("this process is in no control group of version 2")
	}
	mounts, err := os.ReadFile(filepath.Join(self, "mountinfo"))
	if err != nil {
		return "", false, err
	}
	for line := range strings.Lines(string(mounts)) {
		// The fields are in proc_pid_mountinfo(5): 4 is the root of the mount, 5 the mount point.
		f := strings.Fields(line)
		dash := slices.Index(f, "-")
		if dash < 6 || len(f) < dash+2 || f[dash+1] != "cgroup2" {
			continue
		}
		below, err := filepath.Rel(f[3], path)
		outside := strings.HasPrefix(path, "/../") || below == ".." || strings.HasPrefix(below, "../")
		if err != nil || outside {
			continue // the mount or this process's namespace does not show the group
		}
		return filepath.Join(f[4], below), path == "/", nil
	}
	return "", false, fmt.Errorf("no mounted cgroup2 file system shows the group %s of this process", path)
}

// probe creates and removes a group, which shows whether all that is needed works.
func probe(parent string) error {
	if err := unix.Access(filepath.Join(parent, "cgroup.procs"), unix.W_OK); err != nil {
		return fmt.Errorf("this process may not move processes out of %s (with systemd, set Delegate=yes): %w", parent, err)
	}
	dir := filepath.Join(parent, "probe-"+strconv.Itoa(os.Getpid()))
	if err := os.Mkdir(dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return fmt.Errorf("this process may not create groups (with systemd, set Delegate=yes): %w", err)
	}
	defer os.Remove(dir)
	if _, err := os.Stat(filepath.Join(dir, "cgroup.kill")); err != nil {
		return fmt.Errorf("the kernel is older than 5.14: %w", err)
	}
	if kind, err := os.ReadFile(filepath.Join(dir, "cgroup.type")); err != nil || !bytes.Equal(kind, []byte("domain\n")) {
		return fmt.Errorf("groups below %s are of the type %q and cannot hold processes", parent, bytes.TrimSpace(kind))
	}
	return nil
}

// delegated reports whether systemd has marked a group as delegated; see
// https://systemd.io/CGROUP_DELEGATION.
func delegated(dir string) bool {
	for _, name := range []string{"trusted.delegate", "user.delegate"} {
		value := make([]byte, 8)
		if n, err := unix.Getxattr(dir, name, value); err == nil && string(value[:n]) == "1" {
			return true
		}
	}
	return false
}

// enable enables the controllers for child groups as far as possible. If own is true, it may move
// the processes of the group.
func (p *Parent) enable(own bool) {
	available := words(filepath.Join(p.dir, "cgroup.controllers"))
	subtree := filepath.Join(p.dir, "cgroup.subtree_control")
	var reasons []string
	for _, c := range controllers {
		switch {
		case slices.Contains(words(subtree), c):
			p.limits = append(p.limits, c)
			continue
		case !slices.Contains(available, c):
			reasons = append(reasons, "the group "+p.dir+" has no controller "+c)
			continue
		}
		err := p.enableOne(subtree, c, own)
		if err != nil {
			reasons = append(reasons, "enable "+c+": "+err.Error())
			continue
		}
		p.limits = append(p.limits, c)
	}
	p.noLimit = strings.Join(reasons, "; ")
}

func (p *Parent) enableOne(subtree, controller string, own bool) error {
	err := write(subtree, "+"+controller)
	// EBUSY means that the group has processes.
	for try := 0; errors.Is(err, unix.EBUSY) && own && try < 8; try++ {
		if moved := p.moveProcesses(); moved != nil {
			return moved
		}
		err = write(subtree, "+"+controller)
	}
	if errors.Is(err, unix.EBUSY) && !own {
		return fmt.Errorf("%w: the group has processes and was not delegated (with systemd, set Delegate=yes)", err)
	}
	return err
}

// moveProcesses moves all processes of the group into its child group membersName.
func (p *Parent) moveProcesses() error {
	members := filepath.Join(p.dir, membersName)
	if err := os.Mkdir(members, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return err
	}
	for _, pid := range words(filepath.Join(p.dir, "cgroup.procs")) {
		if err := write(filepath.Join(members, "cgroup.procs"), pid); err != nil && !errors.Is(err, unix.ESRCH) {
			return fmt.Errorf("move process %s to %s: %w", pid, members, err)
		}
	}
	return nil
}

// words returns the words in a file, or nothing if it cannot be read.
func words(path string) []string {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil
	}
	return strings.Fields(string(raw))
}

func write(path, text string) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	return errors.Join(err, f.Close())
}

// Create returns the child group with a name, for the start of a program. A group of that name that
// is empty is replaced by a new one. Reusing it would not do: some kernels, such as Linux 6.18, kill
// every process that is cloned into a group that was killed before.
func (p *Parent) Create(name string) (*Group, error) {
	if name == "" || name != filepath.Base(name) || strings.HasPrefix(name, ".") || name == membersName {
		return nil, fmt.Errorf("create a control group: invalid name %q", name)
	}
	g := &Group{dir: filepath.Join(p.dir, name), limits: p.limits, noLimit: p.noLimit}
	if err := g.Remove(); err != nil && !errors.Is(err, unix.EBUSY) { // it has processes
		return nil, err
	}
	if err := os.Mkdir(g.dir, 0o755); err != nil && !errors.Is(err, os.ErrExist) {
		return nil, fmt.Errorf("create a control group: %w", err)
	}
	return g, nil
}
