package worker

import (
	"runtime/debug"
	"time"
)

// idleAfter is how long nothing must be written before a member gives memory back.
const idleAfter = 2 * time.Second

// idleDetector finds the end of a burst of writes.
type idleDetector struct {
	index uint64 // the last index in the log at the last check
	since time.Time
	done  bool
}

// due reports, once after each burst, that nothing was appended for idleAfter.
func (r *idleDetector) due(now time.Time, index uint64) bool {
	if index != r.index {
		r.index, r.since, r.done = index, now, false
	}
	if r.done || now.Sub(r.since) < idleAfter {
		return false
	}
	r.done = true
	return true
}

// releaseMemory collects the garbage of a burst and returns the memory to the kernel. By
// itself Go keeps it for minutes, in each of several processes on one host.
func releaseMemory() { debug.FreeOSMemory() }
