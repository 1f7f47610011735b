package sim

import (
	"time"

	"github.com/dynast-io/dynast/shared/core"
)

func (p *process) doTakeover(e core.Effect) {
	switch e := e.(type) {
	case core.TryLock:
		p.tryLock()
	case core.Adopt:
		p.adopt(e.Slot)
	case core.AdoptBest:
		p.adoptBest(e.Reason)
	case core.TakeSlot:
		p.takeSlot(e.Slot)
	case core.BeginEpoch:
		p.beginEpoch(e.Epoch)
	case core.WriteSuccession:
		p.writeSuccession(e.Epoch)
	case core.Lead:
		p.lead(e.Epoch)
	}
}

func (p *process) tryLock() {
	w := p.w
	if p.disk != nil && p.disk.condemned {
		w.kill(p, "exit 6: this copy must not be led with, it is condemned")
		return
	}
	if !w.tryLock(p) {
		held := core.LockHeld{Succession: w.succession}
		if h := w.lock.holder; !h.dead {
			held.Holder, held.HolderStopped = h.id, h.stopped
		}
		p.post(held)
		return
	}
	ev := core.LockTaken{Succession: w.succession}
	for _, d := range w.disks {
		ev.AnyData = ev.AnyData || d.broken || d.hasContent()
	}
	w.faults.strikeNamed(w)
	p.post(ev)
}

// writeSuccession replaces the file: it is there before the process knows, and
// durable a moment after that. When its directory cannot be synced it is there, the
// process is told that it failed, and a loss of power may bring the one before back.
func (p *process) writeSuccession(epoch uint64) {
	w := p.w
	s := core.Succession{Epoch: epoch, Slot: p.disk.slot, Leader: p.id}
	takes := w.faults.fsync(w)
	w.faults.within(p, takes+time.Millisecond, w.faults.strikeHeir, KilledInTakeover)
	p.after(takes, func() {
		failed := w.faults.hits(w, w.faults.succFails, SuccessionRefused)
		if w.faults.diskFull {
			w.count(SuccessionRefused)
		}
		if w.faults.diskFull || failed && w.chance(0.5) {
			p.post(core.SuccessionFailed{Reason: "no room, or the disk fails"})
			return
		}
		w.oracle.names(p, s)
		w.succession = &s
		p.after(w.between(0, time.Millisecond), func() {
			if failed {
				p.post(core.SuccessionFailed{Reason: "its directory cannot be synced"})
				return
			}
			w.successionBefore = w.succession
			p.post(core.SuccessionWritten{})
		})
	})
}

// lead makes the process the leader in everything that is not the core's.
func (p *process) lead(epoch uint64) {
	p.w.stats.Leads++
	p.epoch, p.serving = epoch, true
	p.up = nil
	p.w.oracle.leads(p)
	for _, s := range p.suitors {
		s.come()
	}
	p.suitors = nil
}

// commit applies and, on a leader, answers.
func (p *process) commit(index uint64) {
	switch {
	case p.epoch != 0:
		p.w.oracle.acknowledges(p, index)
	case p.core.Role() != core.Leading:
		p.w.oracle.applies(p, index)
	default: // what it inherited; judged when it leads
	}
	p.committed = index
}

// write is a client's request, taken by a leader that serves.
func (p *process) write() {
	w := p.w
	w.writes++
	p.proposals = append(p.proposals, w.writes)
	if len(p.proposals) == 1 {
		p.after(w.between(0, 100*time.Microsecond), p.propose)
	}
}
