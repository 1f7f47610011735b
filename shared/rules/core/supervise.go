package core

import (
	"fmt"
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

// slotBar is how long a slot that a stranger owns is not tried again.
const slotBar = 5 * time.Second

// adoptSibling takes over a follower of the earlier leader. A follower that was told to leave
// but is still there stays, because the stop that it was part of ended with the earlier leader.
// A follower that was still starting goes on with its start; it sends nothing before it has
// opened its copy.
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
	c.lead.peers[m.Address] = &peer{member: m, lastHeard: c.now}
	if m.Busy { // it goes on defragmenting, although the leader that asked for it is dead
		c.lead.defrag.queue = append(c.lead.defrag.queue, m.ID)
	}
	c.emit(Watch{ID: m.ID}, Reattach{Member: m})
}

// active counts the followers that are alive and not leaving. Followers that an operator
// started by hand are not counted, because the leader keeps its number of followers besides
// them.
func (c *Core) active() int {
	n := 0
	for _, p := range c.lead.peers {
		if p.member.State != roster.Leaving && !p.killed && !p.member.ByHand {
			n++
		}
	}
	return n
}

// startsHeld reports whether the leader starts no followers at the moment. A leader that is
// about to hand over leaves the starts to the next leader, unless no follower is left.
func (c *Core) startsHeld() bool {
	l := c.lead
	return l.stop.phase != stopNot || (c.now < l.settled || l.handover.phase > handoverAnnouncing) && c.active() > 0
}

// ensureFollowers starts the followers that are missing and retires those that are too many.
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
		want = max(want, 1) // clients are not served now, and the leader needs a follower to hand over to
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

// freeSlot returns the lowest slot that a new follower can use.
func (c *Core) freeSlot() int {
	l := c.lead
	return c.roster.FreeSlot(func(n int) bool { return l.keeper.Busy(n) || l.barred[n] > c.now })
}

// pendingSpawns returns the slots for which a process was requested that is not a member yet.
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

// superviseFollowers kills silent followers and late starts, and starts missing followers.
func (c *Core) superviseFollowers() {
	for _, p := range c.sorted() {
		if silent := c.now - p.lastHeard; !p.killed && silent >= c.cfg.HeartbeatTimeout && c.isUp(p) {
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
	c.endStrangers()
	c.ensureFollowers()
	if c.lead.rising > 0 && c.now >= c.lead.rising {
		c.judgeDegraded()
	}
	c.handoverStep()
	c.upgradeStep()
	c.stopStep()
}

// isUp reports whether a follower has finished its start. Until then the start timeout applies,
// not the heartbeat timeout.
func (c *Core) isUp(p *peer) bool { return !c.lead.keeper.IsPending(p.member.Slot) }

func (c *Core) kill(p *peer, reason string) {
	if p.killed {
		return
	}
	p.killed, p.reason = true, reason
	c.emit(Kill{ID: p.member.ID, Reason: reason})
}

// spawned handles a new process of this leader. The process may already have joined before this
// event, and may even be dead. A dead one was counted already, and the next process may own its
// slot.
func (c *Core) spawned(m roster.Member, build string) {
	if p := c.lead.peer(m.ID); p == nil {
		if slices.ContainsFunc(c.deaths, func(d Death) bool { return d.ID == m.ID }) {
			c.upgradeLost(m.ID, freshStart{slot: m.Slot, build: build}, "the new follower ended right after its start")
			return
		}
		if c.lead.stranger(m.ID) != nil {
			return // it joined before this event and was sent away
		}
		if c.conflicts(m) {
			c.sendAway(m.ID)
			c.upgradeLost(m.ID, freshStart{slot: m.Slot, build: build}, "another process took the slot of the new follower")
			return
		}
		m.Role, m.State = roster.Follower, roster.Starting
		c.addPeer(m)
	} else if p.member.Plugin == "" || p.member.Protocol == 0 && m.Protocol != 0 {
		p.member.Plugin, p.member.Protocol = m.Plugin, m.Protocol
		c.publish()
	}
	c.upgradeStarted(m, build)
	c.report(MemberStarted, m.ID, "slot %d", m.Slot)
	c.replaced(m)
}

func (c *Core) addPeer(m roster.Member) *peer {
	p := &peer{member: m, lastHeard: c.now}
	c.lead.peers[m.Address] = p
	if !c.forgetStranger(m.ID) {
		c.emit(Watch{ID: m.ID})
	}
	c.publish()
	return p
}

// replaced notes in the history of deaths which follower was started for which dead one. A new
// follower replaces the oldest dead member that has no replacement yet.
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
	p := c.inSlot(ev.Slot)
	if p != nil && p.member.ID == ev.ID {
		return // it became a member, so Died reports its death
	}
	if p == nil { // otherwise another process has joined in this slot
		c.lead.keeper.Down(c.now, ev.Slot)
	}
	if ev.SlotBusy {
		c.lead.barred[ev.Slot] = c.now + slotBar
	}
	if c.lead.rising > 0 {
		c.lead.rising = 0
		c.judgeDegraded()
	}
	if c.lead.stop.phase == stopNot { // a stop ends the starts that are in progress
		c.report(SpawnError, ev.ID, "slot %d: %s", ev.Slot, ev.Reason)
	}
	c.upgradeLost(ev.ID, freshStart{slot: ev.Slot, build: ev.Build}, ev.Reason)
}

// joined handles a follower that opened its stream.
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
	p.joined, p.lastHeard = true, c.now
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
			c.owesDefrag(p) // an earlier leader did not defragment it
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

// welcome decides whether a process that this leader does not know may join. An earlier leader
// may have started it just before that leader died, or the roster lost its entry.
func (c *Core) welcome(m roster.Member) bool {
	l := c.lead
	full := !m.ByHand && c.active()+len(c.pendingSpawns()) >= l.want && !l.keeper.IsPending(m.Slot)
	if c.conflicts(m) || full || l.stop.phase != stopNot {
		c.sendAway(m.ID)
		return false
	}
	return true
}

// conflicts reports whether another member has the same address or slot, or the slot is
// invalid.
func (c *Core) conflicts(m roster.Member) bool {
	return c.lead.peers[m.Address] != nil || c.inSlot(m.Slot) != nil || m.Slot == c.self.Slot || m.Slot < 1
}

// joinRequested gives a slot to a process that an operator started.
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

// memberDied removes a dead follower, records its death and starts a replacement if one is
// needed.
func (c *Core) memberDied(ev Died) {
	p := c.lead.peer(ev.ID)
	if p == nil {
		c.strangerDied(ev)
		return
	}
	reason := ev.Reason
	if p.reason != "" {
		reason = p.reason
	}
	delete(c.lead.peers, ev.ID.Address)
	c.emit(Release{ID: ev.ID})
	kind := MemberDied
	if p.member.State == roster.Leaving {
		c.lead.keeper.Cancel(p.member.Slot)
		if !p.killed {
			kind = MemberLeft
		}
	} else {
		c.lead.rising = 0
		c.lead.keeper.Down(c.now, p.member.Slot)
		c.recordDeath(Death{ID: ev.ID, Reason: reason, At: ev.At})
		c.emit(PublishDeaths{Deaths: c.deaths})
	}
	c.report(kind, ev.ID, "%s", reason)
	c.publish()
	c.commit()
	c.defragDied(ev.ID)
	c.upgradeLost(ev.ID, freshStart{}, fmt.Sprintf("new follower %s ended: %s", ev.ID.Address, reason))
	c.handoverStep()
}
