package core

import (
	"time"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

// takeoverState is the progress of a takeover, from the death of the leader to the first entry
// of the new epoch.
type takeoverState struct {
	// mustLead says that the process was started with "up". It exits if another process holds
	// the lock.
	mustLead bool
	death    Death // the death of the leader; its ID is zero if no leader died
	tryAt    time.Duration
	trying   bool // a TryLock has no answer yet
	// awaited is the successor that the dead leader named. This member watches it while it
	// waits for it. It is zero when this member waits for no successor.
	awaited roster.ID
	// holder is a stopped process that holds the lock. This member first saw it stopped at
	// stoppedSince.
	holder       roster.ID
	stoppedSince time.Duration

	step  takeoverStep
	began time.Duration
	named *Succession
	// claims is the content that claims.json must get. claiming says that the file does not
	// have it yet. leap is the smallest epoch that this member may claim; it is 0 unless
	// claims.json is missing or damaged.
	claims   Claims
	claiming bool
	claimed  bool // this process has claimed an epoch
	leap     uint64
	adopted  bool   // the own log holds everything that it must hold
	seen     uint64 // the greatest epoch in any log that was read
	lost     string
	writeAt  time.Duration // when to try again to write claims.json or succession.json; 0: no retry is due
}

type takeoverStep uint8

const (
	stepAdopting takeoverStep = iota
	stepTakingSlot
	stepAdoptingBest
	stepBeginning // the first entry is being appended to the log
	stepSyncing
	stepNaming // succession.json is being written
)

// standInLine starts the contest for the lock after the death of the leader. The heir tries at
// once, and each next follower in line tries TurnDelay later. Only the lock decides which one
// leads; the line only keeps them from trying all at once.
func (c *Core) standInLine() {
	c.become(Contending)
	rank := c.roster.Rank(c.self.Address)
	c.takeover.tryAt = c.now + time.Duration(rank)*c.cfg.TurnDelay
	if s, named := c.roster.Find(c.roster.Successor); named && rank > 0 {
		c.awaitSuccessor(s.ID)
	}
	if line := c.roster.Line(); rank > 0 && len(line) > 0 {
		if first, ok := c.roster.Find(line[0]); ok {
			c.emit(Expect{Leader: first})
		}
	}
	c.contend()
}

// awaitSuccessor delays this member, so that the named successor can take the lock first. The
// delay is as long as a leader may be silent. A successor that is merely late on a busy host
// thus keeps its turn, because the operator chose it. If the successor dies, the delay ends at
// once.
func (c *Core) awaitSuccessor(id roster.ID) {
	c.takeover.awaited = id
	c.takeover.tryAt += c.cfg.HeartbeatTimeout
	c.emit(Watch{ID: id})
}

// awaitNobody undoes awaitSuccessor, because another member or this one leads now.
func (c *Core) awaitNobody() {
	if id := c.takeover.awaited; id != (roster.ID{}) {
		c.takeover.awaited = roster.ID{}
		c.emit(Unwatch{ID: id})
	}
}

// successorDied moves the other members in line up by one place.
func (c *Core) successorDied() {
	c.takeover.awaited = roster.ID{}
	turn := time.Duration(c.roster.Rank(c.self.Address)-1) * c.cfg.TurnDelay
	c.takeover.tryAt = min(c.takeover.tryAt, c.now+turn)
}

func (c *Core) contend() {
	if !c.takeover.trying && c.now >= c.takeover.tryAt {
		c.tryLock()
	}
}

func (c *Core) tryLock() {
	c.takeover.trying = true
	c.takeover.tryAt = c.now + c.cfg.LockRetry
	c.emit(TryLock{})
}

func (c *Core) stepTakeover(ev Event) {
	switch ev := ev.(type) {
	case LockTaken:
		c.lockTaken(ev)
	case LockHeld:
		c.lockHeld(ev)
	case Adopted:
		c.adopted(ev)
	case AdoptFailed:
		c.adoptFailed(ev)
	case Claimed:
		if c.role == Inheriting {
			c.takeover.claiming, c.takeover.claimed = false, true
			c.beginEpoch()
		}
	case ClaimFailed:
		c.writeAgain(ev.Reason)
	case SuccessionWritten:
		c.becomeLeader()
	case SuccessionFailed:
		c.writeAgain(ev.Reason)
	}
}

// writeAgain schedules another attempt to write a state file. A full disk may have room by
// then, and the cluster has no leader until the file is written.
func (c *Core) writeAgain(reason string) {
	c.takeover.writeAt = c.now + 10*c.cfg.TurnDelay
	c.report(SuccessionBlocked, c.self.ID, "%s", reason)
}

// lockHeld handles a lock that another process holds. Either that process was faster, or the
// lock belongs to a dead leader whose child has not closed the descriptor yet. If
// succession.json names a new leader, this member follows it. Otherwise it tries the lock
// again.
func (c *Core) lockHeld(ev LockHeld) {
	c.takeover.trying = false
	if c.role != Contending {
		return
	}
	s := ev.Succession
	if c.takeover.mustLead {
		if s != nil {
			c.exit(ExitLocked, "the data directory belongs to the leader %s", s.Leader)
		} else {
			c.exit(ExitLocked, "another process holds the lock of the data directory")
		}
		return
	}
	if s == nil || s.Epoch <= c.roster.Epoch {
		c.judgeHolder(ev)
		return
	}
	leader := roster.Member{ID: s.Leader, Role: roster.Leader, State: roster.Serving, Slot: s.Slot}
	r := c.roster.Clone()
	r.Epoch, r.Version, r.Leader, r.Successor = s.Epoch, 0, s.Leader.Address, roster.Address{}
	r.Members = append(removeMembers(r.Members, s.Leader.Address, c.takeover.death.ID.Address), leader)
	r.Sort()
	c.introduced(r)
}

// judgeHolder kills a process that took the lock and was then stopped by a signal before
// succession.json named it. As long as it lives, no other process can lead. A holder that runs
// is left alone, however long it takes: on a full disk it waits for room, as any other member
// would.
func (c *Core) judgeHolder(ev LockHeld) {
	t := &c.takeover
	switch {
	case !ev.HolderStopped:
		t.holder = roster.ID{}
	case t.holder != ev.Holder:
		t.holder, t.stoppedSince = ev.Holder, c.now
	case c.now-t.stoppedSince >= c.cfg.HeartbeatTimeout:
		reason := "stopped in the middle of a takeover"
		c.report(LeaderSilent, ev.Holder, "%s", reason)
		c.emit(Watch{ID: ev.Holder}, Kill{ID: ev.Holder, Reason: reason}, Unwatch{ID: ev.Holder})
		t.holder = roster.ID{}
	}
}

func removeMembers(ms []roster.Member, gone ...roster.Address) []roster.Member {
	kept := make([]roster.Member, 0, len(ms)+1)
	for _, m := range ms {
		drop := false
		for _, a := range gone {
			drop = drop || m.Address == a
		}
		if !drop {
			kept = append(kept, m)
		}
	}
	return kept
}

// lockTaken starts the takeover. No other process can lead until this one ends.
func (c *Core) lockTaken(ev LockTaken) {
	switch c.role {
	case Contending:
	case Following:
		// This member turned to another leader while the attempt was under way. It has the lock
		// now, so that leader is gone too.
		c.become(Contending)
	default:
		return // a second attempt, although this process already has the lock
	}
	c.become(Inheriting)
	c.awaitNobody()
	c.emit(Unfollow{})
	t := &c.takeover
	t.trying, t.named, t.began = false, ev.Succession, c.now
	c.report(TakingOver, c.self.ID, "after epoch %d", c.roster.Epoch)
	fresh := ev.Succession == nil && !ev.Unreadable && !ev.AnyData
	c.readClaims(ev, fresh)
	switch {
	case fresh:
		c.takeSlot(1)
	case ev.Succession == nil:
		c.adoptBest("succession.json is missing or damaged")
	case ev.Succession.Slot == c.self.Slot && c.hasCopy:
		t.adopted = true // succession.json names the own log
		c.beginEpoch()
	case !c.hasCopy:
		c.takeSlot(ev.Succession.Slot)
	default:
		t.step = stepAdopting
		c.emit(Adopt{Slot: ev.Succession.Slot})
	}
}

func (c *Core) takeSlot(slot int) {
	c.takeover.step = stepTakingSlot
	c.emit(TakeSlot{Slot: slot})
}

func (c *Core) adoptBest(reason string) {
	c.takeover.step = stepAdoptingBest
	c.emit(AdoptBest{Reason: reason})
}

func (c *Core) adopted(ev Adopted) {
	if c.role != Inheriting {
		return
	}
	c.self.Slot, c.hasCopy = ev.Slot, true
	c.appended, c.synced = ev.Last, 0
	c.takeover.seen = ev.Seen
	if ev.Lost != "" {
		c.takeover.lost = ev.Lost
		c.report(LossPossible, c.self.ID, "%s", ev.Lost)
	}
	c.takeover.adopted = true
	c.beginEpoch()
}

// adoptFailed tries the next best way. If this member cannot continue from the named log
// because its own log is no prefix of it, it takes over the slot of the named log. If another
// step fails, it adopts the most complete log that exists.
func (c *Core) adoptFailed(ev AdoptFailed) {
	if c.role != Inheriting {
		return
	}
	t := &c.takeover
	switch {
	case ev.Fatal || t.step == stepAdoptingBest:
		c.exit(ExitCorrupt, "%s", ev.Reason)
	case t.step == stepAdopting && ev.Diverged:
		c.takeSlot(t.named.Slot)
	default:
		c.adoptBest(ev.Reason)
	}
}

// readClaims claims the next epoch while the log is still being read. That is safe when the
// claims are known, because they are never below the epoch of any log. A cold start does not
// claim yet: it changes nothing before it has found a copy to lead with.
func (c *Core) readClaims(ev LockTaken, fresh bool) {
	t := &c.takeover
	switch {
	case ev.Claims != nil:
		t.claims = *ev.Claims
	case !fresh || ev.ClaimsUnreadable:
		// A log that cannot be read may hold any epoch. The wall clock puts this leap after
		// every earlier one; a random number would not.
		t.leap = uint64(max(ev.At.Unix(), 0))
		return
	}
	if !t.mustLead {
		c.claim(c.leastEpoch())
	}
}

// leastEpoch returns the smallest epoch that this member may lead. It is greater than every
// known epoch.
func (c *Core) leastEpoch() uint64 {
	t := &c.takeover
	greatest := max(c.roster.Epoch, c.appended.Epoch, t.seen, t.claims.Epoch)
	if t.named != nil {
		greatest = max(greatest, t.named.Epoch)
	}
	return max(greatest+1, t.leap)
}

func (c *Core) claim(epoch uint64) {
	t := &c.takeover
	t.claims, t.claiming = t.claims.next(epoch, t.named), true
	c.emit(Claim{Claims: t.claims})
}

// beginEpoch appends the first entry of the new epoch, once the epoch is claimed and the own
// log holds everything before it. The entry has no content, because no client was promised
// anything about it.
func (c *Core) beginEpoch() {
	t := &c.takeover
	if t.claiming || !t.adopted || t.step >= stepBeginning {
		return
	}
	if epoch := t.claims.Epoch; !t.claimed || epoch <= c.appended.Epoch || epoch <= t.seen {
		c.claim(c.leastEpoch())
		return
	}
	t.step = stepBeginning
	c.emit(BeginEpoch{Epoch: t.claims.Epoch})
}

func (c *Core) epochAppended(ev Appended) {
	if c.takeover.step != stepBeginning || ev.Last.Epoch != c.takeover.claims.Epoch {
		return
	}
	c.hasCopy = true
	c.takeover.step = stepSyncing
	c.syncing = true
	c.emit(Sync{})
}

func (c *Core) epochSynced() {
	t := &c.takeover
	if t.step != stepSyncing {
		return
	}
	if c.synced < c.appended.Index {
		c.syncing = true
		c.emit(Sync{})
		return
	}
	t.step = stepNaming
	c.emit(WriteSuccession{Epoch: t.claims.Epoch})
}

// retryWrite writes the state file again that could not be written before.
func (c *Core) retryWrite() {
	t := &c.takeover
	if t.writeAt > 0 && c.now >= t.writeAt {
		t.writeAt = 0
		if t.claiming {
			c.emit(Claim{Claims: t.claims})
			return
		}
		c.emit(WriteSuccession{Epoch: t.claims.Epoch})
	}
}

// becomeLeader makes this member the leader, after succession.json was written with its name.
// It adopts the members that the last roster lists. Those that were in sync there still count
// as in sync, so a write waits for them as it would have under the old leader.
func (c *Core) becomeLeader() {
	if c.role != Inheriting {
		return
	}
	t := c.takeover
	c.become(Leading)
	c.committed = c.appended.Index
	c.lead = newLeadState(c)
	old := c.roster
	c.self.Role, c.self.State = roster.Leader, roster.Serving
	if t.death.ID.Address.IsValid() {
		t.death.ReplacedBy = c.self.Address
		c.recordDeath(t.death)
	}
	if old.Epoch > 0 {
		c.lead.want = old.Followers // an operator may have changed it under the earlier leader
	} else {
		c.lead.rising = c.now + c.cfg.Keeper.StartTimeout
	}
	c.roster = &roster.Roster{Epoch: t.claims.Epoch, Leader: c.self.Address, Client: c.cfg.Client}
	c.emit(Commit{Index: c.committed}, Lead{Epoch: t.claims.Epoch})
	c.report(TookOver, c.self.ID, "epoch %d at %s in %s", t.claims.Epoch, c.appended, (c.now - t.began).Round(10*time.Microsecond))
	for _, m := range old.Members {
		if m.Address != old.Leader && m.Address != c.self.Address && m.ID != t.death.ID && m.Slot != c.self.Slot {
			c.adoptSibling(m) // a member that had the slot of this process is dead
		}
	}
	c.takeover = takeoverState{}
	c.publish()
	c.emit(PublishDeaths{Deaths: c.deaths})
	c.nextDefrag()
	c.ensureFollowers()
}
