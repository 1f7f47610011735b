package core

import (
	"time"

	"github.com/dynast-io/dynast/shared/roster"
)

// followState is what a follower knows of its leader.
type followState struct {
	leader roster.Member // zero: none known
	// heard is when the last message came, or when the leader was named.
	heard time.Duration
	// met: the leader was heard, or named by one that was. Only a leader that
	// was met is judged by its silence: a follower that never reached
	// anybody has no right to kill.
	met    bool
	booted time.Duration
	// stopped: the kernel shows the leader as stopped, since stoppedSince.
	stopped      bool
	stoppedSince time.Duration
	fenced       bool // SIGKILL is sent, its effect not yet seen
	dead         bool // its pidfd said so
	// commit is the leader's commit index; it may be ahead of the own log.
	commit uint64
}

func (c *Core) boot(ev Boot) {
	c.hasCopy, c.appended = ev.HasCopy, ev.Last
	c.synced, c.committed = 0, 0
	c.deaths = ev.Deaths
	c.follow.booted = c.now
	c.nextBeat = c.now + c.cfg.HeartbeatInterval
	if ev.Lead {
		c.become(Contending)
		c.takeover = takeoverState{mustLead: true}
		c.tryLock()
		return
	}
	c.roster = ev.Roster
	leader, ok := ev.Roster.LeaderMember()
	if !ok {
		c.exit(ExitUnreachable, "the roster that this follower was started with names no leader")
		return
	}
	c.followLeader(leader, false)
}

// followLeader turns to a leader. met: somebody vouches for it.
func (c *Core) followLeader(leader roster.Member, met bool) {
	old := c.follow
	if !old.leader.Address.IsValid() || old.leader.ID != leader.ID {
		if old.leader.Address.IsValid() {
			c.emit(Unwatch{ID: old.leader.ID})
		}
		c.emit(Watch{ID: leader.ID})
	}
	c.follow = followState{leader: leader, heard: c.now, met: met || old.met, booted: old.booted}
	c.emit(Follow{Leader: leader})
	c.report(FollowingLeader, leader.ID, "epoch %d", c.roster.Epoch)
}

func (c *Core) stepFollower(ev Event) {
	if c.role != Following && c.role != Contending {
		return // too late: this member inherits, or leads
	}
	switch ev := ev.(type) {
	case Heard:
		c.heard(ev)
	case Deaf:
		c.follow.heard = c.now
	case LeaderStopped:
		c.leaderStopped(ev)
	case Received:
		c.received(ev)
	case Installed:
		c.installed(ev)
	case Introduced:
		c.introduced(ev.Roster)
	case Dismissed:
		c.exit(ExitDone, "dismissed by the leader: %s", ev.Reason)
	}
}

func (c *Core) heard(ev Heard) {
	r := ev.Roster
	if r.Epoch < c.roster.Epoch {
		return // from a leader that is no more
	}
	if m, ok := r.LeaderMember(); ok && r.Epoch > c.roster.Epoch && m.ID != c.follow.leader.ID {
		c.introduced(r) // by its ID: the address may be a dead leader's, given out again
	}
	if r.Newer(c.roster) || c.roster.Version == 0 {
		if r.Successor != c.roster.Successor {
			c.emit(Beat{}) // the leader waits for everybody to know
		}
		c.roster = r
		if m, ok := r.LeaderMember(); ok && m.ID == c.follow.leader.ID {
			c.follow.leader = m
		}
		if r.Successor == c.self.Address {
			c.sync() // what is done now need not be done while nobody leads
		}
	}
	if ev.Deaths != nil {
		c.deaths = ev.Deaths
	}
	if c.role == Following {
		c.follow.heard, c.follow.met = c.now, true
		c.answerBeat()
	}
	c.follow.commit = max(c.follow.commit, ev.Commit)
	c.advanceCommit()
}

// answerBeat sends the own heartbeat right after something was heard, if the
// last was not just before, and gives the next one time to be an answer as well: then an
// idle cluster wakes its processes half as often. (A timer that is put off still fires
// at the moment to which it was set before. So it is set to after the next but one
// of the leader's heartbeats: it fires once for two of them.)
func (c *Core) answerBeat() {
	interval := c.cfg.HeartbeatInterval
	if c.now >= min(c.answerAt, c.nextBeat) {
		c.answerAt = c.now + interval*3/4
		c.nextBeat = c.now + 2*interval + interval/4
		c.emit(Beat{})
	}
}

