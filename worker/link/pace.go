package link

import (
	"slices"
	"sync/atomic"
	"time"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

const (
	// commitDelay is how long a commit index waits for entries to travel with.
	commitDelay = 20 * time.Millisecond
	// othersDelay is how long entries wait before they are sent to a follower on which no
	// acknowledgement depends. If the follower on which a write depends has just frozen, the
	// write waits that much longer.
	othersDelay = 25 * time.Millisecond
	// othersBytes is how many bytes of entries wait at most. It is a small part of what the
	// leader keeps in memory, so that the entries need not be read from the disk.
	othersBytes = 512 << 10
)

// pace decides when to wake the sessions. Waking one costs both processes more than sending an
// entry, so data that can wait a moment is sent together with more.
//
// A write is acknowledged when min_sync followers have it. The followers that were furthest
// ahead get new entries at once. So does a named successor, since a hand-over waits for its
// last acknowledgement. The other followers get the entries a few milliseconds later; with two
// followers and min_sync = 1, that is one of them. The order changes with each write: the
// followers that answer first are ahead, so one that stops answering loses its place with the
// next write.
type pace struct {
	d *downstream

	// others and commit are armed while something waits for them.
	others, commit           *time.Timer
	othersArmed, commitArmed atomic.Bool
	waitingBytes             atomic.Int64 // of entries since the others were woken
}

func newPace(d *downstream) *pace {
	p := &pace{d: d}
	p.others = time.AfterFunc(time.Hour, p.wakeOthers)
	p.commit = time.AfterFunc(time.Hour, p.tellCommit)
	return p
}

// appended wakes the sessions that send new entries at once. bytes is the size of the entries.
func (p *pace) appended(bytes int) {
	d := p.d
	r, need := d.Roster(), d.Settings.Now().Replication.MinSync
	d.mu.Lock()
	waiting := d.waiting[:0]
	for _, s := range d.sessions {
		if mem, ok := r.Find(s.id.Address); ok && mem.ID == s.id && mem.State == roster.InSync {
			waiting = append(waiting, s)
		} else {
			s.notify() // it has to catch up
		}
	}
	slices.SortFunc(waiting, ahead)
	later := false
	for i, s := range waiting {
		if i < need || s.id.Address == r.Successor {
			s.notify()
		} else {
			later = true
		}
	}
	clear(waiting) // drop the references, so that ended sessions can be freed
	d.waiting = waiting
	d.mu.Unlock()
	if !later {
		return
	}
	if p.waitingBytes.Add(int64(bytes)) >= othersBytes {
		p.wakeOthers()
	} else if p.othersArmed.CompareAndSwap(false, true) {
		p.others.Reset(othersDelay)
	}
}

// ahead orders sessions by how far their followers are, then by address, so that the heir is
// as far ahead as possible.
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

func (p *pace) wakeOthers() {
	p.othersArmed.Store(false)
	p.waitingBytes.Store(0)
	p.d.replicate()
}

// committed makes the sessions send the new commit index: with the next entries, or without
// them a moment later.
func (p *pace) committed() {
	if p.commitArmed.CompareAndSwap(false, true) {
		p.commit.Reset(commitDelay)
	}
}

func (p *pace) tellCommit() {
	p.commitArmed.Store(false)
	commit := p.d.Committed.Load()
	again := false
	p.d.each(func(s *session) {
		switch {
		case s.sentCommit.Load() == commit:
		case time.Since(time.Unix(0, s.sentAt.Load())) < commitDelay:
			again = true // entries are being sent: the next ones carry it
		default:
			s.update(func() { s.beat = true })
		}
	})
	if again {
		p.committed()
	}
}
