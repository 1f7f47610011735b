package chaos

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// Processes finds the living members of a data directory: those that own a
// slot of it, and those whose arguments name it or one of the given files, which may
// not have come as far as to own one.
func Processes(dataDir string, files ...string) ([]proc.Identity, error) {
	found, err := argued(append(files, dataDir))
	if err != nil {
		return nil, err
	}
	dir, err := datadir.OpenForReading(dataDir)
	if errors.Is(err, os.ErrNotExist) {
		return found, nil
	}
	if err != nil {
		return nil, err
	}
	metas, err := dir.Metas()
	if err != nil {
		return nil, err
	}
	for _, meta := range metas {
		id := proc.Identity{PID: meta.PID, StartTime: meta.StartTime}
		if Alive(id) && !slices.Contains(found, id) {
			found = append(found, id)
		}
	}
	return found, nil
}

// argued finds members by their arguments.
func argued(names []string) ([]proc.Identity, error) {
	paths, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil, err
	}
	var found []proc.Identity
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // gone
		}
		args := bytes.Split(bytes.TrimSuffix(raw, []byte{0}), []byte{0})
		if len(args) < 2 || !slices.Contains([]string{"up", "worker", "join", "engine"}, string(args[1])) {
			continue
		}
		if !slices.ContainsFunc(args[2:], func(a []byte) bool { return slices.Contains(names, string(a)) }) {
			continue
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if proc.IsReaper(pid) {
			continue // it is dead, and its memory goes
		}
		if id, err := proc.Identify(pid); err == nil {
			found = append(found, id)
		}
	}
	return found, nil
}

// Alive reports whether a process is there, and is no zombie.
func Alive(id proc.Identity) bool {
	if id.PID <= 1 {
		return false
	}
	now, err := proc.Identify(id.PID)
	if err != nil || now != id {
		return false
	}
	u, err := proc.ReadUsage(id.PID)
	return err == nil && u.State != 'Z'
}

// identify names the process of a member for good; zero when it is gone.
func identify(m tree.Member) proc.Identity {
	id, err := proc.Identify(m.PID)
	if err != nil {
		return proc.Identity{}
	}
	return id
}

// Signal sends a signal to exactly the process that was named; one that is
// gone needs none.
func Signal(id proc.Identity, sig unix.Signal) error {
	if id.PID <= 1 {
		return nil
	}
	return proc.Signal(id, sig)
}
