package sim

import (
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
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
	case core.Claim:
		p.claim(e.Claims)
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
		w.kill(p, "exit 6: the copy is condemned and must not be used to lead")
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
	w.faults.damageFiles(w)
	ev := core.LockTaken{Succession: w.succession, Unreadable: w.successionDamaged[0], Claims: w.claims, ClaimsUnreadable: w.claimsDamaged[0], At: w.wallClock()}
	for _, d := range w.disks {
		ev.AnyData = ev.AnyData || d.broken || d.hasContent()
	}
	w.faults.damageNamed(w)
	p.post(ev)
}

// wallClock advances by a second in each simulated millisecond. A death and a takeover take
// longer than that, so no two takeovers see the same second.
func (w *world) wallClock() time.Time {
	return time.Unix(1_700_000_000+int64(w.now/time.Millisecond), 0)
}

// claim replaces claims.json.
func (p *process) claim(c core.Claims) {
	w := p.w
	w.oracle.claims(p, c)
	p.replaceFile(func(why string) { p.post(core.ClaimFailed{Reason: why}) },
		func() { w.claims, w.claimsDamaged[0] = &c, false },
		func() {
			w.claimsBefore, w.claimsDamaged[1] = w.claims, false
			p.post(core.Claimed{})
		})
}

// writeSuccession replaces succession.json.
func (p *process) writeSuccession(epoch uint64) {
	w := p.w
	s := core.Succession{Epoch: epoch, Slot: p.disk.slot, Leader: p.id}
	p.replaceFile(func(why string) { p.post(core.SuccessionFailed{Reason: why}) },
		func() {
			w.oracle.names(p, s)
			w.succession, w.successionDamaged[0] = &s, false
		},
		func() {
			w.successionBefore, w.successionDamaged[1] = w.succession, false
			p.post(core.SuccessionWritten{})
		})
}

// replaceFile replaces a file. The new content is visible before the process knows, and durable a
// moment later. If the directory cannot be synced, the new content is visible, the process gets
// an error, and a power loss may restore the previous content.
func (p *process) replaceFile(failed func(why string), there, durable func()) {
	w := p.w
	takes := w.faults.fsync(w)
	w.faults.within(p, takes+time.Millisecond, w.faults.killHeir, KilledInTakeover)
	p.after(takes, func() {
		fails := w.faults.hits(w, w.faults.succFails, SuccessionRefused)
		if w.faults.diskFull {
			w.count(SuccessionRefused)
		}
		if w.faults.diskFull || fails && w.chance(0.5) {
			failed("no room, or the disk fails")
			return
		}
		there()
		p.after(w.between(0, time.Millisecond), func() {
			if fails {
				failed("its directory cannot be synced")
				return
			}
			durable()
		})
	})
}

// lead makes the process the leader in everything outside the core.
func (p *process) lead(epoch uint64) {
	p.w.stats.Leads++
	p.epoch, p.serving = epoch, true
	p.up = nil
	p.w.oracle.leads(p)
	for _, s := range p.waiting {
		s.open()
	}
	p.waiting = nil
	p.after(p.w.between(0, 2*time.Millisecond), p.surveyOwners)
}

// surveyOwners regularly tells the core which processes own slots.
func (p *process) surveyOwners() {
	for _, d := range p.w.disks {
		if q := d.owner; q != nil && q != p {
			p.post(core.SlotOwned{ID: q.id})
		}
	}
	p.after(startTimeout, p.surveyOwners)
}

// commit applies entries and, on a leader, answers clients.
func (p *process) commit(index uint64) {
	switch {
	case p.epoch != 0:
		p.w.oracle.acknowledges(p, index)
	case p.core.Role() != core.Leading:
		p.w.oracle.applies(p, index)
	default: // inherited entries; the oracle checks them when the process leads
	}
	p.committed = index
}

// write is a client's request to a leader that serves.
func (p *process) write() {
	w := p.w
	w.writes++
	if p.refusing {
		return // refused
	}
	p.proposals = append(p.proposals, w.writes)
	if len(p.proposals) == 1 {
		p.after(w.between(0, 100*time.Microsecond), p.propose)
	}
}
