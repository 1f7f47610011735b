package worker

import (
	"fmt"
	"sync"
	"time"
)

// applyChunkBytes bounds what is applied before a change of the replica gets
// its turn.
const applyChunkBytes = 1 << 20

const (
	// A follower, for whose result nobody waits, applies what has come together
	// in applyDelay, or applyEntries at once: each time costs more than an entry does.
	// Who takes over has no more than that left to do.
	applyDelay   = 10 * time.Millisecond
	applyEntries = 512
)

// applier feeds committed entries to the store, in order, on one goroutine,
// and answers the clients that wait for them.
type applier struct {
	m *Member

	mu     sync.Mutex
	target uint64
	jobs   []func()
	armed  bool // late will fire
	late   *time.Timer
	notify chan struct{}
}

func newApplier(m *Member) *applier {
	a := &applier{m: m, notify: make(chan struct{}, 1)}
	a.late = time.AfterFunc(time.Hour, a.tooLate)
	return a
}

func (a *applier) wake() {
	select {
	case a.notify <- struct{}{}:
	default:
	}
}

// commit lets entries up to index be applied, and none after it: index is
// lower than before when the copy was replaced by a shorter one.
func (a *applier) commit(index uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.target = index
	if a.m.leading.Load() || a.target >= a.m.applied.Load()+applyEntries {
		a.wake()
	} else if !a.armed {
		a.armed = true
		a.late.Reset(applyDelay)
	}
}

func (a *applier) tooLate() {
	a.mu.Lock()
	a.armed = false
	a.mu.Unlock()
	a.wake()
}

// do runs a job on the applying goroutine, between two entries.
func (a *applier) do(job func()) {
	a.mu.Lock()
	a.jobs = append(a.jobs, job)
	a.mu.Unlock()
	a.wake()
}

func (a *applier) run() {
	for {
		select {
		case <-a.notify:
		case <-a.m.ended:
			return
		}
		for a.step() {
		}
	}
}

// step does the jobs that wait and one chunk; false when nothing is left.
func (a *applier) step() bool {
	a.mu.Lock()
	jobs, target := a.jobs, a.target
	a.jobs = nil
	a.mu.Unlock()
	for _, job := range jobs {
		job()
	}
	more, err := a.applyChunk(target)
	if err != nil {
		a.m.storeFailed(err)
		return false
	}
	return more || len(jobs) > 0
}

func (a *applier) applyChunk(target uint64) (bool, error) {
	r := a.m.replica.hold()
	defer r.release()
	if r.store == nil {
		return false, nil
	}
	from := r.store.Applied().Index
	if from >= target {
		return false, nil
	}
	entries, err := r.log.Entries(from+1, target, applyChunkBytes)
	if err != nil {
		return false, fmt.Errorf("read entries from %d to apply: %w", from+1, err)
	}
	requests := a.m.proposals.requests(from+1, len(entries))
	for i, e := range entries {
		res, err := r.store.ApplyRequest(e, requests[i])
		if err != nil {
			return false, fmt.Errorf("apply entry %d of epoch %d: %w", e.Index, e.Epoch, err)
		}
		a.m.proposals.applied(e.Index, res)
	}
	applied := r.store.Applied().Index
	r.log.Applied(applied) // it need not keep them in memory any more
	a.m.applied.Store(applied)
	return true, nil
}

// settle applies everything that is committed. Only for jobs of this goroutine.
func (a *applier) settle() {
	for {
		a.mu.Lock()
		target := a.target
		a.mu.Unlock()
		more, err := a.applyChunk(target)
		if err != nil {
			a.m.storeFailed(err)
		}
		if !more || err != nil {
			return
		}
	}
}
