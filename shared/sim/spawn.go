package sim

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/roster"
)

// ports is small, so that addresses come back soon.
var ports = roster.PortRange{First: 9995, Last: 10006}

// spawn is the start of a follower, until its handshake.
type spawn struct {
	slot    int
	build   string
	child   *process // nil before it exists
	aborted string
}

func (w *world) address(port uint16) roster.Address {
	return netip.AddrPortFrom(netip.AddrFrom4([4]byte{127, 0, 0, 1}), port)
}

// bind finds a port: the next above the highest in use that nobody is bound to.
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
	s := &spawn{slot: slot, build: cmp.Or(build, p.build)}
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
		w.faults.within(s.child, 40*time.Millisecond, w.faults.strikeSpawn, KilledInSpawn)
		w.faults.within(p, 40*time.Millisecond, w.faults.strikeSpawn/4, KilledInSpawn)
		p.shakeHands(s)
	})
}

// hangs is how long a start hangs at most.
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
		// A start that hung for long can find that its slot has become the named one,
		// and free, for a moment: what every write rests on is no follower's to open.
		// (Asked with the slot's lock held: a slot is named by its owner only.)
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

// shakeHands waits for the child, which may have joined by its stream before.
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
			w.kill(c, "its start is given up: "+s.aborted)
			p.after(time.Millisecond, func() { p.spawnFailed(s, "aborted", false) })
		case c.core == nil || c.stopped:
			p.after(w.between(500*time.Microsecond, 3*time.Millisecond), look)
		default:
			p.after(w.between(0, 10*time.Millisecond), func() {
				p.forget(s)
				p.post(core.Spawned{Member: roster.Member{ID: c.id, Slot: s.slot, Version: s.build, Plugin: "socket"}})
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
	ev := core.SpawnFailed{Slot: s.slot, Reason: why, SlotBusy: busy, At: time.Unix(0, int64(p.w.now)).UTC()}
	if s.child != nil {
		ev.ID = s.child.id
	}
	p.post(ev)
}

// abortSpawn gives up the last start for a slot.
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

// admitted is the answer that the joiner gets.
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
