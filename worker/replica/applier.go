package replica

import (
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/dynast-io/dynast/worker/state"
)

// applyChunkBytes bounds the entries that are applied before the copy can be exchanged.
const applyChunkBytes = 1 << 20

const (
	// No client waits for a follower to apply an entry, and each batch costs more than an
	// entry. So a follower applies entries every applyDelay, or as soon as applyEntries
	// wait. A follower that takes over has at most that many entries left to apply.
	applyDelay   = 10 * time.Millisecond
	applyEntries = 512
	// takeoverPause is how long a follower applies nothing while another member takes over. A
	// follower that has just got its copy has many entries to apply. It would use a whole
	// processor, while all clients wait for the takeover.
	takeoverPause = 100 * time.Millisecond
)

// applier applies committed entries to the store, in order and on one goroutine. It answers
// the clients that wait for them.
type applier struct {
	*state.Shared
	copies    *holder
	proposals *Proposals

	mu     sync.Mutex
	target uint64
	jobs   []func()
	armed  bool // the timer late is running
	late   *time.Timer
	notify chan struct{}

	paused   atomic.Bool // no entries are applied
	pauseEnd *time.Timer
}

func newApplier(sh *state.Shared, copies *holder, p *Proposals) *applier {
	a := &applier{Shared: sh, copies: copies, proposals: p, notify: make(chan struct{}, 1)}
	a.late = time.AfterFunc(time.Hour, a.tooLate)
	a.pauseEnd = time.AfterFunc(time.Hour, a.goOn)
	return a
}

func (a *applier) wake() {
	select {
	case a.notify <- struct{}{}:
	default:
	}
}

// commit allows entries up to index to be applied, and none after it. The index is lower
// than before if the copy was replaced by a shorter one.
func (a *applier) commit(index uint64) {
	a.mu.Lock()
	defer a.mu.Unlock()
	a.target = index
	if a.Leading.Load() || a.target >= a.Applied.Load()+applyEntries {
		a.wake()
	} else if !a.armed {
		a.armed = true
		a.late.Reset(applyDelay)
	}
}

// pause makes a follower apply nothing for a moment.
func (a *applier) pause() {
	a.paused.Store(true)
	a.pauseEnd.Reset(takeoverPause)
}

// goOn ends a pause.
func (a *applier) goOn() {
	if a.paused.Swap(false) {
		a.wake()
	}
}

func (a *applier) tooLate() {
	a.mu.Lock()
	a.armed = false
	a.mu.Unlock()
	a.wake()
}

// do runs a job on the applier's goroutine, between two entries.
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
		case <-a.Ended():
			return
		}
		for a.step() {
		}
	}
}

// step runs the queued jobs and applies one chunk. It returns false when nothing is left to
// do now.
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
		a.StoreFailed(err)
		return false
	}
	return more || len(jobs) > 0
}

func (a *applier) applyChunk(target uint64) (bool, error) {
	r := a.copies.Hold()
	defer r.Release()
	if r.Store == nil || a.paused.Load() {
		return false, nil
	}
	from := r.Store.Applied().Index
	if from >= target {
		return false, nil
	}
	entries, err := r.Log.Entries(from+1, target, applyChunkBytes)
	if err != nil {
		return false, fmt.Errorf("read entries from %d to apply: %w", from+1, err)
	}
	requests := a.proposals.requests(from+1, len(entries))
	for i, e := range entries {
		if a.paused.Load() {
			break
		}
		res, err := r.Store.ApplyRequest(e, requests[i])
		if err != nil {
			return false, fmt.Errorf("apply entry %d of epoch %d: %w", e.Index, e.Epoch, err)
		}
		a.proposals.applied(e.Index, res)
	}
	applied := r.Store.Applied().Index
	r.Log.Applied(applied) // the log does not need these entries in memory any more
	a.Applied.Store(applied)
	return true, nil
}

// settle applies everything that is committed. Only jobs on the applier's goroutine may call
// it.
func (a *applier) settle() {
	for {
		a.mu.Lock()
		target := a.target
		a.mu.Unlock()
		more, err := a.applyChunk(target)
		if err != nil {
			a.StoreFailed(err)
		}
		if !more || err != nil {
			return
		}
	}
}
