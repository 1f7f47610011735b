package sim

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// ports is a small range, so that addresses are reused soon.
var ports = roster.PortRange{First: 9995, Last: 10006}

// spawn is the start of a follower up to its handshake.
type spawn struct {
	slot    int
	build   string
	asked   string   // the build that the core named
	child   *process // nil before the process exists
	aborted string
}

func (w *world) address(port uint16) roster.Address {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

// bind finds a port: the next one above the highest in use to which no process is bound.
func (w *world) bind(used []uint16) (roster.Address, bool) {
	for _, port := range ports.Candidates(used) {
		if a := w.address(port); w.listening(a) == nil {
			return a, true
		}
	}
	return roster.Address{}, false
}

// spawn starts a follower for a slot.
func (p *process) spawn(slot int, build string) {
	w := p.w
	w.stats.Spawns++
	s := &spawn{slot: slot, build: cmp.Or(build, p.build), asked: build}
	p.spawning = append(p.spawning, s)
	p.after(w.between(100*time.Microsecond, 3*time.Millisecond), func() {
		var used []uint16
		for _, m := range p.core.Roster().Members {
			used = append(used, m.Address.Port())
		}
		a, ok := w.bind(used)
		if !ok || w.faults.hits(w, w.faults.spawnFails, SpawnFailed) || s.aborted != "" {
			p.spawnFailed(s, "cannot be started", false)
			return
		}
		s.child = w.start(a)
		s.child.build = s.build
		w.tell("%s starts %s for slot %d", p, s.child, slot)
		s.child.bringUp(p.core.Roster(), slot, false)
		w.faults.within(s.child, 40*time.Millisecond, w.faults.killInSpawn, KilledInSpawn)
		w.faults.within(p, 40*time.Millisecond, w.faults.killInSpawn/4, KilledInSpawn)
		p.shakeHands(s)
	})
}

// hangs is the longest time that a start can hang.
const hangs = 8 * startTimeout

// bringUp is the start of a follower in its own process: it takes its slot and boots.
func (p *process) bringUp(r *roster.Roster, slot int, byHand bool) {
	w := p.w
	p.byHand = byHand
	d := w.between(2*time.Millisecond, 20*time.Millisecond)
	if w.faults.hits(w, w.faults.spawnHangs, SpawnHung) {
		d = w.between(startTimeout/2, hangs)
	}
	p.after(d, func() {
		if bad(p.build) {
			w.kill(p, "exit: this build does not come up")
			return
		}
		disk := w.disk(slot)
		if disk.owner != nil {
			w.kill(p, "its slot is owned by another process")
			return
		}
		// After a start that hung for long, the slot may have become the named one and be free
		// for a moment. No follower may open the named slot, because every write depends on it.
		// (The driver checks this while it holds the slot's lock, since only a slot's owner gets
		// the slot named.)
		if w.succession != nil && w.succession.Slot == slot {
			w.kill(p, "its slot is the named one")
			return
		}
		if w.faults.diskFull && w.chance(0.5) {
			w.kill(p, "exit: the disk is full")
			return
		}
		w.faults.breakCopy(w, disk)
		disk.own(p, false)
		self := roster.Member{ID: p.id, Slot: slot, Version: p.build, ByHand: byHand}
		p.boot(self, core.Boot{Roster: r, HasCopy: len(disk.log) > 0, Last: disk.last()})
	})
}

// shakeHands waits for the child, which may already have joined through its stream.
func (p *process) shakeHands(s *spawn) {
	w := p.w
	began := w.now
	var look func()
	look = func() {
		c := s.child
		switch {
		case c.dead:
			p.spawnFailed(s, "ended before its handshake", w.disk(s.slot).owner != nil)
		case s.aborted != "" || w.now-began > 2*startTimeout:
			w.kill(c, "its start was aborted: "+s.aborted)
			p.after(time.Millisecond, func() { p.spawnFailed(s, "aborted", false) })
		case c.core == nil || c.stopped:
			p.after(w.between(500*time.Microsecond, 3*time.Millisecond), look)
		default:
			p.after(w.between(0, 10*time.Millisecond), func() {
				p.forget(s)
				p.post(core.Spawned{Build: s.asked, Member: roster.Member{ID: c.id, Slot: s.slot, Version: s.build, Plugin: "socket"}})
			})
		}
	}
	p.after(time.Millisecond, look)
}

func (p *process) forget(s *spawn) {
	p.spawning = slices.DeleteFunc(p.spawning, func(x *spawn) bool { return x == s })
}

func (p *process) spawnFailed(s *spawn, why string, busy bool) {
	p.forget(s)
	ev := core.SpawnFailed{Slot: s.slot, Build: s.asked, Reason: why, SlotBusy: busy, At: time.Unix(0, int64(p.w.now)).UTC()}
	if s.child != nil {
		ev.ID = s.child.id
	}
	p.post(ev)
}

// abortSpawn aborts the last start for a slot.
func (p *process) abortSpawn(e core.AbortSpawn) {
	for _, s := range slices.Backward(p.spawning) {
		if s.slot == e.Slot {
			s.aborted = e.Reason
			return
		}
	}
	p.post(core.SpawnFailed{Slot: e.Slot, Reason: e.Reason})
}

// joiner is a process that an operator starts with "join".
type joiner struct{ p *process }

// admitted delivers the leader's answer to the joiner.
func (j *joiner) admitted(leader *process, e core.Admit) {
	r := leader.core.Roster()
	j.p.after(j.p.w.faults.delay(j.p.w), func() {
		if e.Slot == 0 {
			j.p.w.kill(j.p, "not admitted: "+e.Reason)
			return
		}
		j.p.bringUp(r, e.Slot, true)
	})
}
