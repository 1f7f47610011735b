package sim

import (
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/entry"
	"github.com/dynast-io/dynast/shared/roster"
)

// stream is a follower's one stream to its leader, and the leader's session
// for it. Messages arrive in the order in which they were sent, or not at all.
type stream struct {
	follower, leader *process
	leaderID         roster.Member // whom the follower dials
	pause            time.Duration // before the next attempt
	over             bool          // the follower has turned away: it hears nothing any more
	conn             *connection
}

// connection is one life of a stream.
type connection struct {
	up, down time.Duration // when the last message each way arrives
	// cut: what is sent is lost, and what is under way is once its time is past this.
	cut    bool
	cutAt  time.Duration
	opened bool // the leader has a session

	mode      mode
	cursor    uint64
	confirmed uint64 // by the follower; it is sent no more than window entries beyond
	awaiting  uint64
	sent      *roster.Roster
	commit    uint64
}

// window is how many entries are under way: a follower that does not read is sent
// no more, falls behind, and may find that the log has lost what it needs next.
const window = 24

type mode uint8

const (
	idle     mode = iota // before the core has decided
	entries              // entries from cursor on
	snapshot             // a snapshot is on its way, or not acknowledged yet
)

func (p *process) doFollower(e core.Effect) {
	switch e := e.(type) {
	case core.Follow:
		p.follow(e.Leader)
	case core.Expect:
		p.follow(e.Leader)
	case core.Unfollow:
		p.unfollow()
	case core.Append:
		p.appendReceived(e.Ref.(*received))
	case core.Ack:
		p.acked = e.Last
		p.tellLeader()
	case core.Resync:
		p.resync(e.Reason)
	}
}

// follow opens a stream, unless there is one to the same process.
func (p *process) follow(leader roster.Member) {
	if p.up != nil && p.up.leaderID.ID == leader.ID {
		return
	}
	p.unfollow()
	p.up = &stream{follower: p, leaderID: leader, pause: 2 * time.Millisecond}
	p.dial(p.up)
}

func (p *process) unfollow() {
	if p.up != nil {
		p.up.over = true
		p.hangUp(p.up)
		p.up = nil
	}
}

// resync opens the stream anew.
func (p *process) resync(reason string) {
	if st := p.up; st != nil && st.conn != nil {
		p.w.tell("%s opens its stream anew: %s", p, reason)
		p.hangUp(st)
		p.redial(st)
	}
}

// hangUp ends the connection from the follower's side.
func (p *process) hangUp(st *stream) {
	c := st.conn
	if c == nil {
		return
	}
	st.conn = nil
	c.cut, c.cutAt = true, p.w.now
	if c.opened {
		p.w.after(p.w.faults.delay(p.w), func() { st.leader.drop(st, c) })
	}
}

// drop ends a session on the leader's side.
func (p *process) drop(st *stream, c *connection) {
	p.after(0, func() {
		if i := slices.Index(p.sessions, st); i >= 0 && (st.conn == c || st.conn == nil) {
			p.sessions = slices.Delete(p.sessions, i, i+1)
			p.post(core.Parted{ID: st.follower.id})
		}
	})
}

func (p *process) redial(st *stream) {
	d := st.pause
	st.pause = min(2*st.pause, 50*time.Millisecond)
	p.after(d, func() { p.dial(st) })
}

// dial connects to whoever is bound to the leader's address, and says hello.
func (p *process) dial(st *stream) {
	p.after(p.w.faults.delay(p.w), func() {
		if st.over || st.conn != nil {
			return
		}
		q := p.w.listening(st.leaderID.ID.Address)
		if q == nil || q == p {
			p.redial(st)
			return
		}
		c := &connection{up: p.w.now, down: p.w.now}
		st.conn, st.leader = c, q
		me := roster.Member{ID: p.id, ByHand: p.byHand, Version: p.build, Plugin: "socket"}
		if p.disk != nil {
			me.Slot, me.OwesDefrag = p.disk.slot, p.disk.owesDefrag
		}
		last := p.last()
		p.sendUp(st, c, func() { q.hello(st, c, me, last) })
	})
}

// courtship is how long a stream may wait for a process to lead.
const courtship = 5 * heartbeatTimeout

// suitor is a stream that waits for a process to lead.
type suitor struct {
	st   *stream
	conn *connection
	come func()
}

// hello is what the leader's handler does with the first message.
func (p *process) hello(st *stream, c *connection, m roster.Member, last entry.Position) {
	if p.epoch != 0 {
		p.welcome(st, c, m, last)
		return
	}
	s := &suitor{st: st, conn: c, come: func() { p.welcome(st, c, m, last) }}
	p.suitors = append(p.suitors, s)
	p.after(courtship, func() {
		if i := slices.Index(p.suitors, s); i >= 0 {
			p.suitors = slices.Delete(p.suitors, i, i+1)
			c.cut, c.cutAt = true, p.w.now
			p.w.after(p.w.faults.delay(p.w), func() { st.follower.lost(st, c) })
		}
	})
}

