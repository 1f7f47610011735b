package sim

import (
	"fmt"
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// begin starts the faults.
func (f *faults) begin(w *world) {
	f.on = true
	f.repeat(w, f.killEvery, func() { f.kill(w) })
	f.repeat(w, f.stopEvery, func() {
		if p := f.victim(w); p != nil {
			f.stop(p)
		}
	})
	f.repeat(w, f.cutEvery, func() {
		if p := f.victim(w); p != nil {
			w.cutStream(p)
		}
	})
	f.repeat(w, f.endEvery, func() {
		w.tell("all processes are killed")
		w.count(KilledAll)
		for _, p := range w.alive() {
			w.kill(p, "SIGKILL to all")
		}
	})
	f.repeat(w, f.powerEvery, w.losePower)
	f.repeat(w, f.suspendEvery, w.suspend)
	f.repeat(w, f.upEvery, w.operator.up)
	f.repeat(w, f.joinEvery, w.operator.join)
	f.repeat(w, f.handOverEvery, w.operator.handOver)
	f.repeat(w, f.scaleEvery, w.operator.scale)
	f.repeat(w, f.removeEvery, w.operator.remove)
	f.repeat(w, f.defragEvery, w.operator.defragment)
	f.repeat(w, f.upgradeEvery, w.operator.upgrade)
	f.repeat(w, f.corruptEvery, w.operator.corruptKey)
	f.lasting(w, f.fullEvery, 500*time.Millisecond, func(on bool) {
		if f.diskFull = on; on {
			w.count(DiskFull)
			w.tell("the disk is full")
		} else {
			w.tell("the disk has room again")
		}
	})
	f.lasting(w, f.slowEvery, 300*time.Millisecond, func(on bool) { f.slow = on })
	f.lasting(w, f.failingEvery, 200*time.Millisecond, func(on bool) { f.failing = on })
}

// stop stops a process for some time or for good.
func (f *faults) stop(p *process) {
	d := p.w.between(time.Millisecond, 3*heartbeatTimeout)
	if f.stoppedForGood && p.w.chance(0.3) {
		d = 0
	}
	p.w.stop(p, d)
}

// lasting switches something on from time to time, for a while.
func (f *faults) lasting(w *world, mean, most time.Duration, set func(on bool)) {
	f.repeat(w, mean, func() {
		set(true)
		w.after(w.between(0, most), func() {
			if f.on { // otherwise the faults have ended
				set(false)
			}
		})
	})
}

func (f *faults) repeat(w *world, mean time.Duration, do func()) {
	if mean == 0 {
		return
	}
	var again func()
	again = func() {
		if f.on {
			do()
			w.after(w.between(0, 2*mean), again)
		}
	}
	w.after(w.between(0, 2*mean), again)
}

// kill kills one process, sometimes several at the same moment.
func (f *faults) kill(w *world) {
	n := 1
	if w.chance(f.crowds) {
		n = 2 + w.rng.IntN(2)
		w.count(KilledTogether)
	}
	for range n {
		if p := f.victim(w); p != nil {
			w.count(KilledAnywhere)
			w.kill(p, "SIGKILL")
		}
	}
}

// victim picks a process, and prefers the leader.
func (f *faults) victim(w *world) *process {
	if p := w.leader(); p != nil && w.chance(0.3) {
		return p
	}
	if len(w.living) == 0 {
		return nil
	}
	return w.living[w.rng.IntN(len(w.living))]
}

// within kills a process during a step that takes d.
func (f *faults) within(p *process, d time.Duration, chance float64, kind Fault) {
	w := p.w
	if !f.on || !w.chance(chance) {
		return
	}
	w.after(w.between(0, d), func() {
		if f.on && !p.dead {
			w.count(kind)
			w.kill(p, "SIGKILL, "+kind.String())
		}
	})
}

// end stops the faults and reverts lasting ones. Some processes stay stopped if the cluster
// itself must kill them: a stopped leader or follower.
func (f *faults) end(w *world) {
	*f = faults{stoppedForGood: f.stoppedForGood, brokeOnce: f.brokeOnce}
	w.tell("no more faults")
	for _, p := range w.alive() {
		if p.stopped && !(f.stoppedForGood && w.owned(p) && w.chance(0.7)) {
			w.resume(p)
		}
	}
}

// owned reports whether another process must kill this one if it hangs: a follower kills the
// leader, the leader kills a follower, and a process that waits for the lock kills its holder.
func (w *world) owned(p *process) bool {
	leader := w.leader()
	if leader == nil || leader == p {
		for _, q := range w.living {
			if q == p || q.stopped || q.core == nil {
				continue
			}
			switch q.core.Role() {
			case core.Following:
				if leader == p && q.core.Roster().Leader == p.id.Address && !leader.sendsAway(q) {
					return true
				}
			case core.Contending:
				if w.lock.holder == p && leader == nil && !q.leads {
					return true
				}
			}
		}
		return false
	}
	if leader.core.Roster().Successor == p.id.Address {
		return false // the leader may exit before it notices, and then no process watches this one
	}
	// The leader finds it as the owner of a slot, even if it never joined.
	return p.disk != nil && (!leader.stopped || w.owned(leader))
}

// sendsAway reports whether a leader has told a follower to leave. The message can still be on
// its way, and the follower would otherwise have killed this leader.
func (p *process) sendsAway(q *process) bool {
	m, ok := p.core.Roster().Find(q.id.Address)
	return !ok || m.ID != q.id || m.State == roster.Leaving
}

// inherits reports whether a process is between taking the lock and leading.
func (p *process) inherits() bool {
	if p.core == nil {
		return false
	}
	r := p.core.Role()
	return r == core.Inheriting || r == core.Leading && p.epoch == 0
}

// killsNow reports whether a process is killed before its next effect.
func (f *faults) killsNow(p *process) bool {
	if !f.on {
		return false
	}
	if p.inherits() {
		return f.hits(p.w, f.killHeir, KilledInTakeover)
	}
	return f.hits(p.w, f.killAnywhere, KilledAnywhere)
}

// damageNamed damages the slot that a new leader is about to read.
func (f *faults) damageNamed(w *world) {
	if !f.on || w.succession == nil || !w.chance(f.breaksNamed) {
		return
	}
	d := w.disk(w.succession.Slot)
	others := 0
	for _, x := range w.disks {
		if x != d && !x.broken && len(x.log) > 0 {
			others++
		}
	}
	if d.owner == nil && others > 0 {
		w.tell("slot %d is damaged", d.slot)
		w.count(NamedDamaged)
		d.broken, f.brokeOnce = true, true
		if others > 1 {
			f.damageOther(w)
		}
	}
}

// damageOther damages one more slot without an owner.
func (f *faults) damageOther(w *world) {
	for _, d := range w.disks {
		if d.owner == nil && !d.broken && len(d.log) > 0 && f.hits(w, f.breaksOther, OtherDamaged) {
			w.tell("slot %d is also damaged", d.slot)
			d.broken = true
			return
		}
	}
}

// damageFiles damages a state file that the holder of the lock is about to read. If both files
// are gone and a log is unreadable, only the wall clock orders epochs.
func (f *faults) damageFiles(w *world) {
	if w.succession != nil && f.hits(w, f.damagesSuccession, SuccessionDamaged) {
		w.tell("succession.json is damaged")
		w.succession, w.successionBefore, f.brokeOnce = nil, nil, true
		w.successionDamaged = [2]bool{true, true}
	}
	if w.claims != nil && f.hits(w, f.damagesClaims, ClaimsDamaged) {
		w.tell("claims.json is damaged")
		w.claims, w.claimsBefore = nil, nil
		w.claimsDamaged = [2]bool{true, true}
	}
}

// losesPower reports whether the host loses power before the next effect of a process.
func (f *faults) losesPower(p *process) bool {
	if p.inherits() {
		return f.hits(p.w, f.powerHeir, PowerLostInTakeover)
	}
	return f.hits(p.w, f.powerAnywhere, PowerLost)
}

// cutNamed removes the end of the named log, but only entries that another slot has and can
// continue from, with everything that was committed. Entries that no slot holds could not be
// recovered.
func (f *faults) cutNamed(w *world, d *disk) {
	if !f.on || w.succession == nil || w.succession.Slot != d.slot || !d.usable(nil) || !w.chance(f.cutsNamed) {
		return // if the slot is not opened, no process continues from its end
	}
	for _, x := range w.disks {
		if x == d || x.broken || w.oracle.common(x.log) < len(w.oracle.truth) || len(x.log) == 0 {
			continue
		}
		lowest := max(x.first, d.first, 1) // the databases do not have the entries above this index, in either log
		if uint64(len(d.log)) <= lowest {
			continue
		}
		keep := lowest + w.rng.Uint64N(uint64(len(d.log))-lowest)
		if !x.holds(d.at(keep)) {
			continue
		}
		w.tell("slot %d lost the end of its log, %d of %d entries are left", d.slot, keep, len(d.log))
		w.count(NamedCut)
		d.cut(keep)
		return
	}
}

// breakCopy damages the copy that a follower is about to open. Either its log loses its end
// without a trace, or it is unreadable and is discarded.
func (f *faults) breakCopy(w *world, d *disk) {
	if !f.on || len(d.log) == 0 || !w.chance(f.breaksCopy) {
		return
	}
	if w.chance(0.5) {
		w.count(CopyCorrupt)
		w.tell("the copy in slot %d is corrupt", d.slot)
		d.wipe()
		return
	}
	w.count(CopyCut)
	lowest := min(d.first-1, uint64(len(d.log)))
	d.cut(lowest + w.rng.Uint64N(uint64(len(d.log))-lowest+1))
	w.tell("slot %d lost the end of its log, which now ends at %s", d.slot, fmt.Sprint(d.last()))
}
