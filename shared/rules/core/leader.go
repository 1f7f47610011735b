package core

import (
	"math"
	"time"

	"github.com/dynast-io/dynast/shared/rules/keeper"
	"github.com/dynast-io/dynast/shared/rules/plural"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// leadState is the state that only a leader has. It exists until the process ends, because a
// leader never becomes a follower again.
type leadState struct {
	peers map[roster.Address]*peer
	// keeper decides when a process is started for a slot. The keeper calls a slot a seat.
	keeper *keeper.Keeper
	// barred holds the slots that a stranger was found to own, each with the time until which
	// it is not tried again.
	barred map[int]time.Duration
	// strangers are processes that are not members and not in peers. Each of them is watched.
	strangers []*stranger
	degraded  bool
	// rising is the time until which missing followers do not make the cluster degraded, because
	// they are being started for the first time. It is 0 when they were in sync or one has failed.
	rising   time.Duration
	settled  time.Duration // no follower is started before this time, see Config.Settle
	stop     stopState
	handover handoverState
	defrag   defragState
	upgrade  upgradeState
	want     int // how many followers to keep
}

// peer is what the leader knows of a follower.
//
// match can be ahead of the leader's own appended index, when a follower's answer arrives
// before the leader's own Appended. match counts for the commit rule only while the state is
// InSync. killed is set once and stays set until Died.
type peer struct {
	member    roster.Member
	match     uint64
	known     uint64 // the version of the roster that it has for certain
	lastHeard time.Duration
	joined    bool // its stream in this epoch is open
	killed    bool
	reason    string // why it was killed
	// leaveBy is the time at which a follower that was told to leave is killed. It is 0 if the
	// follower was not told to leave.
	leaveBy time.Duration
	compact bool // defragmented for the current request
	// disputed is true if its keys differ from the leader's, and nobody can tell yet which are wrong.
	disputed bool
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
		p.lastHeard += late
	}
	for _, s := range l.strangers {
		s.endBy += late
	}
}

// peer returns the follower with this ID, or nil for any other process.
func (l *leadState) peer(id roster.ID) *peer {
	if p := l.peers[id.Address]; p != nil && p.member.ID == id {
		return p
	}
	return nil
}

// sorted returns the followers in the order of their addresses, so that the same events always
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

// wake returns the leader's next deadline, apart from its heartbeat.
func (l *leadState) wake(c *Core) time.Duration {
	wake := time.Duration(math.MaxInt64)
	if at, ok := l.keeper.Wake(); ok {
		wake = at
		if c.startsHeld() { // a start that is due cannot begin yet, so it is no reason to wake at once
			wake = max(at, c.now+c.cfg.HeartbeatInterval)
		}
	}
	if c.now < l.settled {
		wake = min(wake, l.settled)
	}
	for _, p := range l.peers {
		if !p.killed && c.isUp(p) {
			wake = min(wake, p.lastHeard+c.cfg.HeartbeatTimeout)
		}
		if !p.killed && p.leaveBy > 0 {
			wake = min(wake, p.leaveBy)
		}
	}
	for _, s := range l.strangers {
		if !s.ended {
			wake = min(wake, s.endBy)
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
		return // an answer to a request of an earlier role
	}
	switch ev := ev.(type) {
	case Spawned:
		c.spawned(ev.Member, ev.Build)
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
	case SlotOwned:
		c.slotOwned(ev.ID)
	case Working:
		c.strangerWorks(ev.ID)
		if p := c.lead.peer(ev.ID); p != nil {
			p.lastHeard = c.now
			c.lead.keeper.Working(c.now, p.member.Slot)
		}
	case ServingStopped:
		c.onAppended(Appended(ev)) // this can come before the Appended of the log writer
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

// publish builds a new roster from the peers and sends it to all members.
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
	if to := commitIndex(c.synced, c.acks(), c.cfg.MinSync); to > c.committed {
		c.committed = to
		c.emit(Commit{Index: to}, Replicate{})
	}
	c.judgeDegraded()
}

// acks returns the last index of each follower that is in sync.
func (c *Core) acks() []uint64 {
	var acks []uint64
	for _, p := range c.lead.peers {
		if p.member.State == roster.InSync {
			acks = append(acks, p.match)
		}
	}
	return acks
}

// judgeDegraded reports changes between degraded and not degraded. The first followers of a
// cluster that was just started are not missing before one of them has failed or is late.
func (c *Core) judgeDegraded() {
	degraded := len(c.acks()) < c.cfg.MinSync
	if degraded && c.now < c.lead.rising || c.lead.stop.phase != stopNot {
		return
	}
	c.lead.rising = 0
	if degraded == c.lead.degraded {
		return
	}
	c.lead.degraded = degraded
	if degraded {
		c.report(Degraded, c.self.ID, "fewer than min_sync=%d followers are in sync: writes are acknowledged with fewer copies", c.cfg.MinSync)
	} else {
		c.report(Restored, c.self.ID, "at least min_sync=%d followers are in sync", c.cfg.MinSync)
	}
}

func (c *Core) progress(ev Progress) {
	p := c.lead.peer(ev.ID)
	if p == nil {
		return
	}
	p.lastHeard = c.now
	p.match = max(p.match, ev.Index)
	p.known = max(p.known, ev.Known)
	c.judgeSync(p)
	c.commit()
	c.handoverStep()
}

// judgeSync moves a follower between InSync and Lagging. The two bounds differ, so that a
// follower at the edge does not change its state with every message.
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

// behind returns how many entries a follower lacks.
func (c *Core) behind(p *peer) uint64 { return c.appended.Index - min(p.match, c.appended.Index) }

func (c *Core) setLagging(p *peer, behind uint64) {
	p.member.State = roster.Lagging
	c.report(MemberLagging, p.member.ID, "%s behind", plural.Count(behind, "entry"))
}

// overtaken sends a snapshot to a follower, because the log no longer holds the next entry that
// it needs.
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
