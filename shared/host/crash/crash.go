// Package crash kills the process at a named step, for tests of what happens when a process dies in
// the middle of a change. Without the environment variable Env it does nothing.
package crash

import (
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

// Env is the environment variable with the path of a directory. A process dies at the step that is the
// name of a file in it. It removes the file first, so that only one process dies. With the name
// STEP.always every process dies there.
const Env = "DYNAST_CRASH_AT"

// At is called before a step.
func At(step string) {
	dir := os.Getenv(Env)
	if dir == "" {
		return
	}
	if _, err := os.Stat(filepath.Join(dir, step+".always")); err != nil && os.Remove(filepath.Join(dir, step)) != nil {
		return
	}
	_ = unix.Kill(os.Getpid(), unix.SIGKILL)
	select {} // the signal ends this process
}
