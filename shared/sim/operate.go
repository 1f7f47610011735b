package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/roster"
)

// request is what an operator asks a leader for. A leader answers once; one that
// dies before answers nothing.
type request struct {
	what    string
	leader  *process
	answers int
	last    core.Answer
}

func (o *operator) ask(what string, ev func(r *request) core.Event) *request {
	p := o.w.leader()
	if p == nil {
		return nil
	}
	o.w.tell("an operator asks %s: %s", p, what)
	r := &request{what: what, leader: p}
	o.requests = append(o.requests, r)
	p.post(ev(r))
	return r
}

// unanswered says which request a living leader owes an answer.
func (o *operator) unanswered() string {
	o.requests = slices.DeleteFunc(o.requests, func(r *request) bool { return r.answers > 0 || r.leader.dead })
	if len(o.requests) == 0 {
		return ""
	}
	return fmt.Sprintf("%s does not answer the request to %s", o.requests[0].leader, o.requests[0].what)
}

// anyone is the address of some member that the leader knows.
func (o *operator) anyone() roster.Address {
	ms := o.w.leader().core.Roster().Members
	return ms[o.w.rng.IntN(len(ms))].Address
}

// handOver asks the leader to hand over: to the heir, or to some member.
func (o *operator) handOver() {
	if o.w.leader() == nil {
		return
	}
	var to roster.Address
	if o.w.chance(0.5) {
		to = o.anyone()
	}
	o.w.count(HandoverAsked)
	o.ask("hand over", func(r *request) core.Event { return core.HandoverRequested{To: to, Reason: "asked to", Ref: r} })
}

// scale asks for another number of followers.
func (o *operator) scale() {
	ev := core.ScaleRequested{Followers: o.w.rng.IntN(5)}
	if o.w.chance(0.3) {
		ev = core.ScaleRequested{Followers: o.w.rng.IntN(3) - 1, Relative: true}
	}
	o.w.count(Scaled)
	o.ask("keep another number of followers", func(r *request) core.Event {
		ev.Ref = r
		return ev
	})
}

// remove asks for a member to go.
func (o *operator) remove() {
	if o.w.leader() == nil {
		return
	}
	o.w.count(MemberRemoved)
	a := o.anyone()
	o.ask("remove "+a.String(), func(r *request) core.Event { return core.RemoveRequested{Address: a, Ref: r} })
}

func (o *operator) defragment() {
	o.w.count(DefragmentAsked)
	o.ask("defragment", func(r *request) core.Event { return core.DefragmentRequested{Ref: r} })
}

// answered is told of every core.Answer.
func (o *operator) answered(p *process, e core.Answer) {
	if e.Followers != 0 || e.Before != 0 {
		o.w.oracle.asked[e.Followers] = true
	}
	r, ok := e.Ref.(*request)
	if !ok {
		return
	}
	r.answers++
	r.last = e
	if r.answers > 1 || r.leader != p {
		o.w.fail("%s answers for the %d. time to: %s", p, r.answers, r.what)
	}
}

// spoil changes a key in the database of a member, as a bad disk or a bug would.
// Sooner or later the leader compares its members and finds who differs.
func (o *operator) spoil() {
	w := o.w
	leader := w.leader()
	if leader == nil || leader.disk == nil {
		return
	}
	p := w.living[w.rng.IntN(len(w.living))]
	if p.disk == nil || p.disk.foul {
		return
	}
	// Two must not differ at once: with one follower nobody could tell who is wrong.
	for _, d := range w.disks {
		if d.foul || d.condemned {
			return
		}
	}
	w.count(CopyDiffers)
	w.tell("the database in slot %d has a wrong key", p.disk.slot)
	p.disk.foul = true
	o.compare()
}

// compare is what the leader's comparison finds, some time later; done again until
// there is nothing to be found.
func (o *operator) compare() {
	w := o.w
	w.after(w.between(0, 2*heartbeatTimeout), func() {
		foul := false
		for _, d := range w.disks {
			foul = foul || d.foul
		}
		if !foul {
			return
		}
		o.compare()
		leader := w.leader()
		if leader == nil || leader.stopped {
			return
		}
		followers := 0
		for _, m := range leader.core.Roster().Members {
			if m.State != roster.InSync {
				continue
			}
			followers++
			if q := w.find(m.ID); q != nil && !q.dead && q.disk != nil && q.disk.foul {
				leader.post(core.ReplicaDiffers{ID: m.ID, Detail: "another digest"})
			}
		}
		if leader.disk.foul && followers >= 2 { // who agree with each other
			leader.post(core.ReplicaDiffers{ID: leader.id, Detail: "another digest"})
		}
	})
}

// doOperator carries out what a leader decides about an operator's requests.
func (p *process) doOperator(e core.Effect) {
	switch e := e.(type) {
	case core.Answer:
		p.w.operator.answered(p, e)
	case core.Defragment:
		p.askDefragment(e.ID)
	case core.OweDefrag:
		p.disk.owesDefrag = true
	case core.Condemn:
		d := p.w.disk(e.Slot)
		d.condemned = true
		if d == p.disk && p.core.Role() == core.Ended {
			// It has handed over: from here on, until the successor leads, the only synced log
			// is that of a copy with wrong keys. A loss of power then is a second fault.
			p.w.faults.brokeOnce = true
		}
	}
}

// askDefragment sends the request; the follower works on it beside its log, and
// answers on whatever stream it has by then.
func (p *process) askDefragment(id roster.ID) {
	st := p.session(id)
	if st == nil {
		return
	}
	p.hear(st, st.conn, 0, func(q *process) {
		d := q.disk
		q.after(q.w.between(time.Millisecond, 2*heartbeatTimeout), func() {
			ev := core.Defragmented{ID: q.id}
			if q.w.faults.on && q.w.chance(0.2) {
				ev.Error = "no room"
			} else if d == q.disk {
				d.owesDefrag = false
			}
			up := q.up
			if up == nil || up.conn == nil || up.conn.cut {
				return
			}
			c := up.conn
			q.sendUp(up, c, func() {
				if c.opened && up.conn == c {
					up.leader.post(ev)
				}
			})
		})
	})
}

// handedOver judges a leader that ends because it handed over.
func (o *oracle) handedOver(p *process) {
	w := o.w
	r := p.core.Roster()
	m, ok := r.Find(r.Successor)
	q := w.find(m.ID)
	switch {
	case !ok || q == nil || m.State != roster.InSync:
		w.fail("%s hands over to %s, who is not in sync", p, r.Successor)
	case p.serving:
		w.fail("%s hands over and serves clients", p)
	case !p.gaveUpDraining && (len(p.proposals) > 0 || p.committed != p.end()):
		w.fail("%s hands over with %d requests and %d entries that are not answered", p, len(p.proposals), p.end()-p.committed)
	case p.disk.synced < len(p.disk.log):
		w.fail("%s hands over with %d of %d entries on disk", p, p.disk.synced, len(p.disk.log))
	case q.disk == nil || !q.dead && !q.disk.holds(p.disk.last()):
		w.fail("%s hands over to %s, whose log lacks %s", p, q, p.disk.last())
	}
}
