package proc

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"
)

// Effort is the kernel's account of the work of a process. A process that is stopped, or that
// waits for something other than a processor, adds nothing to it.
type Effort struct {
	// Time is how long the living threads have run and have waited for a processor, together.
	// It decreases when a thread ends. A wait counts when it is over.
	Time time.Duration
	// Runnable means that one of the threads runs or waits for a processor at this moment.
	Runnable bool
}

// Work returns the effort of a process. It needs a kernel with scheduler statistics
// (CONFIG_SCHED_INFO). The error is os.ErrNotExist without them and when the process is gone.
func Work(pid int) (Effort, error) {
	paths, err := filepath.Glob("/proc/" + strconv.Itoa(pid) + "/task/*/schedstat")
	if err != nil || len(paths) == 0 {
		return Effort{}, fmt.Errorf("scheduler statistics of pid %d: %w", pid, os.ErrNotExist)
	}
	var e Effort
	for _, path := range paths {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has just ended
		}
		fields := strings.Fields(string(raw)) // on a processor, waiting for one, how often
		if len(fields) < 2 {
			return e, fmt.Errorf("%s: unexpected content %q", path, raw)
		}
		for _, f := range fields[:2] {
			ns, err := strconv.ParseInt(f, 10, 64)
			if err != nil {
				return e, fmt.Errorf("%s: %w", path, err)
			}
			e.Time += time.Duration(ns)
		}
		e.Runnable = e.Runnable || runnable(filepath.Join(filepath.Dir(path), "stat"))
	}
	return e, nil
}

// runnable reports from a thread's stat file whether the thread is in state R. The state
// follows the name in parentheses, which may itself contain any character.
func runnable(path string) bool {
	raw, err := os.ReadFile(path)
	i := bytes.LastIndex(raw, []byte(") "))
	return err == nil && i >= 0 && i+2 < len(raw) && raw[i+2] == 'R'
}
