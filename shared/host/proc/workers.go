package proc

import (
	"bytes"
	"os"
	"path/filepath"
	"strconv"
)

// Workers finds the workers of a data directory by their arguments. dir is its absolute path without
// symbolic links. No file names a worker that does not own a slot yet. If its leader dies, such a
// worker may become the next leader.
func Workers(dir string) []Identity {
	pids, err := filepath.Glob("/proc/[0-9]*/cmdline")
	if err != nil {
		return nil
	}
	var found []Identity
	for _, path := range pids {
		raw, err := os.ReadFile(path)
		if err != nil || !IsWorker(dir, raw) {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(path)))
		if err != nil || IsReaper(pid) {
			continue
		}
		if id, err := Identify(pid); err == nil {
			found = append(found, id)
		}
	}
	return found
}

// IsWorker reports whether a command line belongs to a worker of a data directory:
// dynast worker ... --data-dir DIR.
func IsWorker(dir string, cmdline []byte) bool {
	args := bytes.Split(bytes.TrimSuffix(cmdline, []byte{0}), []byte{0})
	if len(args) < 2 || string(args[0]) != "dynast" || string(args[1]) != "worker" {
		return false
	}
	for i := 2; i+1 < len(args); i++ {
		if string(args[i]) != "--data-dir" {
			continue
		}
		of := string(args[i+1])
		if real, err := filepath.EvalSymlinks(of); err == nil {
			of = real
		}
		return of == dir
	}
	return false
}
