package core

import (
	"math"
	"time"

	"github.com/dynast-io/dynast/shared/keeper"
	"github.com/dynast-io/dynast/shared/roster"
)

// leadState is what only a leader has. It dies with the leadership, which ends
// only with the process.
type leadState struct {
	peers map[roster.Address]*peer
	// keeper decides when which slot gets a process; a seat is a slot.
	keeper *keeper.Keeper
	// barred holds slots that turned out to be owned by a stranger, until when.
	barred   map[int]time.Duration
	degraded bool
	settled  time.Duration // starts wait until then, see Config.Settle
	stop     stopState
	handover handoverState
	defrag   defragState
	upgrade  upgradeState
	want     int // followers to be kept
}

// peer is a follower as its leader sees it.
//
// match can be ahead of what the leader knows of its own log, when the answer of a
// follower overtakes the leader's own Appended; it counts for the commit rule only
// while the state is InSync. killed is set once and ends in Died.
type peer struct {
	member roster.Member
	match  uint64
	known  uint64 // the version of the roster that it has for certain
	heard  time.Duration
	joined bool // its stream in this epoch is open
	killed bool
	reason string // why it was killed
	// leaveBy is when one that was told to leave is killed; 0: it was not told.
	leaveBy time.Duration
	compact bool // defragmented at the request that is being carried out
}

func newLeadState(c *Core) *leadState {
	return &leadState{
		peers:  map[roster.Address]*peer{},
		keeper: keeper.New(c.cfg.Keeper, c.cfg.Rand),
		barred: map[int]time.Duration{},

		settled: c.now + c.cfg.Settle,
		want:    c.cfg.Followers,
	}
}

func (l *leadState) discount(late time.Duration) {
	for _, p := range l.peers {
		p.heard += late
	}
}

// peer returns the follower that id names, nil for any other process.
func (l *leadState) peer(id roster.ID) *peer {
	if p := l.peers[id.Address]; p != nil && p.member.ID == id {
		return p
	}
	return nil
}

// sorted returns the followers by address, so that the same events always
// lead to the same effects.
func (c *Core) sorted() []*peer {
	ps := make([]*peer, 0, len(c.lead.peers))
	for _, m := range c.roster.Members {
		if p := c.lead.peers[m.Address]; p != nil {
			ps = append(ps, p)
		}
	}
	return ps
}

// wake is the leader's next deadline besides its heartbeat.
func (l *leadState) wake(c *Core) time.Duration {
	wake := time.Duration(math.MaxInt64)
	if at, ok := l.keeper.Wake(); ok {
		wake = at
		if c.startsHeld() { // one that is due stays so: it is no reason to wake at once
			wake = max(at, c.now+c.cfg.HeartbeatInterval)
		}
	}
	if c.now < l.settled {
		wake = min(wake, l.settled)
	}
	for _, p := range l.peers {
		if !p.killed && c.isUp(p) {
			wake = min(wake, p.heard+c.cfg.HeartbeatTimeout)
		}
		if !p.killed && p.leaveBy > 0 {
			wake = min(wake, p.leaveBy)
		}
	}
	if l.handover.phase == handoverAnnouncing {
		wake = min(wake, max(l.handover.deadline, c.now+time.Millisecond))
	}
	if l.upgrade.phase != upgradeNot {
		wake = min(wake, max(l.upgrade.deadline, c.now+c.cfg.HeartbeatInterval))
	}
	if l.stop.phase != stopNot {
		wake = min(wake, max(l.stop.deadline, c.now+c.cfg.HeartbeatInterval))
	}
	return wake
}

func (c *Core) stepLeader(ev Event) {
	if c.role != Leading {
		return // an answer to what an earlier role asked for
	}
	switch ev := ev.(type) {
	case Spawned:
		c.spawned(ev.Member)
	case SpawnFailed:
		c.spawnFailed(ev)
	case JoinRequested:
		c.joinRequested(ev)
	case Joined:
		c.joined(ev)
	case Parted:
		if p := c.lead.peer(ev.ID); p != nil {
			p.joined = false
		}
	case Progress:
		c.progress(ev)
	case Overtaken:
		c.overtaken(ev)
	case Toils:
		if p := c.lead.peer(ev.ID); p != nil {
			p.heard = c.now
			c.lead.keeper.Toils(c.now, p.member.Slot)
		}
	case ServingStopped:
		c.servingStopped()
	default:
		c.stepOperator(ev)
	}
}

