package core

import (
	"fmt"
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/roster"
)

// slotBar is for how long a slot that a stranger owns is not tried again.
const slotBar = 5 * time.Second

// adoptSibling takes over a follower of the leader before. One that was told
// to leave and has not gone by the time that leader died stays: the stop that it
// was a part of has ended with that leader. One that was still starting goes on with
// that: it says nothing before it has opened its copy.
func (c *Core) adoptSibling(m roster.Member) {
	m.Role = roster.Follower
	if m.State == roster.Starting {
		c.lead.keeper.Take(c.now, m.Slot)
	} else {
		c.lead.keeper.Up(m.Slot)
	}
	if m.State == roster.Leaving {
		m.State = roster.Starting
	}
	c.lead.peers[m.Address] = &peer{member: m, heard: c.now}
	if m.Busy { // it goes on with it; who asked is gone
		c.lead.defrag.queue = append(c.lead.defrag.queue, m.ID)
	}
	c.emit(Watch{ID: m.ID}, Reattach{Member: m})
}

// active counts the followers to be kept that are alive and stay. Those that
// an operator added come on top.
func (c *Core) active() int {
	n := 0
	for _, p := range c.lead.peers {
		if p.member.State != roster.Leaving && !p.killed && !p.member.ByHand {
			n++
		}
	}
	return n
}

// startsHeld reports whether nobody is started now. A leader about to hand over
// leaves that to the next, unless there is none.
func (c *Core) startsHeld() bool {
	l := c.lead
	return l.stop.phase != stopNot || (c.now < l.settled || l.handover.phase > handoverAnnouncing) && c.active() > 0
}

// ensureFollowers asks for as many starts as followers are missing, and
// retires those that are too many.
func (c *Core) ensureFollowers() {
	l := c.lead
	if c.startsHeld() {
		return
	}
	want := l.want
	switch {
	case c.active() > l.want && c.occupied() == "":
		c.trim()
	case l.handover.phase > handoverAnnouncing && len(l.peers) == 0:
		want = max(want, 1) // nobody is served, and there has to be somebody to hand over to
	}
	missing := want - c.active() - len(c.pendingSpawns())
	for ; missing > 0; missing-- {
		slot := c.freeSlot()
		if d := l.keeper.Fill(c.now, slot); d > 0 {
			c.report(SpawnDelayed, roster.ID{}, "slot %d failed before, next start in %s", slot, d.Round(time.Millisecond))
		}
	}
	for _, slot := range l.keeper.Due(c.now) {
		c.report(Spawning, roster.ID{}, "slot %d", slot)
		c.emit(Spawn{Slot: slot, Build: c.spawnBuild(slot)})
	}
}

// freeSlot is the lowest slot that a new follower can have.
func (c *Core) freeSlot() int {
	l := c.lead
	return c.roster.FreeSlot(func(n int) bool { return l.keeper.Busy(n) || l.barred[n] > c.now })
}

// pendingSpawns are the slots whose process is asked for and not a member yet.
func (c *Core) pendingSpawns() []int {
	return slices.DeleteFunc(c.lead.keeper.Pending(), func(slot int) bool { return c.inSlot(slot) != nil })
}

func (c *Core) inSlot(slot int) *peer {
	for _, p := range c.lead.peers {
		if p.member.Slot == slot {
			return p
		}
	}
	return nil
}

// superviseFollowers judges silence, late starts and what is missing.
func (c *Core) superviseFollowers() {
	for _, p := range c.sorted() {
		if silent := c.now - p.heard; !p.killed && silent >= c.cfg.HeartbeatTimeout && c.isUp(p) {
			c.report(MemberSilent, p.member.ID, "silent for %s", silent.Round(time.Millisecond))
			c.kill(p, "silent for "+silent.Round(time.Millisecond).String())
		}
		if p.leaveBy > 0 && c.now >= p.leaveBy {
			c.kill(p, "did not leave in time")
		}
	}
	for _, slot := range c.lead.keeper.Overdue(c.now) {
		const reason = "did not join in time"
		if p := c.inSlot(slot); p != nil {
			c.kill(p, reason)
		} else {
			c.emit(AbortSpawn{Slot: slot, Reason: reason})
		}
	}
	c.ensureFollowers()
	c.handoverStep()
	c.upgradeStep()
	c.stopStep()
}

// isUp: a process that was just spawned is judged by the start timeout.
func (c *Core) isUp(p *peer) bool { return !c.lead.keeper.IsPending(p.member.Slot) }

func (c *Core) kill(p *peer, reason string) {
	if p.killed {
		return
	}
	p.killed, p.reason = true, reason
	c.emit(Kill{ID: p.member.ID, Reason: reason})
}

// spawned: the process exists. It may have joined before this was told, and
// even have died: then it is counted already, and its slot may have the next one.
func (c *Core) spawned(m roster.Member) {
	if p := c.lead.peer(m.ID); p == nil {
		if slices.ContainsFunc(c.deaths, func(d Death) bool { return d.ID == m.ID }) {
			return
		}
		m.Role, m.State = roster.Follower, roster.Starting
		c.addPeer(m)
	} else if p.member.Plugin == "" || p.member.Protocol == 0 && m.Protocol != 0 {
		p.member.Plugin, p.member.Protocol = m.Plugin, m.Protocol
		c.publish()
	}
	c.report(MemberStarted, m.ID, "slot %d", m.Slot)
	c.replaced(m)
}

