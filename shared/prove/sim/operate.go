package sim

import (
	"fmt"
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// request is an operator's request to a leader. A leader answers exactly once, unless it dies
// first.
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

// unanswered describes a request that a living leader has not answered.
func (o *operator) unanswered() string {
	o.requests = slices.DeleteFunc(o.requests, func(r *request) bool { return r.answers > 0 || r.leader.dead })
	if len(o.requests) == 0 {
		return ""
	}
	return fmt.Sprintf("%s did not answer the request to %s", o.requests[0].leader, o.requests[0].what)
}

// anyone returns the address of a random member of the leader's roster.
func (o *operator) anyone() roster.Address {
	ms := o.w.leader().core.Roster().Members
	return ms[o.w.rng.IntN(len(ms))].Address
}

// handOver asks the leader to hand over, to the heir or to a random member.
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

// remove asks the leader to remove a member.
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

// answered gets every core.Answer.
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
		o.w.fail("%s gives answer number %d to the same request: %s", p, r.answers, r.what)
	}
}

// corruptKey changes a key in the database of a member, as a bad disk or a bug would. Later the
// leader compares its members and finds the difference.
func (o *operator) corruptKey() {
	w := o.w
	leader := w.leader()
	if leader == nil || leader.disk == nil {
		return
	}
	p := w.living[w.rng.IntN(len(w.living))]
	if p.disk == nil || p.disk.wrongKeys {
		return
	}
	// Two copies must not differ at once. With only one follower, nothing could show which copy
	// is wrong.
	for _, d := range w.disks {
		if d.wrongKeys || d.condemned {
			return
		}
	}
	w.count(CopyDiffers)
	w.tell("the database in slot %d has a wrong key", p.disk.slot)
	p.disk.wrongKeys = true
	o.compare()
}

// compare is the leader's comparison, some time later. It is repeated until no copy is wrong.
func (o *operator) compare() {
	w := o.w
	w.after(w.between(0, 2*heartbeatTimeout), func() {
		wrongKeys := false
		for _, d := range w.disks {
			wrongKeys = wrongKeys || d.wrongKeys
		}
		if !wrongKeys {
			return
		}
		o.compare()
		leader := w.leader()
		if leader == nil || leader.stopped {
			return
		}
		r := leader.core.Roster()
		if leader.disk.wrongKeys && r.Followers < 2 && inSyncFollowers(r) < 2 {
			return // the leader's copy would stay
		}
		copies := core.Copies{Leader: leader.id, Own: checksum(leader), Others: map[roster.ID]uint32{}, Wanted: r.Followers}
		for _, m := range r.Members {
			if q := w.find(m.ID); m.State == roster.InSync && q != nil && !q.dead && q.disk != nil {
				copies.Others[m.ID] = checksum(q)
			}
		}
		for _, differs := range copies.Judge("another digest") {
			leader.post(differs)
		}
	})
}

// checksum stands for the checksum of a member's keys.
func checksum(p *process) uint32 {
	if p.disk.wrongKeys {
		return 1
	}
	return 0
}

// inSyncFollowers counts the followers with which the leader compares its keys.
func inSyncFollowers(r *roster.Roster) int {
	n := 0
	for _, m := range r.Members {
		if m.State == roster.InSync {
			n++
		}
	}
	return n
}

// doOperator carries out a leader's decisions on requests of operators.
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
		if !d.wrongKeys {
			p.w.fail("%s condemns the copy in slot %d, which is right: %s", p, e.Slot, e.Reason)
		}
		d.condemned = true
		if d == p.disk && p.core.Role() == core.Ended {
			// The leader has handed over. Until the successor leads, the only synced log belongs
			// to a copy with wrong keys. A power loss now would be a second fault.
			p.w.faults.brokeOnce = true
		}
	}
}

// askDefragment sends the request. The follower works on it while it appends entries, and answers
// on the stream that it has then.
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

// handedOver checks a leader that exits because it handed over.
func (o *oracle) handedOver(p *process) {
	w := o.w
	r := p.core.Roster()
	m, ok := r.Find(r.Successor)
	q := w.find(m.ID)
	switch {
	case !ok || q == nil || m.State != roster.InSync:
		w.fail("%s hands over to %s, which is not in sync", p, r.Successor)
	case p.serving:
		w.fail("%s hands over but still serves clients", p)
	case !p.gaveUpDraining && (len(p.proposals) > 0 || p.committed != p.end()):
		w.fail("%s hands over with %d unanswered requests and %d uncommitted entries", p, len(p.proposals), p.end()-p.committed)
	case p.disk.synced < len(p.disk.log):
		w.fail("%s hands over with only %d of %d entries on disk", p, p.disk.synced, len(p.disk.log))
	case q.disk == nil || !q.dead && !q.disk.holds(p.disk.last()):
		w.fail("%s hands over to %s, whose log lacks %s", p, q, p.disk.last())
	}
}
