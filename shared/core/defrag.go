package core

import (
	"slices"

	"github.com/dynast-io/dynast/shared/roster"
)

// defragState follows a defragmentation: the followers one at a time, each
// going on to append meanwhile and last in the line of succession; then the leader
// hands over to one that is done, and its own copy is rewritten by the follower
// that opens it next. So nobody waits for a database that is being rewritten.
type defragState struct {
	asked   bool // by an operator, who waits: ref
	ref     any
	queue   []roster.ID // still to be done
	current roster.ID   // zero: none
}

func (c *Core) defragmentRequested(ev DefragmentRequested) {
	d := &c.lead.defrag
	refused := c.occupied()
	if d.asked {
		refused = "the databases are being defragmented already"
	}
	if refused != "" {
		c.emit(Answer{Ref: ev.Ref, Refused: refused})
		return
	}
	d.asked, d.ref = true, ev.Ref
	ps := c.sorted()
	slices.Reverse(ps) // the heir last: while it is busy another one stands by, already done
	for _, p := range ps {
		p.compact = false
		if c.canSucceed(p) && !slices.Contains(d.queue, p.member.ID) && d.current != p.member.ID {
			d.queue = append(d.queue, p.member.ID)
		}
	}
	c.nextDefrag()
}

// owesDefrag: a follower in sync has a copy that is still to be rewritten, or
// was busy with that when it fell out of sync or its leader died.
func (c *Core) owesDefrag(p *peer) {
	if (p.member.OwesDefrag || p.member.Busy) && c.lead.defrag.current != p.member.ID && !slices.Contains(c.lead.defrag.queue, p.member.ID) {
		c.lead.defrag.queue = append(c.lead.defrag.queue, p.member.ID)
		c.nextDefrag()
	}
}

// nextDefrag begins with the next one when none is under way. Not while the
// leader hands over: the successor must be free to serve.
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
		c.report(Defragmentation, p.member.ID, "begins")
		c.publish()
		c.defragJoined(p)
	}
	if d.asked && d.current == (roster.ID{}) {
		c.defragLeader()
	}
}

// defragJoined asks, and asks again on a new stream: the answer may have been
// lost with the old one.
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
	if d.current == ev.ID { // or a leader before asked for it
		d.current = roster.ID{}
	}
	d.queue = slices.DeleteFunc(d.queue, func(id roster.ID) bool { return id == ev.ID })
	c.nextDefrag()
}

// defragDied goes on without who died.
func (c *Core) defragDied(id roster.ID) {
	if c.lead.defrag.current == id {
		c.lead.defrag.current = roster.ID{}
		c.nextDefrag()
	}
}

// defragLeader: all followers are done, or none could be.
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
			c.handOver(p.member.ID, handoverState{reason: "its database is defragmented, the leader's is next", ref: ref})
			return
		}
	}
	c.emit(Answer{Ref: ref, InPlace: true})
}
