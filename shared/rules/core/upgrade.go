package core

import (
	"fmt"
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/rules/plural"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// upgradeState is the progress of an upgrade, which replaces all processes by another build.
// The leader starts as many followers of the new build as it keeps, beside the old ones; one of
// them starts first. No old follower leaves before all new ones are in sync, so a build that
// does not start changes nothing. Then the old followers leave, and the leader hands over to a
// new one. The new leader starts missing followers from its own build.
//
// The upgrade is forgotten when the leader dies. The next leader keeps the wanted number of
// followers, and prefers those of its own build.
type upgradeState struct {
	phase    upgradePhase
	build    string // passed on in Spawn; the core does not interpret it
	ref      any    // of the request
	patience time.Duration
	deadline time.Duration
	fresh    []freshStart
	old      []roster.ID // the followers that must leave
}

// freshStart is a start of the new build. The process is what counts, not the slot: a process
// of an earlier start can come up late and take the slot.
type freshStart struct {
	slot  int
	build string
	id    roster.ID // zero until the handshake of the process
}

// is reports whether f is the start o and its process is not known yet.
func (f freshStart) is(o freshStart) bool {
	return f.id == (roster.ID{}) && f.slot == o.slot && f.build == o.build
}

// ReplacedByBuild is the reason in a Dismiss when an upgrade retires a follower.
const ReplacedByBuild = "replaced by a follower of another build"

type upgradePhase uint8

const (
	upgradeNot upgradePhase = iota
	// upgradeProving: one new follower is starting. If it fails, all new followers leave again.
	upgradeProving
	// upgradeFilling: the other new followers are starting. A failure has the same effect.
	upgradeFilling
	// upgradeRetiring: all new followers are in sync and the old ones leave. This cannot be
	// undone.
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
	c.report(Upgrading, c.self.ID, "starting followers of build %s", ev.Build)
	c.startFresh()
}

// startFresh starts one more follower of the new build.
func (c *Core) startFresh() {
	u := &c.lead.upgrade
	slot := c.freeSlot()
	c.lead.keeper.Take(c.now, slot)
	u.fresh = append(u.fresh, freshStart{slot: slot, build: u.build})
	c.report(Spawning, roster.ID{}, "slot %d, build %s", slot, u.build)
	c.emit(Spawn{Slot: slot, Build: u.build})
}

// spawnBuild returns the build from which a missing follower is started. Once the old followers
// leave, that is the new build. An empty string means the leader's own build.
func (c *Core) spawnBuild(slot int) string {
	u := &c.lead.upgrade
	if u.phase != upgradeRetiring {
		return ""
	}
	u.fresh = append(u.fresh, freshStart{slot: slot, build: u.build})
	return u.build
}

// upgradeStep takes the upgrade as far as it can go now.
func (c *Core) upgradeStep() {
	if c.role != Leading {
		return
	}
	switch u := &c.lead.upgrade; u.phase {
	case upgradeProving, upgradeFilling:
		if c.now >= u.deadline {
			c.giveUpUpgrade(fmt.Sprintf("the new followers were not in sync within %s", u.patience))
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
	for _, f := range c.lead.upgrade.fresh {
		if !c.canSucceed(c.lead.peer(f.id)) {
			return false
		}
	}
	return true
}

// upgradeStarted notes the process that belongs to a start of the new build.
func (c *Core) upgradeStarted(m roster.Member, build string) {
	for i, f := range c.lead.upgrade.fresh {
		if f.is(freshStart{slot: m.Slot, build: build}) {
			c.lead.upgrade.fresh[i].id = m.ID
		}
	}
}

func (c *Core) retireOld() {
	u := &c.lead.upgrade
	u.phase, u.deadline = upgradeRetiring, c.now+u.patience
	c.report(Upgrading, c.self.ID, "in sync: %s of build %s; the old followers leave now", plural.Count(len(u.fresh), "follower"), u.build)
	for _, id := range u.old {
		if p := c.lead.peer(id); p != nil && !p.killed && p.member.State != roster.Leaving {
			c.retire(p, ReplacedByBuild)
		}
	}
	c.upgradeLeader()
}

// upgradeLeader hands over to a new follower once the old ones are gone. The new leader does
// the rest.
func (c *Core) upgradeLeader() {
	u := &c.lead.upgrade
	if slices.ContainsFunc(u.old, func(id roster.ID) bool { return c.lead.peer(id) != nil }) {
		return
	}
	for _, a := range c.roster.Line() {
		p := c.lead.peers[a]
		isFresh := func(f freshStart) bool { return f.id == p.member.ID }
		if c.canSucceed(p) && !p.member.Busy && slices.ContainsFunc(u.fresh, isFresh) {
			ref, build := u.ref, u.build
			*u = upgradeState{}
			c.handOver(p.member.ID, handoverState{reason: "upgrade to " + build, ref: ref})
			return
		}
	}
	if c.now >= u.deadline {
		c.giveUpUpgrade("the old followers have left, but no new follower is in sync to take over")
	}
}

// upgradeLost gives up the upgrade if a process of the new build died or did not start. The
// process is identified by its ID or, while that is unknown, by its start.
func (c *Core) upgradeLost(id roster.ID, start freshStart, reason string) {
	u := &c.lead.upgrade
	lost := func(f freshStart) bool { return f.is(start) || f.id == id && id != (roster.ID{}) }
	if (u.phase == upgradeProving || u.phase == upgradeFilling) && slices.ContainsFunc(u.fresh, lost) {
		u.fresh = slices.DeleteFunc(u.fresh, lost)
		c.giveUpUpgrade(reason)
	}
}

// giveUpUpgrade answers the request. If no old follower was told to leave yet, it makes the new
// followers leave.
func (c *Core) giveUpUpgrade(why string) {
	u := c.lead.upgrade
	if u.phase == upgradeNot {
		return
	}
	c.lead.upgrade = upgradeState{}
	c.report(Upgrading, c.self.ID, "given up: %s", why)
	told := why
	if u.phase != upgradeRetiring {
		told = "nothing was changed: " + why
	}
	c.emit(Answer{Ref: u.ref, Refused: told})
	if u.phase == upgradeRetiring || c.lead.stop.phase != stopNot {
		return
	}
	for _, f := range u.fresh {
		p := c.lead.peer(f.id)
		switch {
		case f.id == (roster.ID{}):
			c.emit(AbortSpawn{Slot: f.slot, Reason: "the upgrade was given up"})
		case p != nil && !p.killed && p.member.State != roster.Leaving:
			c.retire(p, "the upgrade was given up")
		}
	}
}
