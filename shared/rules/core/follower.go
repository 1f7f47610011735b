package core

import (
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

// followState is what a follower knows of its leader.
type followState struct {
	leader roster.Member // zero: no leader is known
	// lastHeard is the time of the last message from the leader, or the time when the leader was
	// named.
	lastHeard time.Duration
	// met says that this member has heard the leader, or that another member which has heard it
	// named it. Only such a leader is judged by its silence: a follower that never reached any
	// member must not kill one.
	met    bool
	booted time.Duration
	// stopped says that the kernel shows the leader as stopped. It was first seen so at
	// stoppedSince.
	stopped      bool
	stoppedSince time.Duration
	fenced       bool // SIGKILL was sent, but the death is not confirmed yet
	dead         bool // the pidfd confirmed the death
	// commit is the leader's commit index. It can be ahead of the own log.
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

// followLeader turns to a leader. met says that another member has named this leader.
func (c *Core) followLeader(leader roster.Member, met bool) {
	old := c.follow
	if !old.leader.Address.IsValid() || old.leader.ID != leader.ID {
		if old.leader.Address.IsValid() {
			c.emit(Unwatch{ID: old.leader.ID})
		}
		c.emit(Watch{ID: leader.ID})
	}
	c.follow = followState{leader: leader, lastHeard: c.now, met: met || old.met, booted: old.booted}
	c.emit(Follow{Leader: leader})
	c.report(FollowingLeader, leader.ID, "epoch %d", c.roster.Epoch)
}

func (c *Core) stepFollower(ev Event) {
	if c.role != Following && c.role != Contending {
		return // too late: this member is taking over or leads
	}
	switch ev := ev.(type) {
	case Heard:
		c.heard(ev)
	case SilenceExcused:
		c.follow.lastHeard = c.now
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
		return // from an earlier leader, which is dead
	}
	if m, ok := r.LeaderMember(); ok && r.Epoch > c.roster.Epoch && m.ID != c.follow.leader.ID {
		c.introduced(r) // compares the ID, because the address of a dead leader may be in use again
	}
	if r.Newer(c.roster) || c.roster.Version == 0 {
		if r.Successor != c.roster.Successor {
			c.emit(Beat{}) // the leader waits until every follower knows the successor
		}
		c.roster = r
		if m, ok := r.LeaderMember(); ok && m.ID == c.follow.leader.ID {
			c.follow.leader = m
		}
		if r.Successor == c.self.Address {
			c.sync() // work done now is not needed during the takeover
		}
	}
	if ev.Deaths != nil {
		c.deaths = ev.Deaths
	}
	if c.role == Following {
		c.follow.lastHeard, c.follow.met = c.now, true
		c.answerBeat()
	}
	c.follow.commit = max(c.follow.commit, ev.Commit)
	c.advanceCommit()
}

// answerBeat sends a heartbeat right after a message came, unless the last heartbeat was just
// before. It also postpones the next timed heartbeat, so that this one can be an answer as
// well. An idle cluster then wakes its processes half as often. (A timer that is postponed
// still fires at its earlier time. The timer is therefore set to just after the next but one of
// the leader's heartbeats, and fires once for two of them.)
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
		c.awaitNobody()
		c.takeover = takeoverState{}
	}
	c.followLeader(leader, true)
}

func (c *Core) received(ev Received) {
	if ev.Epoch != c.roster.Epoch {
		return
	}
	if !c.appended.Less(ev.Last) {
		return // already in the log
	}
	c.follow.commit = max(c.follow.commit, ev.Commit)
	c.emit(Append{Ref: ev.Ref})
}

func (c *Core) installed(ev Installed) {
	c.hasCopy, c.appended = true, ev.Last
	c.synced, c.committed = ev.Last.Index, ev.Last.Index
	c.emit(Commit{Index: c.committed}, Ack(ev))
}

// advanceCommit applies the entries that the leader has committed, as far as the own log holds
// them. The own log is certainly a prefix of the leader's only when its last entry has the
// leader's epoch. Before that, after a loss, it can hold other entries at the same indexes.
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
	return c.follow.lastHeard + c.cfg.HeartbeatTimeout
}

// judgeLeader kills a leader that was silent for too long. The leader's lock becomes free only
// when the leader is dead. So this member kills it and waits for Died.
func (c *Core) judgeLeader() {
	if c.follow.dead || c.follow.fenced || c.now < c.silenceDeadline() {
		return
	}
	if !c.follow.met && !c.follow.stopped {
		c.exit(ExitUnreachable, "leader %s was not reached within %s", c.follow.leader.ID, c.cfg.Keeper.StartTimeout)
		return
	}
	c.follow.fenced = true
	silent := c.now - c.follow.lastHeard
	if !c.follow.met {
		silent = c.now - c.follow.stoppedSince
	}
	c.report(LeaderSilent, c.follow.leader.ID, "silent for %s", silent.Round(time.Millisecond))
	c.emit(Kill{ID: c.follow.leader.ID, Reason: "silent for " + silent.Round(time.Millisecond).String()})
}

// leaderStopped notes whether the kernel shows the leader as stopped. A follower that never
// reached the leader cannot tell from silence alone whether the leader is stopped or refuses
// it. Without the kernel's answer, no process might be left to kill the leader: all followers
// that had reached it may be dead.
func (c *Core) leaderStopped(ev LeaderStopped) {
	f := &c.follow
	if ev.ID != f.leader.ID || ev.Stopped == f.stopped {
		return
	}
	f.stopped, f.stoppedSince = ev.Stopped, c.now
}

// died handles the certain death of a watched process.
func (c *Core) died(ev Died) {
	if c.role == Leading {
		c.memberDied(ev)
		return
	}
	if c.role == Contending && ev.ID == c.takeover.awaited {
		c.successorDied()
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
	kind := LeaderLost
	if c.roster.Successor.IsValid() {
		if !c.follow.fenced && !strings.HasPrefix(reason, "signal") {
			kind = LeaderLeft
		}
		reason = "handing over to " + c.roster.Successor.String() + ", " + reason
	}
	c.takeover.death = Death{ID: ev.ID, Reason: reason, At: ev.At}
	c.report(kind, ev.ID, "%s", reason)
	if c.role == Following {
		c.standInLine()
	}
}

// stopRequested ends this member in order. If this member leads, it stops the whole cluster.
func (c *Core) stopRequested(ev StopRequested) {
	if c.role == Leading {
		c.stopCluster(ev.Reason)
		return
	}
	c.exit(ExitDone, "%s", ev.Reason)
}
