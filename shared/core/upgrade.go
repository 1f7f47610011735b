package core

import (
	"fmt"
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/roster"
)

// upgradeState follows the replacement of all processes by another build. As many
// followers of it as are kept start beside the old ones, one first. Nothing is taken away
// before all of them are in sync, so a build that does not come up leaves everything as it
// was. Then the old followers leave, and the leader hands over to a new one, which starts
// what is missing with its own build.
//
// It is forgotten when the leader dies: the next one keeps as many followers as are wanted,
// those of its own build first.
type upgradeState struct {
	phase    upgradePhase
	build    string // of Spawn, nothing to the core
	ref      any    // of who asked
	patience time.Duration
	deadline time.Duration
	fresh    []int       // slots with a process of the new build, or with a start of one
	old      []roster.ID // followers to be retired
}

// ReplacedByBuild is the reason of a Dismiss in an upgrade.
const ReplacedByBuild = "a follower of another build is in its place"

type upgradePhase uint8

const (
	upgradeNot upgradePhase = iota
	// upgradeProving: one new follower starts. It and its like leave again if this fails.
	upgradeProving
	// upgradeFilling: so do the others.
	upgradeFilling
	// upgradeRetiring: all are in sync; the old ones leave. There is no way back.
	upgradeRetiring
)

func (c *Core) upgradeRequested(ev UpgradeRequested) {
	if busy := c.occupied(); busy != "" {
		c.emit(Answer{Ref: ev.Ref, Refused: busy})
		return
	}
	u := &c.lead.upgrade
	*u = upgradeState{phase: upgradeProving, build: ev.Build, ref: ev.Ref, patience: ev.Patience, deadline: c.now + ev.Patience}
	for _, p := range c.sorted() {
		if !p.member.ByHand && !p.killed && p.member.State != roster.Leaving {
			u.old = append(u.old, p.member.ID)
		}
	}
	c.report(Upgrading, c.self.ID, "starts followers of %s", ev.Build)
	c.startFresh()
}

// startFresh starts one more follower of the new build.
func (c *Core) startFresh() {
	u := &c.lead.upgrade
	slot := c.freeSlot()
	c.lead.keeper.Take(c.now, slot)
	u.fresh = append(u.fresh, slot)
	c.report(Spawning, roster.ID{}, "slot %d, of %s", slot, u.build)
	c.emit(Spawn{Slot: slot, Build: u.build})
}

// spawnBuild is what a follower that is missing is started from: the proven new build
// once the old ones leave. Empty is the leader's own.
func (c *Core) spawnBuild(slot int) string {
	u := &c.lead.upgrade
	if u.phase != upgradeRetiring {
		return ""
	}
	u.fresh = append(u.fresh, slot)
	return u.build
}

// upgradeStep goes on with an upgrade as far as it can.
func (c *Core) upgradeStep() {
	if c.role != Leading {
		return
	}
	switch u := &c.lead.upgrade; u.phase {
	case upgradeProving, upgradeFilling:
		if c.now >= u.deadline {
			c.giveUpUpgrade(fmt.Sprintf("its followers were not in sync within %s", u.patience))
			return
		}
		if !c.freshInSync() {
			return
		}
		if missing := max(c.lead.want, 1) - len(u.fresh); missing > 0 {
			u.phase = upgradeFilling
			for ; missing > 0; missing-- {
				c.startFresh()
			}
			return
		}
		c.retireOld()
	case upgradeRetiring:
		c.upgradeLeader()
	}
}

func (c *Core) freshInSync() bool {
	for _, slot := range c.lead.upgrade.fresh {
		if !c.canSucceed(c.inSlot(slot)) {
			return false
		}
	}
	return true
}

func (c *Core) retireOld() {
	u := &c.lead.upgrade
	u.phase, u.deadline = upgradeRetiring, c.now+u.patience
	c.report(Upgrading, c.self.ID, "%d followers of %s are in sync, the old ones leave", len(u.fresh), u.build)
	for _, id := range u.old {
		if p := c.lead.peer(id); p != nil && !p.killed && p.member.State != roster.Leaving {
			c.retire(p, ReplacedByBuild)
		}
	}
	c.upgradeLeader()
}

// upgradeLeader hands over once the old followers are gone: the rest is up to the new leader.
func (c *Core) upgradeLeader() {
	u := &c.lead.upgrade
	if slices.ContainsFunc(u.old, func(id roster.ID) bool { return c.lead.peer(id) != nil }) {
		return
	}
	for _, a := range c.roster.Line() {
		p := c.lead.peers[a]
		if c.canSucceed(p) && !p.member.Busy && slices.Contains(u.fresh, p.member.Slot) {
			ref, build := u.ref, u.build
			*u = upgradeState{}
			c.handOver(p.member.ID, handoverState{reason: "upgrade to " + build, ref: ref})
			return
		}
	}
	if c.now >= u.deadline {
		c.giveUpUpgrade("the old followers have left, and no new one is in sync to hand over to")
	}
}

// upgradeFailed: a process of the new build did not start, or died.
func (c *Core) upgradeFailed(slot int, reason string) {
	u := &c.lead.upgrade
	if (u.phase == upgradeProving || u.phase == upgradeFilling) && slices.Contains(u.fresh, slot) {
		c.giveUpUpgrade(reason)
	}
}

// giveUpUpgrade answers who asked, and lets the new followers go while the old ones are
// all there.
func (c *Core) giveUpUpgrade(why string) {
	u := c.lead.upgrade
	if u.phase == upgradeNot {
		return
	}
	c.lead.upgrade = upgradeState{}
	c.report(Upgrading, c.self.ID, "given up: %s", why)
	told := why
	if u.phase != upgradeRetiring {
		told = "everything is as it was: " + why
	}
	c.emit(Answer{Ref: u.ref, Refused: told})
	if u.phase == upgradeRetiring || c.lead.stop.phase != stopNot {
		return
	}
	for _, slot := range u.fresh {
		p := c.inSlot(slot)
		switch {
		case p == nil && c.lead.keeper.IsPending(slot):
			c.emit(AbortSpawn{Slot: slot, Reason: "the upgrade was given up"})
		case p != nil && !p.killed && p.member.State != roster.Leaving:
			c.retire(p, "the upgrade was given up")
		}
	}
}
