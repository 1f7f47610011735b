package parent

import (
	"bytes"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
)

// InContainer reports whether this process is the first of its PID namespace.
func InContainer() bool { return os.Getpid() == 1 }

// LeaderOf returns a function that finds the leader of a data directory.
func LeaderOf(dataDir string) Leader {
	return func() (proc.Identity, error) {
		dir, err := datadir.OpenForReading(dataDir)
		if err != nil {
			return proc.Identity{}, err
		}
		owner, err := proc.ReadOwner(dir.ClusterLock())
		return owner.Identity, err
	}
}

// MembersOf returns a function that finds the living members of a data directory: by the file that
// each of them has in its slot, or by the arguments if it has no slot yet.
func MembersOf(dataDir string) func() []int {
	return func() []int {
		dir, err := datadir.OpenForReading(dataDir)
		if err != nil {
			return nil
		}
		found := map[int]bool{}
		for _, id := range proc.Workers(dir.Path()) {
			found[id.PID] = true
		}
		metas, _ := dir.Metas() // without them, the members are found by their arguments
		for _, m := range metas {
			id := proc.Identity{PID: m.PID, StartTime: m.StartTime}
			if now, err := proc.Identify(m.PID); err == nil && now == id {
				found[m.PID] = true
			}
		}
		return slices.Collect(maps.Keys(found))
	}
}

// MembersHere finds the living members in this PID namespace.
func MembersHere() []int {
	paths, err := filepath.Glob("/proc/[0-9]*")
	if err != nil {
		return nil
	}
	var found []int
	for _, path := range paths {
		pid, err := strconv.Atoi(filepath.Base(path))
		if err != nil || pid == os.Getpid() || !isMember(pid) {
			continue
		}
		if _, err := proc.Identify(pid); err == nil {
			found = append(found, pid)
		}
	}
	return found
}

// isMember recognizes a member by the name that it gives itself, or by its arguments if it has
// not set its name yet.
func isMember(pid int) bool {
	dir := "/proc/" + strconv.Itoa(pid)
	if comm, err := os.ReadFile(dir + "/comm"); err == nil && bytes.HasPrefix(comm, []byte("dynast:")) {
		return true
	}
	args, err := os.ReadFile(dir + "/cmdline")
	return err == nil && !proc.IsReaper(pid) && bytes.HasPrefix(args, []byte("dynast\x00worker\x00"))
}
