package core

import (
	"time"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

// stopState is the progress of an orderly stop of the cluster. First the leader stops serving
// clients. Then it tells the followers to leave; they are marked as leaving, so that none of
// them takes over. Then the leader exits.
type stopState struct {
	phase    stopPhase
	reason   string
	deadline time.Duration
}

type stopPhase uint8

const (
	stopNot stopPhase = iota
	stopDraining
	stopDismissing
)

func (c *Core) stopCluster(reason string) {
	s := &c.lead.stop
	if s.phase != stopNot {
		s.deadline = c.now // a second request ends the waiting
		if s.phase == stopDraining {
			c.servingStopped()
		}
		return
	}
	c.giveUpHandover("the cluster is being stopped")
	*s = stopState{phase: stopDraining, reason: reason, deadline: c.now + c.cfg.StopTimeout}
	c.giveUpUpgrade("the cluster is being stopped")
	c.report(Stopping, c.self.ID, "%s", reason)
	for _, slot := range c.pendingSpawns() {
		c.emit(AbortSpawn{Slot: slot, Reason: "the cluster is being stopped"})
	}
	c.emit(StopServing{})
}

func (c *Core) servingStopped() {
	s := &c.lead.stop
	if h := &c.lead.handover; h.phase == handoverDraining {
		h.phase = handoverWaiting
		c.handoverStep()
		return
	}
	if s.phase != stopDraining {
		return
	}
	s.phase = stopDismissing
	for _, p := range c.sorted() {
		p.member.State = roster.Leaving
		c.report(MemberLeaving, p.member.ID, "%s", s.reason)
	}
	c.publish()
	for _, p := range c.sorted() {
		c.emit(Dismiss{ID: p.member.ID, Reason: s.reason})
	}
}

// stopStep exits once all followers are gone. It kills those that do not leave in time.
func (c *Core) stopStep() {
	s := &c.lead.stop
	if s.phase == stopDraining && c.now >= s.deadline {
		c.servingStopped()
		s.deadline = c.now + c.cfg.StopTimeout/4
	}
	if s.phase != stopDismissing {
		return
	}
	if c.now >= s.deadline {
		for _, p := range c.sorted() {
			c.kill(p, "did not leave in time")
		}
		for _, s := range c.lead.strangers {
			s.endBy = min(s.endBy, c.now)
		}
	}
	if len(c.lead.peers) == 0 && len(c.lead.strangers) == 0 && len(c.pendingSpawns()) == 0 {
		c.exit(ExitDone, "%s", s.reason)
	}
}
