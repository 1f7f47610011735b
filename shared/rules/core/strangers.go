package core

import (
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

// A stranger is a living process of the cluster that the leader does not count as a member. It
// owns a slot that an earlier leader gave it, or it joined when it was no longer needed. The
// leader watches it until it is gone, so that no process is left running without any leader to
// end it.
type stranger struct {
	id    roster.ID
	endBy time.Duration // the time at which it is killed
	ended bool          // SIGKILL was sent
}

// stranger returns the stranger with this ID, or nil for any other process.
func (l *leadState) stranger(id roster.ID) *stranger {
	for _, s := range l.strangers {
		if s.id == id {
			return s
		}
	}
	return nil
}

// meetStranger begins to watch a process. The process must join or leave before endBy.
func (c *Core) meetStranger(id roster.ID, endBy time.Duration) {
	l := c.lead
	if s := l.stranger(id); s != nil {
		s.endBy = min(s.endBy, endBy)
		return
	}
	l.strangers = append(l.strangers, &stranger{id: id, endBy: endBy})
	c.emit(Watch{ID: id})
}

// sendAway tells a process that is not needed to leave, and watches it until it is gone.
func (c *Core) sendAway(id roster.ID) {
	c.meetStranger(id, c.now+c.cfg.StopTimeout)
	c.emit(Dismiss{ID: id, Reason: "not needed"})
}

// slotOwned handles a living process that owns a slot. It gets as much time to join as a
// process that was just started.
func (c *Core) slotOwned(id roster.ID) {
	if id == c.self.ID || c.lead.peer(id) != nil || c.lead.stranger(id) != nil {
		return
	}
	c.report(StrangerFound, id, "owns a slot but is not a member yet")
	c.meetStranger(id, c.now+c.cfg.Keeper.StartTimeout)
}

// strangerWorks gives more time to join to a process that is busy opening its copy.
func (c *Core) strangerWorks(id roster.ID) {
	if s := c.lead.stranger(id); s != nil && !s.ended {
		s.endBy = max(s.endBy, c.now+c.cfg.Keeper.StartTimeout)
	}
}

// endStrangers kills the strangers whose time is over.
func (c *Core) endStrangers() {
	for _, s := range c.lead.strangers {
		if !s.ended && c.now >= s.endBy {
			s.ended = true
			const reason = "not a member, and it neither joined nor left in time"
			c.report(MemberSilent, s.id, reason)
			c.emit(Kill{ID: s.id, Reason: reason})
		}
	}
}

// strangerDied reports whether the dead process was a stranger. If so, its slot is free again.
func (c *Core) strangerDied(ev Died) bool {
	if c.lead.stranger(ev.ID) == nil {
		return false
	}
	c.forgetStranger(ev.ID)
	clear(c.lead.barred)
	return true
}

// forgetStranger removes a process from the list of strangers. It reports whether the process
// was in the list; if it was, the process is already watched.
func (c *Core) forgetStranger(id roster.ID) bool {
	l := c.lead
	n := len(l.strangers)
	l.strangers = slices.DeleteFunc(l.strangers, func(s *stranger) bool { return s.id == id })
	return len(l.strangers) < n
}
