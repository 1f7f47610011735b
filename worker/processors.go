package worker

import "runtime"

// processors is how many of them Go uses in this process.
//
// A follower is a sequence: receive, append, acknowledge, apply. On more
// processors each step wakes another thread, which costs more than the step, and
// takes the processor from the leader, for whom the clients wait. So a follower
// uses half of them. Who takes over uses all, from its first step on.
type processors struct{ all int }

func newProcessors() processors { return processors{all: runtime.GOMAXPROCS(0)} }

func (p processors) follow() { p.use(max(p.all/2, 1)) }
func (p processors) lead()   { p.use(p.all) }

// use stops the world only if something changes.
func (p processors) use(n int) {
	if runtime.GOMAXPROCS(0) != n {
		runtime.GOMAXPROCS(n)
	}
}