// introduced turns to the leader of a newer roster.
func (c *Core) introduced(r *roster.Roster) {
	leader, ok := r.LeaderMember()
	if !ok || r.Epoch <= c.roster.Epoch || leader.Address == c.self.Address {
		return
	}
	c.roster = r
	if c.role == Contending {
		c.become(Following)
		c.takeover = takeoverState{}
	}
	c.followLeader(leader, true)
}

func (c *Core) received(ev Received) {
	if ev.Epoch != c.roster.Epoch {
		return
	}
	if !c.appended.Less(ev.Last) {
		return // seen before
	}
	c.follow.commit = max(c.follow.commit, ev.Commit)
	c.emit(Append{Ref: ev.Ref})
}

func (c *Core) installed(ev Installed) {
	c.hasCopy, c.appended = true, ev.Last
	c.synced, c.committed = ev.Last.Index, ev.Last.Index
	c.emit(Commit{Index: c.committed}, Ack(ev))
}

// advanceCommit applies what the leader has acknowledged as far as it is here.
// A log is known to be the beginning of the leader's once it ends with an entry of
// the leader's epoch: before that, after a loss, it may hold entries in the place
// of others.
func (c *Core) advanceCommit() {
	if c.appended.Epoch != c.roster.Epoch {
		return
	}
	if to := min(c.follow.commit, c.appended.Index); to > c.committed && c.hasCopy {
		c.committed = to
		c.emit(Commit{Index: to})
	}
}

func (c *Core) silenceDeadline() time.Duration {
	if c.follow.dead || c.follow.fenced {
		return c.now + c.cfg.HeartbeatInterval
	}
	if !c.follow.met && c.follow.stopped {
		return c.follow.stoppedSince + c.cfg.HeartbeatTimeout
	}
	if !c.follow.met {
		return c.follow.booted + c.cfg.Keeper.StartTimeout
	}
	return c.follow.heard + c.cfg.HeartbeatTimeout
}

// judgeLeader ends a leader that is silent for too long. Its lock is free
// only when it is gone, so the way to succeed is to end it and wait for Died.
func (c *Core) judgeLeader() {
	if c.follow.dead || c.follow.fenced || c.now < c.silenceDeadline() {
		return
	}
	if !c.follow.met && !c.follow.stopped {
		c.exit(ExitUnreachable, "leader %s was not reached within %s", c.follow.leader.ID, c.cfg.Keeper.StartTimeout)
		return
	}
	c.follow.fenced = true
	silent := c.now - c.follow.heard
	if !c.follow.met {
		silent = c.now - c.follow.stoppedSince
	}
	c.report(LeaderSilent, c.follow.leader.ID, "silent for %s", silent.Round(time.Millisecond))
	c.emit(Kill{ID: c.follow.leader.ID, Reason: "silent for " + silent.Round(time.Millisecond).String()})
}

// leaderStopped: a leader that was stopped before this follower reached it
// cannot be told from one that refuses it by its silence, but by the kernel's word.
// Without it nobody would be left to end it: all who had met it may be dead.
func (c *Core) leaderStopped(ev LeaderStopped) {
	f := &c.follow
	if ev.ID != f.leader.ID || ev.Stopped == f.stopped {
		return
	}
	f.stopped, f.stoppedSince = ev.Stopped, c.now
}

// died is told of a process that is gone for certain.
func (c *Core) died(ev Died) {
	if c.role == Leading {
		c.memberDied(ev)
		return
	}
	if ev.ID != c.follow.leader.ID || c.follow.dead {
		return
	}
	c.follow.dead = true
	reason := ev.Reason
	if c.follow.fenced {
		reason = "silent, killed"
	}
	if c.roster.Successor.IsValid() {
		reason = "handing over to " + c.roster.Successor.String() + ", " + reason
	}
	c.takeover.death = Death{ID: ev.ID, Reason: reason, At: ev.At}
	c.report(LeaderLost, ev.ID, "%s", reason)
	if c.role == Following {
		c.standInLine()
	}
}

// stopRequested ends this member in order; the leader ends the cluster.
func (c *Core) stopRequested(ev StopRequested) {
	if c.role == Leading {
		c.stopCluster(ev.Reason)
		return
	}
	c.exit(ExitDone, "%s", ev.Reason)
}
