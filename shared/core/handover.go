package core

import (
	"time"

	"github.com/dynast-io/dynast/shared/roster"
)

// handoverPatience is how many turns longer the others wait while a successor
// is named.
const handoverPatience = 10

// handoverState follows a hand-over on purpose. First everybody learns who is to
// succeed, then clients are served no longer, then the successor has everything and
// the leader ends; what follows is a takeover like any other: the kernel frees the
// lock, the successor is first in line. A leader that dies before is succeeded in
// the same order.
type handoverState struct {
	phase  handoverPhase
	to     roster.Address // valid exactly while phase is not handoverNot
	reason string
	ref    any // of who asked, until it is answered
	// version is that of the first roster with the successor; who does not know
	// it at the deadline is not waited for.
	version  uint64
	deadline time.Duration
	// condemn, if set, is why the own copy is to be thrown away. Not before another one
	// has everything: until then its log is what acknowledged writes rest on.
	condemn string
}

type handoverPhase uint8

const (
	handoverNot handoverPhase = iota
	// handoverAnnouncing: clients are served as ever, and it can be given up.
	handoverAnnouncing
	handoverDraining
	// handoverWaiting: nobody is served; the leader ends as soon as a successor
	// has all of the log. It must not before: with no follower it would be the end
	// of the cluster.
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

// successor judges whom the leadership can be handed over to; zero is the heir.
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
		return roster.ID{}, to.String() + " leads already"
	case p == nil:
		return roster.ID{}, "there is no member " + to.String()
	case !c.canSucceed(p):
		return roster.ID{}, to.String() + " is " + p.member.State.String() + ", not in sync"
	case p.member.Busy:
		return roster.ID{}, to.String() + " is rewriting its database; ask again when that is done"
	}
	return p.member.ID, ""
}

// occupied says what the cluster is in the middle of that excludes a hand-over
// and what depends on one.
func (c *Core) occupied() string {
	switch l := c.lead; {
	case l.stop.phase != stopNot:
		return "the cluster is being stopped"
	case l.handover.phase != handoverNot:
		return "the leader is handing over to " + l.handover.to.String() + " already"
	case l.upgrade.phase != upgradeNot:
		return "the cluster is being upgraded to " + l.upgrade.build
	}
	return ""
}

func (c *Core) canSucceed(p *peer) bool {
	return p != nil && p.member.State == roster.InSync && !p.killed
}

// handOver begins; of h the reason and who asked are given.
func (c *Core) handOver(to roster.ID, h handoverState) {
	h.phase, h.to = handoverAnnouncing, to.Address
	h.version, h.deadline = c.roster.Version+1, c.now+c.cfg.HeartbeatTimeout
	c.lead.handover = h
	c.report(HandingOver, to, "%s", h.reason)
	c.publish()
	c.handoverStep()
}

// handoverStep goes on with a hand-over as far as it can.
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

// announce waits until everybody who could succeed knows who is to.
func (c *Core) announce() {
	h := &c.lead.handover
	if !c.canSucceed(c.lead.peers[h.to]) {
		c.giveUpHandover(h.to.String() + " is not in sync any more")
		c.nextDefrag() // which waited for this
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

// answerHandover tells who asked, once, that it is certain, or why it is not done.
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

// giveUpHandover goes back to leading, or on to something else.
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

// leaveToSuccessor ends the process once a successor has everything. A successor
// that died or fell behind is replaced by the heir.
func (c *Core) leaveToSuccessor() {
	h := &c.lead.handover
	p := c.lead.peers[h.to]
	if !c.canSucceed(p) {
		if p = c.heirPeer(); p == nil {
			return
		}
		h.to = p.member.Address
		c.report(HandingOver, p.member.ID, "%s, in place of another", h.reason)
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

// heirPeer is the first follower that could succeed, whoever was named.
func (c *Core) heirPeer() *peer {
	for _, a := range c.roster.Line() {
		if p := c.lead.peers[a]; c.canSucceed(p) {
			return p
		}
	}
	return nil
}