func (c *Core) addPeer(m roster.Member) *peer {
	p := &peer{member: m, heard: c.now}
	c.lead.peers[m.Address] = p
	c.emit(Watch{ID: m.ID})
	c.publish()
	return p
}

// replaced notes in the history who came for whom: a new follower stands for
// the oldest dead that nobody stands for.
func (c *Core) replaced(m roster.Member) {
	for i, d := range c.deaths {
		if !d.ReplacedBy.IsValid() {
			c.deaths = slices.Clone(c.deaths)
			c.deaths[i].ReplacedBy = m.Address
			c.emit(PublishDeaths{Deaths: c.deaths})
			return
		}
	}
}

func (c *Core) spawnFailed(ev SpawnFailed) {
	if p := c.inSlot(ev.Slot); p != nil {
		return // it became a member: its death is told by Died
	}
	c.lead.keeper.Down(c.now, ev.Slot)
	if ev.SlotBusy {
		c.lead.barred[ev.Slot] = c.now + slotBar
	}
	c.report(SpawnError, ev.ID, "slot %d: %s", ev.Slot, ev.Reason)
	c.upgradeFailed(ev.Slot, ev.Reason)
}

// joined: a follower opened its stream.
func (c *Core) joined(ev Joined) {
	m := ev.Member
	p := c.lead.peer(m.ID)
	if p == nil {
		if !c.welcome(m) {
			return
		}
		m.Role, m.State = roster.Follower, roster.Starting
		p = c.addPeer(m)
	}
	p.joined, p.heard = true, c.now
	p.member.Version, p.member.Slot, p.member.OwesDefrag = m.Version, m.Slot, m.OwesDefrag
	if m.Plugin != "" {
		p.member.Plugin = m.Plugin
	}
	c.lead.keeper.Up(m.Slot)
	c.report(MemberJoined, m.ID, "slot %d, log at %s", m.Slot, ev.Last)
	c.defragJoined(p)
	if ev.CanResume {
		p.match = ev.Last.Index
		c.emit(SendFrom{ID: m.ID, After: p.match})
		c.judgeSync(p)
		if p.member.State == roster.InSync {
			c.owesDefrag(p) // a leader before did not get to it
		}
	} else {
		p.match = 0
		if p.member.State == roster.InSync {
			p.member.State = roster.Starting
			c.publish()
		}
		c.emit(SendSnapshot{ID: m.ID})
	}
	c.commit()
}

// welcome decides about a process that this leader did not start: one that an
// earlier leader started just before its end, or one whose entry got lost.
func (c *Core) welcome(m roster.Member) bool {
	l := c.lead
	conflict := l.peers[m.Address] != nil || c.inSlot(m.Slot) != nil || m.Slot == c.self.Slot || m.Slot < 1
	full := !m.ByHand && c.active()+len(c.pendingSpawns()) >= l.want && !l.keeper.IsPending(m.Slot)
	if conflict || full || l.stop.phase != stopNot {
		c.emit(Dismiss{ID: m.ID, Reason: "not needed"})
		return false
	}
	return true
}

// joinRequested gives an operator's process a slot.
func (c *Core) joinRequested(ev JoinRequested) {
	l := c.lead
	switch {
	case l.stop.phase != stopNot:
		c.emit(Admit{Ref: ev.Ref, Reason: "the cluster is being stopped"})
		return
	case l.peers[ev.Member.Address] != nil || ev.Member.Address == c.self.Address:
		c.emit(Admit{Ref: ev.Ref, Reason: "another member has the address " + ev.Member.Address.String()})
		return
	}
	m := ev.Member
	m.Slot = c.freeSlot()
	m.Role, m.State, m.ByHand = roster.Follower, roster.Starting, true
	l.keeper.Take(c.now, m.Slot)
	c.addPeer(m)
	c.emit(Admit{Ref: ev.Ref, Slot: m.Slot})
}

// memberDied: drop it, remember it, and see who is missing.
func (c *Core) memberDied(ev Died) {
	p := c.lead.peer(ev.ID)
	if p == nil {
		return
	}
	reason := ev.Reason
	if p.reason != "" {
		reason = p.reason
	}
	delete(c.lead.peers, ev.ID.Address)
	c.emit(Release{ID: ev.ID})
	if p.member.State == roster.Leaving {
		c.lead.keeper.Cancel(p.member.Slot)
	} else {
		c.lead.keeper.Down(c.now, p.member.Slot)
		c.recordDeath(Death{ID: ev.ID, Reason: reason, At: ev.At})
		c.emit(PublishDeaths{Deaths: c.deaths})
	}
	c.report(MemberDied, ev.ID, "%s", reason)
	c.publish()
	c.commit()
	c.defragDied(ev.ID)
	c.upgradeFailed(p.member.Slot, fmt.Sprintf("its follower %s ended: %s", ev.ID.Address, reason))
	c.handoverStep()
}