func (c *Core) stepOperator(ev Event) {
	switch ev := ev.(type) {
	case HandoverRequested:
		c.handoverRequested(ev)
	case ScaleRequested:
		c.scaleRequested(ev)
	case RemoveRequested:
		c.removeRequested(ev)
	case DefragmentRequested:
		c.defragmentRequested(ev)
	case UpgradeRequested:
		c.upgradeRequested(ev)
	case Defragmented:
		c.defragmented(ev)
	case ReplicaDiffers:
		c.replicaDiffers(ev)
	}
}

// publish makes the roster anew from the peers and tells everyone.
func (c *Core) publish() {
	r := &roster.Roster{Epoch: c.roster.Epoch, Version: c.roster.Version + 1, Leader: c.self.Address, Client: c.cfg.Client,
		Successor: c.lead.handover.to, Followers: c.lead.want}
	r.Members = append(r.Members, c.self)
	for _, p := range c.lead.peers {
		r.Members = append(r.Members, p.member)
	}
	r.Sort()
	c.roster = r
	c.emit(Publish{Roster: r})
}

// commit applies the commit rule.
func (c *Core) commit() {
	var acks []uint64
	for _, p := range c.lead.peers {
		if p.member.State == roster.InSync {
			acks = append(acks, p.match)
		}
	}
	if to := commitIndex(c.synced, acks, c.cfg.MinSync); to > c.committed {
		c.committed = to
		c.emit(Commit{Index: to}, Replicate{})
	}
	c.tellDegraded(len(acks) < c.cfg.MinSync)
}

// tellDegraded reports the change, not the state.
func (c *Core) tellDegraded(degraded bool) {
	if degraded == c.lead.degraded || c.lead.stop.phase != stopNot {
		return
	}
	c.lead.degraded = degraded
	if degraded {
		c.report(Degraded, c.self.ID, "fewer followers in sync than min_sync = %d: writes are acknowledged by fewer processes", c.cfg.MinSync)
	} else {
		c.report(Restored, c.self.ID, "min_sync = %d followers in sync", c.cfg.MinSync)
	}
}

func (c *Core) progress(ev Progress) {
	p := c.lead.peer(ev.ID)
	if p == nil {
		return
	}
	p.heard = c.now
	p.match = max(p.match, ev.Index)
	p.known = max(p.known, ev.Known)
	c.judgeSync(p)
	c.commit()
	c.handoverStep()
}

// judgeSync moves a follower between InSync and Lagging. The two bounds
// differ so that one at the edge does not change with every message.
func (c *Core) judgeSync(p *peer) {
	behind := c.behind(p)
	switch p.member.State {
	case roster.Starting, roster.Lagging:
		if !p.joined || p.match == 0 || behind > c.cfg.InSyncWindow {
			return
		}
		c.report(MemberInSync, p.member.ID, "at %d", p.match)
		p.member.State = roster.InSync
		c.owesDefrag(p)
	case roster.InSync:
		if behind <= c.cfg.LagLimit {
			return
		}
		c.setLagging(p, behind)
	default:
		return
	}
	c.publish()
}

// behind is how many entries a follower lacks.
func (c *Core) behind(p *peer) uint64 { return c.appended.Index - min(p.match, c.appended.Index) }

func (c *Core) setLagging(p *peer, behind uint64) {
	p.member.State = roster.Lagging
	c.report(MemberLagging, p.member.ID, "%d entries behind", behind)
}

// overtaken: the log no longer has what the follower needs next.
func (c *Core) overtaken(ev Overtaken) {
	p := c.lead.peer(ev.ID)
	if p == nil || !p.joined {
		return
	}
	c.emit(SendSnapshot(ev))
	if p.member.State == roster.InSync {
		c.setLagging(p, c.behind(p))
		c.publish()
		c.commit()
	}
}
