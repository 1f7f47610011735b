package sim

import (
	"fmt"
	"time"

	"github.com/dynast-io/dynast/shared/core"
)

// begin lets the faults loose.
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
		w.tell("everything is killed")
		w.count(KilledAll)
		for _, p := range w.alive() {
			w.kill(p, "SIGKILL to all")
		}
	})
	f.repeat(w, f.powerEvery, w.losePower)
	f.repeat(w, f.upEvery, w.operator.up)
	f.repeat(w, f.joinEvery, w.operator.join)
	f.repeat(w, f.handOverEvery, w.operator.handOver)
	f.repeat(w, f.scaleEvery, w.operator.scale)
	f.repeat(w, f.removeEvery, w.operator.remove)
	f.repeat(w, f.defragEvery, w.operator.defragment)
	f.repeat(w, f.upgradeEvery, w.operator.upgrade)
	f.repeat(w, f.spoilEvery, w.operator.spoil)
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

// stop stops a process for any time, also for good.
func (f *faults) stop(p *process) {
	d := p.w.between(time.Millisecond, 3*heartbeatTimeout)
	if f.stoppedForGood && p.w.chance(0.3) {
		d = 0
	}
	p.w.stop(p, d)
}

// lasting switches something on now and then, for a while.
func (f *faults) lasting(w *world, mean, most time.Duration, set func(on bool)) {
	f.repeat(w, mean, func() {
		set(true)
		w.after(w.between(0, most), func() {
			if f.on { // else it is over already
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

// kill takes one process, sometimes several at the same moment.
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

// victim picks a process, the leader more often than its share.
func (f *faults) victim(w *world) *process {
	if p := w.leader(); p != nil && w.chance(0.3) {
		return p
	}
	if len(w.living) == 0 {
		return nil
	}
	return w.living[w.rng.IntN(len(w.living))]
}

// within kills a process in the middle of something that takes d.
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

// end stops the faults and takes back what would last, but for processes that
// the cluster itself has to end: a stopped leader, a stopped follower.
func (f *faults) end(w *world) {
	*f = faults{stoppedForGood: f.stoppedForGood, brokeOnce: f.brokeOnce}
	w.tell("no more faults")
	for _, p := range w.alive() {
		if p.stopped && !(f.stoppedForGood && w.owned(p) && w.chance(0.7)) {
			w.resume(p)
		}
	}
}

// owned reports whether it is somebody's duty to end a process that hangs: the
// leader by a follower, a follower by its leader, who holds the lock by who waits for it.
func (w *world) owned(p *process) bool {
	leader := w.leader()
	if leader == nil || leader == p {
		for _, q := range w.living {
			if q == p || q.stopped || q.core == nil {
				continue
			}
			switch q.core.Role() {
			case core.Following:
				if leader == p && q.core.Roster().Leader == p.id.Address {
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
	m, ok := leader.core.Roster().Find(p.id.Address)
	return ok && m.ID == p.id
}

// inherits reports whether a process is between taking the lock and leading.
func (p *process) inherits() bool {
	if p.core == nil {
		return false
	}
	r := p.core.Role()
	return r == core.Inheriting || r == core.Leading && p.epoch == 0
}

// strikes reports whether a process is killed before its next effect.
func (f *faults) strikes(p *process) bool {
	if !f.on {
		return false
	}
	if p.inherits() {
		return f.hits(p.w, f.strikeHeir, KilledInTakeover)
	}
	return f.hits(p.w, f.strike, KilledAnywhere)
}

// strikeNamed damages the slot that a new leader is about to read.
func (f *faults) strikeNamed(w *world) {
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
	}
}

// cutNamed takes the end of the named log away, as far as another slot goes on
// from there with all that was committed: what no slot holds nobody can bring back.
func (f *faults) cutNamed(w *world, d *disk) {
	if !f.on || w.succession == nil || w.succession.Slot != d.slot || !d.usable(nil) || !w.chance(f.cutsNamed) {
		return // or one that is not opened: then nobody goes on from where it ends
	}
	for _, x := range w.disks {
		if x == d || x.broken || w.oracle.common(x.log) < len(w.oracle.truth) || len(x.log) == 0 {
			continue
		}
		lowest := max(x.first, d.first, 1) // of both logs, what the databases do not have
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

// breakCopy damages the copy that a follower is about to open: its log lost its
// end, which shows nowhere, or it cannot be read and is thrown away.
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
	w.tell("slot %d lost the end of its log, which is at %s now", d.slot, fmt.Sprint(d.last()))
}
