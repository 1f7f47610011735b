package core

import (
	"time"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

// handoverState is the progress of a planned hand-over. First, all followers learn the name of
// the successor. Then the leader stops serving clients. Then the successor gets the rest of the
// log, and the leader exits.
//
// The rest is an ordinary takeover: the kernel frees the lock, the successor is first in line,
// and the others wait for it (awaitSuccessor). If the leader dies earlier, the order of
// succession is the same.
type handoverState struct {
	phase  handoverPhase
	to     roster.Address // valid exactly while phase is not handoverNot
	reason string
	ref    any // of the request, until it is answered
	// version is the version of the first roster that names the successor. At the deadline, the
	// leader stops waiting for followers that do not have it yet.
	version  uint64
	deadline time.Duration
	// condemn is set if the own copy must be thrown away; it holds the reason. The copy is not
	// condemned before another member has the whole log, because until then acknowledged writes
	// depend on it.
	condemn string
}

type handoverPhase uint8

const (
	handoverNot handoverPhase = iota
	// handoverAnnouncing: clients are still served, and the hand-over can still be given up.
	handoverAnnouncing
	handoverDraining
	// handoverWaiting: clients are not served. The leader exits as soon as a successor has the
	// whole log. It must not exit earlier: without a follower that would end the cluster.
	handoverWaiting
)

func (c *Core) handoverRequested(ev HandoverRequested) {
	to, refused := c.successor(ev.To)
	if refused != "" {
		c.emit(Answer{Ref: ev.Ref, Refused: refused})
		return
	}
	c.handOver(to, handoverState{reason: ev.Reason, ref: ev.Ref})
}

// successor checks whether the leader can hand over to a member. A zero address means the heir.
func (c *Core) successor(to roster.Address) (id roster.ID, refused string) {
	if busy := c.occupied(); busy != "" {
		return roster.ID{}, busy
	}
	if !to.IsValid() {
		heir, ok := c.roster.Heir()
		if !ok {
			return roster.ID{}, "no follower is in sync: there is nobody to hand over to"
		}
		to = heir
	}
	p := c.lead.peers[to]
	switch {
	case to == c.self.Address:
		return roster.ID{}, to.String() + " is already the leader"
	case p == nil:
		return roster.ID{}, "there is no member " + to.String()
	case !c.canSucceed(p):
		return roster.ID{}, to.String() + " is " + p.member.State.String() + ", not in sync"
	case p.member.Busy:
		return roster.ID{}, to.String() + " is defragmenting its database: try again when that is done"
	}
	return p.member.ID, ""
}

// occupied names the running operation that excludes a hand-over and everything that needs one.
// It returns "" if there is none.
func (c *Core) occupied() string {
	switch l := c.lead; {
	case l.stop.phase != stopNot:
		return "the cluster is being stopped"
	case l.handover.phase != handoverNot:
		return "the leader is already handing over to " + l.handover.to.String()
	case l.upgrade.phase != upgradeNot:
		return "the cluster is being upgraded to " + l.upgrade.build
	}
	return ""
}

func (c *Core) canSucceed(p *peer) bool {
	return p != nil && p.member.State == roster.InSync && !p.killed
}

// handOver begins a hand-over. The caller sets the reason, ref and condemn of h.
func (c *Core) handOver(to roster.ID, h handoverState) {
	h.phase, h.to = handoverAnnouncing, to.Address
	h.version, h.deadline = c.roster.Version+1, c.now+c.cfg.HeartbeatTimeout
	c.lead.handover = h
	c.report(HandingOver, to, "%s", h.reason)
	c.publish()
	c.handoverStep()
}

// handoverStep takes the hand-over as far as it can go now.
func (c *Core) handoverStep() {
	if c.role != Leading {
		return
	}
	switch c.lead.handover.phase {
	case handoverAnnouncing:
		c.announce()
	case handoverWaiting:
		c.leaveToSuccessor()
	}
}

// announce waits until every follower that could succeed knows the successor.
func (c *Core) announce() {
	h := &c.lead.handover
	if !c.canSucceed(c.lead.peers[h.to]) {
		c.giveUpHandover(h.to.String() + " is no longer in sync")
		c.nextDefrag() // the defragmentation waited for the hand-over
		return
	}
	if c.now < h.deadline {
		for _, p := range c.lead.peers {
			if c.canSucceed(p) && p.known < h.version {
				return
			}
		}
	}
	c.answerHandover("")
	h.phase = handoverDraining
	c.emit(StopServing{})
}

// answerHandover answers the request, once: either the hand-over is certain, or it was refused
// for this reason.
func (c *Core) answerHandover(refused string) {
	h := &c.lead.handover
	if h.ref == nil {
		return
	}
	answer := Answer{Ref: h.ref, Refused: refused}
	if p := c.lead.peers[h.to]; p != nil && refused == "" {
		answer.Member = p.member.ID
	}
	h.ref = nil
	c.emit(answer)
}

// giveUpHandover cancels the hand-over. The leader continues to lead, or begins a stop.
func (c *Core) giveUpHandover(why string) {
	h := &c.lead.handover
	if h.phase == handoverNot {
		return
	}
	c.answerHandover(why)
	c.report(HandingOver, c.self.ID, "given up: %s", why)
	*h = handoverState{}
	c.publish()
}

// leaveToSuccessor exits once the successor has the whole log. If the successor died or fell
// behind, the heir becomes the successor.
func (c *Core) leaveToSuccessor() {
	h := &c.lead.handover
	p := c.lead.peers[h.to]
	if !c.canSucceed(p) {
		if p = c.heirPeer(); p == nil {
			return
		}
		h.to = p.member.Address
		c.report(HandingOver, p.member.ID, "%s; the first choice died or fell behind", h.reason)
		c.publish()
	}
	if p.match < c.appended.Index || c.synced < c.appended.Index {
		return
	}
	if h.condemn != "" {
		c.emit(Condemn{Slot: c.self.Slot, Reason: h.condemn})
	}
	c.exit(ExitDone, "handed over to %s: %s", p.member.ID, h.reason)
}

// heirPeer returns the first follower in line that could succeed, whichever one was named.
func (c *Core) heirPeer() *peer {
	for _, a := range c.roster.Line() {
		if p := c.lead.peers[a]; c.canSucceed(p) {
			return p
		}
	}
	return nil
}