// welcome makes a session. Something is sent on it before any entry, so that
// the follower learns the roster first.
func (p *process) welcome(st *stream, c *connection, m roster.Member, last entry.Position) {
	if c.cut || st.conn != c {
		return
	}
	p.sessions = slices.DeleteFunc(p.sessions, func(s *stream) bool { return s.follower == st.follower })
	p.sessions = append(p.sessions, st)
	c.opened = true
	p.post(core.Joined{Member: m, Last: last, CanResume: p.canResume(last)})
	p.hear(st, c, 0, nil)
}

func (p *process) canResume(last entry.Position) bool {
	return last.Index+1 >= p.disk.first && p.disk.holds(last)
}

// lost is the follower's end of a connection that broke.
func (p *process) lost(st *stream, c *connection) {
	p.after(0, func() {
		if !st.over && st.conn == c {
			st.conn = nil
			p.redial(st)
		}
	})
}

// closeStreams breaks the connections of a dead process. What it had sent
// still arrives, or a part of it, or nothing.
func (w *world) closeStreams(p *process) {
	cut := func(c *connection, until time.Duration) {
		c.cut, c.cutAt = true, w.now
		if until > w.now && w.chance(0.7) {
			c.cutAt = w.now + w.between(0, until-w.now+1)
		}
	}
	if st := p.up; st != nil && st.conn != nil {
		c := st.conn
		cut(c, c.up)
		if c.opened {
			w.after(max(c.cutAt, w.now)-w.now+w.faults.delay(w), func() { st.leader.drop(st, c) })
		}
	}
	for _, q := range w.alive() {
		if st := q.up; st != nil && st.conn != nil && st.leader == p {
			c := st.conn
			cut(c, c.down)
			w.after(max(c.cutAt, w.now)-w.now+w.faults.delay(w), func() { q.lost(st, c) })
		}
	}
}

// cutStream is a fault: both ends live, the connection breaks.
func (w *world) cutStream(p *process) {
	st := p.up
	if st == nil || st.conn == nil {
		return
	}
	w.tell("the stream of %s breaks", p)
	w.count(StreamCut)
	c := st.conn
	p.hangUp(st)
	st.conn = c
	p.lost(st, c)
}

// sendUp delivers to the leader. What is under way is the kernel's: it arrives
// although the sender has died or was stopped meanwhile.
func (p *process) sendUp(st *stream, c *connection, do func()) {
	c.up = max(c.up, p.w.now+p.w.faults.delay(p.w))
	at := c.up
	st.leader.after(at-p.w.now, func() {
		if !c.cut || at < c.cutAt {
			do()
		}
	})
}

// sendDown delivers to the follower.
func (p *process) sendDown(st *stream, takes time.Duration, do func(q *process)) {
	c := st.conn
	if c == nil || c.cut {
		return
	}
	c.down = max(c.down, p.w.now+takes+p.w.faults.delay(p.w))
	at, q := c.down, st.follower
	q.after(at-p.w.now, func() {
		if !st.over && (!c.cut || at < c.cutAt) {
			do(q)
		}
	})
}

// tellLeader sends how far the log is: an acknowledgement, or a heartbeat.
func (p *process) tellLeader() {
	st := p.up
	if st == nil || st.conn == nil || st.conn.cut {
		return
	}
	c, last, known := st.conn, p.acked, uint64(0)
	if r := p.core.Roster(); r.Epoch == st.leader.epoch {
		known = r.Version
	}
	p.sendUp(st, c, func() {
		if c.opened {
			st.leader.acknowledged(st, c, last, known)
		}
	})
}

// acknowledged is the leader's session hearing of its follower.
func (p *process) acknowledged(st *stream, c *connection, last entry.Position, known uint64) {
	if !slices.Contains(p.sessions, st) || st.conn != c {
		return
	}
	index := last.Index
	if !p.disk.holds(last) {
		index = 0 // of a copy that goes on where this log does not
	}
	if c.mode == snapshot && c.awaiting > 0 && index >= c.awaiting {
		c.mode, c.cursor, c.confirmed, c.awaiting = entries, c.awaiting, index, 0
		p.pump()
	}
	if c.mode == entries && index > c.confirmed {
		c.confirmed = index
		if c.cursor < p.end() {
			p.pump()
		}
	}
	if c.mode != entries {
		index = 0 // of a copy that is being replaced, or that nobody has judged yet
	}
	p.post(core.Progress{ID: st.follower.id, Index: index, Known: known})
}
