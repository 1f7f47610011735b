package memlimit

import (
	"bufio"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
)

// Group is the control group with the lowest limit.
type Group struct {
	// Path is the group's directory.
	Path string
	// LimitBytes is the limit at the time of reading.
	LimitBytes uint64

	used []string // the lines of memory.stat to add up
}

// At returns the cgroup v2 group in a directory.
func At(path string, limitBytes uint64) *Group {
	return &Group{Path: path, LimitBytes: limitBytes, used: v2.used}
}

// kind describes a version of control groups.
type kind struct {
	limit string   // the file with the limit
	used  []string // see Group
}

var (
	v1 = kind{limit: "memory.limit_in_bytes", used: []string{"total_rss", "total_shmem"}}
	v2 = kind{limit: "memory.max", used: []string{"anon", "shmem"}}
)

// unlimited is a lower bound of what cgroup v1 shows for no limit, the largest number of bytes
// in whole pages.
const unlimited = 1 << 62

// Read returns the group of this process, or nil if there is no limit.
func Read() (*Group, error) { return read("/") }

// read is Read with another root directory, for tests.
func read(root string) (*Group, error) {
	paths, err := groupPaths(filepath.Join(root, "proc/self/cgroup"))
	if err != nil {
		return nil, fmt.Errorf("memory limit: %w", err)
	}
	mounts, err := groupMounts(filepath.Join(root, "proc/self/mountinfo"))
	if err != nil {
		return nil, fmt.Errorf("memory limit: %w", err)
	}
	var lowest *Group
	for _, m := range mounts {
		path, ok := paths[m.version]
		if !ok {
			continue
		}
		if g := lowestOf(filepath.Join(root, m.point), m.below(path), m.kind); g != nil && (lowest == nil || g.LimitBytes < lowest.LimitBytes) {
			lowest = g
		}
	}
	return lowest, nil
}

// lowestOf checks a group and its ancestors up to the mount point. If the group does not exist
// because it is in another namespace, its nearest existing ancestor counts.
func lowestOf(mount, path string, k kind) *Group {
	var lowest *Group
	for dir := filepath.Join(mount, path); ; dir = filepath.Dir(dir) {
		if n, ok := readLimit(filepath.Join(dir, k.limit)); ok && (lowest == nil || n < lowest.LimitBytes) {
			lowest = &Group{Path: dir, LimitBytes: n, used: k.used}
		}
		if dir == mount || len(dir) <= len(mount) {
			return lowest
		}
	}
}

// readLimit returns the number in a file. It returns false if there is no file or no limit.
func readLimit(path string) (uint64, bool) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(strings.TrimSpace(string(raw)), 10, 64)
	return n, err == nil && n > 0 && n < unlimited
}

// UsedBytes returns how much of the limit is used by memory that the kernel cannot take back,
// for all processes of the group together.
func (g *Group) UsedBytes() (uint64, error) {
	f, err := os.Open(filepath.Join(g.Path, "memory.stat"))
	if err != nil {
		return 0, fmt.Errorf("memory in use: %w", err)
	}
	defer f.Close()
	var sum uint64
	found := false
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		name, value, _ := strings.Cut(lines.Text(), " ")
		for _, want := range g.used {
			if name != want {
				continue
			}
			n, err := strconv.ParseUint(value, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("memory in use: %s of %s: %w", name, g.Path, err)
			}
			sum, found = sum+n, true
		}
	}
	if err := lines.Err(); err != nil {
		return 0, fmt.Errorf("memory in use: %w", err)
	}
	if !found {
		return 0, fmt.Errorf("memory in use: %s has no line for %s", f.Name(), strings.Join(g.used, ", "))
	}
	return sum, nil
}

// groupPaths reads the paths of the process's groups, by version (1 or 2), from lines like
// "4:memory:/a/b" and "0::/a/b".
func groupPaths(file string) (map[int]string, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	paths := map[int]string{}
	for line := range strings.Lines(string(raw)) {
		fields := strings.SplitN(strings.TrimSpace(line), ":", 3)
		if len(fields) != 3 {
			continue
		}
		if fields[0] == "0" && fields[1] == "" {
			paths[2] = fields[2]
			continue
		}
		for controller := range strings.SplitSeq(fields[1], ",") {
			if controller == "memory" {
				paths[1] = fields[2]
			}
		}
	}
	return paths, nil
}

// mount is a mounted hierarchy of groups. root is the group at its top.
type mount struct {
	point, root string
	version     int
	kind        kind
}

// below returns a group's path relative to the mount point.
func (m mount) below(path string) string {
	if rest, ok := strings.CutPrefix(path, m.root); ok && (rest == "" || rest[0] == '/' || m.root == "/") {
		return rest
	}
	return ""
}

// groupMounts reads the mounts with a memory controller. The fields are those of proc(5): the
// fourth is the root and the fifth the mount point; after " - " come the file system's type,
// source and options.
func groupMounts(file string) ([]mount, error) {
	raw, err := os.ReadFile(file)
	if err != nil {
		return nil, err
	}
	var found []mount
	for line := range strings.Lines(string(raw)) {
		before, after, ok := strings.Cut(strings.TrimSpace(line), " - ")
		where, what := strings.Fields(before), strings.Fields(after)
		if !ok || len(where) < 5 || len(what) < 3 {
			continue
		}
		m := mount{root: where[3], point: where[4]}
		switch what[0] {
		case "cgroup2":
			m.version, m.kind = 2, v2
		case "cgroup":
			if !strings.Contains(","+what[2]+",", ",memory,") {
				continue
			}
			m.version, m.kind = 1, v1
		default:
			continue
		}
		found = append(found, m)
	}
	return found, nil
}
