package worker

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/dynast-io/dynast/shared/roster"
)

const (
	// commitDelay is how long a commit index waits at least for entries to ride with.
	commitDelay = 20 * time.Millisecond
	// spareDelay is how long entries wait for a follower on which no acknowledgement
	// depends. It is also what a write waits longer when the one on which it depends has
	// just frozen.
	spareDelay = 5 * time.Millisecond
)

// pace is when the sessions are woken. Each time costs both processes more than
// an entry does, so nobody is woken for what can wait a moment and come together
// with more.
//
// A write is acknowledged when min_sync followers have it. Those that were
// ahead last are sent it at once, the others (with two followers and min_sync = 1: one
// of them) a few milliseconds later. Nothing is fixed: who answers first is ahead, so a
// follower that does not answer any more loses its place with the next write.
type pace struct {
	d *downstream

	// spare and commit are armed while something waits for them.
	spare, commit           *time.Timer
	spareArmed, commitArmed atomic.Bool
}

func newPace(d *downstream) *pace {
	p := &pace{d: d}
	p.spare = time.AfterFunc(time.Hour, p.wakeSpare)
	p.commit = time.AfterFunc(time.Hour, p.tellCommit)
	return p
}

// appended wakes those who are to have new entries at once.
func (p *pace) appended() {
	d := p.d
	r, need := d.m.roster(), d.m.config().Replication.MinSync
	d.mu.Lock()
	waiting := d.waiting[:0]
	for _, s := range d.sessions {
		if mem, ok := r.Find(s.id.Address); ok && mem.ID == s.id && mem.State == roster.InSync {
			waiting = append(waiting, s)
		} else {
			s.notify() // it has something to catch up with
		}
	}
	slices.SortFunc(waiting, ahead)
	for _, s := range waiting[:min(need, len(waiting))] {
		s.notify()
	}
	later := len(waiting) > need
	clear(waiting) // it keeps nobody alive
	d.waiting = waiting
	d.mu.Unlock()
	if later && p.spareArmed.CompareAndSwap(false, true) {
		p.spare.Reset(spareDelay)
	}
}

// ahead orders sessions by how far their followers are, then by address: the
// heir is as close as possible.
func ahead(a, b *session) int {
	x, y := a.acked.Load(), b.acked.Load()
	switch {
	case x > y:
		return -1
	case x < y:
		return 1
	}
	return a.id.Address.Compare(b.id.Address)
}

func (p *pace) wakeSpare() {
	p.spareArmed.Store(false)
	p.d.replicate()
}

// committed has a new commit index told, with the next entries or without them
// a moment later.
func (p *pace) committed() {
	if p.commitArmed.CompareAndSwap(false, true) {
		p.commit.Reset(commitDelay)
	}
}

func (p *pace) tellCommit() {
	p.commitArmed.Store(false)
	commit := p.d.m.committed.Load()
	again := false
	p.d.each(func(s *session) {
		switch {
		case s.toldCommit.Load() == commit:
		case time.Since(time.Unix(0, s.toldAt.Load())) < commitDelay:
			again = true // a stream of entries
		default:
			s.update(func() { s.beat = true })
		}
	})
	if again {
		p.committed()
	}
}
