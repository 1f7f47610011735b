package core

import (
	"time"

	"github.com/dynast-io/dynast/shared/roster"
)

// takeoverState follows the steps of an inheritance, from the leader's death
// to the first breath of the new epoch.
type takeoverState struct {
	// mustLead: started with "up"; a lock held by another is the end.
	mustLead bool
	death    Death // of the leader; zero ID when there was none
	tryAt    time.Duration
	trying   bool // TryLock is out
	// holder is who holds the lock and was first seen stopped at stoppedSince.
	holder       roster.ID
	stoppedSince time.Duration

	step    takeoverStep
	began   time.Duration
	named   *Succession
	epoch   uint64
	seen    uint64 // the greatest epoch in any log
	lost    string
	writeAt time.Duration // when to write succession.json again; 0: not waiting
}

type takeoverStep uint8

const (
	stepAdopting takeoverStep = iota
	stepTakingSlot
	stepAdoptingBest
	stepBeginning // the first entry is on its way into the log
	stepSyncing
	stepNaming // succession.json
)

// standInLine: the leader is dead. The heir tries at once, the next in line
// a moment later, and so on: the lock decides, the line only avoids a crowd.
func (c *Core) standInLine() {
	c.become(Contending)
	rank := c.roster.Rank(c.self.Address)
	c.takeover.tryAt = c.now + time.Duration(rank)*c.cfg.TurnDelay
	if rank > 0 && c.roster.Successor.IsValid() {
		c.takeover.tryAt += handoverPatience * c.cfg.TurnDelay
	}
	if line := c.roster.Line(); rank > 0 && len(line) > 0 {
		if first, ok := c.roster.Find(line[0]); ok {
			c.emit(Expect{Leader: first})
		}
	}
	c.contend()
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
	case SuccessionWritten:
		c.becomeLeader()
	case SuccessionFailed:
		c.takeover.writeAt = c.now + 10*c.cfg.TurnDelay
		c.report(SuccessionBlocked, c.self.ID, "%s", ev.Reason)
	}
}

// lockHeld: another process was faster, or its last child has not let go of
// the descriptor yet. If it has named itself it is followed, else the lock is tried again.
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

// judgeHolder ends a process that took the lock and was stopped before it was
// named: nobody else could ever lead. One that runs is left to itself, however
// long it takes: on a full disk it waits for room, as any other would.
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

// lockTaken: nobody else can lead from here on until this process ends.
func (c *Core) lockTaken(ev LockTaken) {
	switch c.role {
	case Contending:
	case Following:
		// Turned to another leader while the attempt was under way. The lock
		// is here, so that leader is gone too.
		c.become(Contending)
	default:
		return // a second attempt by the process that has it already
	}
	c.become(Inheriting)
	c.emit(Unfollow{})
	t := &c.takeover
	t.trying, t.named, t.began = false, ev.Succession, c.now
	c.report(TakingOver, c.self.ID, "after epoch %d", c.roster.Epoch)
	switch {
	case ev.Succession == nil && !ev.Unreadable && !ev.AnyData:
		c.takeSlot(1) // a fresh cluster
	case ev.Succession == nil:
		c.adoptBest("succession.json is missing or damaged")
	case ev.Succession.Slot == c.self.Slot && c.hasCopy:
		c.beginEpoch() // the own log is the one that is named
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
	c.beginEpoch()
}

// adoptFailed falls back: from reading the named log to owning its slot where
// the own log is no prefix of it, then to the most complete log there is.
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

// unreadEpochs bounds how many epochs are left out after a possible loss, at
// random. A log that could not be read may hold the first entries of epochs whose heirs
// died before they were named, after a loss like this one too; an epoch that is used
// twice would make it pass for the beginning of another log.
const unreadEpochs = 1 << 20

// beginEpoch appends the first entry of the new epoch. It has no content, so
// that of two heirs of which one died before it was named, both wrote the same.
func (c *Core) beginEpoch() {
	t := &c.takeover
	t.epoch = max(c.roster.Epoch, c.appended.Epoch, t.seen)
	if t.named != nil {
		t.epoch = max(t.epoch, t.named.Epoch)
	}
	t.epoch++
	if t.lost != "" {
		t.epoch += 1 + c.cfg.Rand.Uint64N(unreadEpochs)
	}
	t.step = stepBeginning
	c.emit(BeginEpoch{Epoch: t.epoch})
}

func (c *Core) epochAppended(ev Appended) {
	if c.takeover.step != stepBeginning || ev.Last.Epoch != c.takeover.epoch {
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
	c.emit(WriteSuccession{Epoch: t.epoch})
}

// retrySuccession: a disk that is full may have room later, and the cluster
// has no leader until then.
func (c *Core) retrySuccession() {
	t := &c.takeover
	if t.writeAt > 0 && c.now >= t.writeAt {
		t.writeAt = 0
		c.emit(WriteSuccession{Epoch: t.epoch})
	}
}

// becomeLeader: succession.json names this member. Members that the last
// roster lists are adopted; that they are in sync still is taken from it, so
// that a write waits for them as it would have under the old leader.
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
		c.lead.want = old.Followers // what an operator asked the leader before for
	}
	c.roster = &roster.Roster{Epoch: t.epoch, Leader: c.self.Address, Client: c.cfg.Client}
	c.emit(Commit{Index: c.committed}, Lead{Epoch: t.epoch})
	c.report(TookOver, c.self.ID, "epoch %d at %s in %s", t.epoch, c.appended, (c.now - t.began).Round(10*time.Microsecond))
	for _, m := range old.Members {
		if m.Address != old.Leader && m.Address != c.self.Address && m.ID != t.death.ID && m.Slot != c.self.Slot {
			c.adoptSibling(m) // whoever had the slot that is the own one now is dead
		}
	}
	c.takeover = takeoverState{}
	c.publish()
	c.emit(PublishDeaths{Deaths: c.deaths})
	c.nextDefrag()
	c.ensureFollowers()
}
