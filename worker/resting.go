package worker

import (
	"runtime/debug"
	"time"
)

// restAfter is how long nothing is written before a member gives memory back.
const restAfter = 2 * time.Second

// resting finds the end of a burst of writes.
type resting struct {
	index uint64 // the end of the log when it was looked at last
	since time.Time
	done  bool
}

// due reports, once after each burst, that nothing was appended for restAfter.
func (r *resting) due(now time.Time, index uint64) bool {
	if index != r.index {
		r.index, r.since, r.done = index, now, false
	}
	if r.done || now.Sub(r.since) < restAfter {
		return false
	}
	r.done = true
	return true
}

// giveBack collects what a burst left behind, and lets the kernel have it. By
// itself Go keeps it for minutes, in each of several processes on one host.
func giveBack() { debug.FreeOSMemory() }
