package proc

import (
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Work is how long the living threads of a process have been running, and how
// long they have waited for a processor, together: what a process that is stopped
// or only waits for something else does not add to. It goes back when a thread ends.
// It needs a kernel with scheduler statistics (CONFIG_SCHED_INFO); the error is
// os.ErrNotExist without, and when the process is gone.
func Work(pid int) (time.Duration, error) {
	paths, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/schedstat")
	if err != nil || len(paths) == 0 {
		return 0, fmt.Errorf("scheduler statistics of pid %d: %w", pid, os.ErrNotExist)
	}
	var sum time.Duration
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has just ended
		}
		fields := strings.Fields(string(raw)) // on a processor, waiting for one, how often
		if len(fields) < 2 {
			return 0, fmt.Errorf("%s: %q is not understood", path, raw)
		}
		for _, f := range fields[:2] {
			ns, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return 0, fmt.Errorf("%s: %w", path, err)
			}
			sum += time.Duration(ns)
		}
	}
	return sum, nil
}
