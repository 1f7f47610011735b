package core

import (
	"slices"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

// defragState is the progress of a defragmentation. The followers are defragmented one at a
// time. Each continues to append meanwhile, and moves to the end of the line of succession.
// Then the leader hands over to a follower that is done. The next process that opens the
// leader's copy as a follower defragments it. Clients thus never wait for a database that is
// being rewritten.
type defragState struct {
	asked   bool // an operator waits for the answer to ref
	ref     any
	queue   []roster.ID // the followers that are still to be defragmented
	current roster.ID   // zero: none
}

func (c *Core) defragmentRequested(ev DefragmentRequested) {
	d := &c.lead.defrag
	refused := c.occupied()
	if d.asked {
		refused = "a defragmentation is already running: wait until it is done"
	}
	if refused != "" {
		c.emit(Answer{Ref: ev.Ref, Refused: refused})
		return
	}
	d.asked, d.ref = true, ev.Ref
	ps := c.sorted()
	slices.Reverse(ps) // the heir comes last: while it is busy, another follower stands by that is already done
	for _, p := range ps {
		p.compact = false
		if c.canSucceed(p) && !slices.Contains(d.queue, p.member.ID) && d.current != p.member.ID {
			d.queue = append(d.queue, p.member.ID)
		}
	}
	c.nextDefrag()
}

// owesDefrag queues a follower in sync if its copy still has to be defragmented, or if it was
// defragmenting when it fell out of sync or its leader died.
func (c *Core) owesDefrag(p *peer) {
	if (p.member.OwesDefrag || p.member.Busy) && c.lead.defrag.current != p.member.ID && !slices.Contains(c.lead.defrag.queue, p.member.ID) {
		c.lead.defrag.queue = append(c.lead.defrag.queue, p.member.ID)
		c.nextDefrag()
	}
}

// nextDefrag begins with the next follower if none is being defragmented. It does nothing while
// the leader hands over, because the successor must be free to serve.
func (c *Core) nextDefrag() {
	d := &c.lead.defrag
	if c.lead.handover.phase != handoverNot {
		return
	}
	for d.current == (roster.ID{}) && len(d.queue) > 0 {
		p := c.lead.peer(d.queue[0])
		d.queue = d.queue[1:]
		if !c.canSucceed(p) {
			continue
		}
		d.current = p.member.ID
		p.member.Busy = true
		c.report(Defragmentation, p.member.ID, "started")
		c.publish()
		c.defragJoined(p)
	}
	if d.asked && d.current == (roster.ID{}) {
		c.defragLeader()
	}
}

// defragJoined sends the request to the follower. It sends the request again on a new stream,
// because the answer may have been lost with the old one.
func (c *Core) defragJoined(p *peer) {
	if p.joined && p.member.ID == c.lead.defrag.current {
		c.emit(Defragment{ID: p.member.ID})
	}
}

func (c *Core) defragmented(ev Defragmented) {
	d := &c.lead.defrag
	p := c.lead.peer(ev.ID)
	if p == nil || !p.member.Busy {
		return
	}
	p.member.Busy, p.member.OwesDefrag = false, false
	p.compact = ev.Error == ""
	if p.compact {
		c.report(Defragmentation, ev.ID, "done")
	} else {
		c.report(Defragmentation, ev.ID, "failed: %s", ev.Error)
	}
	c.publish()
	if d.current == ev.ID { // otherwise an earlier leader asked for it
		d.current = roster.ID{}
	}
	d.queue = slices.DeleteFunc(d.queue, func(id roster.ID) bool { return id == ev.ID })
	c.nextDefrag()
}

// defragDied continues without a follower that died.
func (c *Core) defragDied(id roster.ID) {
	if c.lead.defrag.current == id {
		c.lead.defrag.current = roster.ID{}
		c.nextDefrag()
	}
}

// defragLeader ends the request. It hands over to a follower that is done, or leaves the own
// database to the caller if no follower could be defragmented.
func (c *Core) defragLeader() {
	d := &c.lead.defrag
	ref := d.ref
	d.asked, d.ref = false, nil
	if busy := c.occupied(); busy != "" {
		c.emit(Answer{Ref: ref, Refused: busy})
		return
	}
	for _, p := range c.sorted() {
		if p.compact && c.canSucceed(p) {
			c.emit(OweDefrag{})
			c.handOver(p.member.ID, handoverState{reason: "its database is defragmented, the old leader's database is next", ref: ref})
			return
		}
	}
	c.emit(Answer{Ref: ref, InPlace: true})
}
