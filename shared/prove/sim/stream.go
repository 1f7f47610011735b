package sim

import (
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// stream is a follower's stream to its leader, and the leader's session for it. Messages arrive
// in the order in which they were sent, or not at all.
type stream struct {
	follower, leader *process
	leaderID         roster.Member // the leader to which the follower connects
	pause            time.Duration // before the next attempt
	over             bool          // the follower has closed the stream, and gets no more messages
	conn             *connection
}

// connection is one connection of a stream.
type connection struct {
	up, down time.Duration // when the last message in each direction arrives
	// cut says that the connection is broken. New messages are lost, and so are messages that
	// would arrive after cutAt.
	cut    bool
	cutAt  time.Duration
	opened bool // the leader has a session

	mode      mode
	cursor    uint64
	confirmed uint64 // acknowledged by the follower; the leader sends at most window entries beyond it
	awaiting  uint64
	sent      *roster.Roster
	commit    uint64
}

// window is the maximum number of unacknowledged entries. A follower that does not read gets no
// more, falls behind, and may find that the log no longer has the entries it needs.
const window = 24

type mode uint8

const (
	idle     mode = iota // the core has not decided yet
	entries              // sends entries after cursor
	snapshot             // a snapshot is being sent or is not acknowledged yet
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

// resync opens the stream again.
func (p *process) resync(reason string) {
	if st := p.up; st != nil && st.conn != nil {
		p.w.tell("%s opens its stream again: %s", p, reason)
		p.hangUp(st)
		p.redial(st)
	}
}

// hangUp closes the connection from the follower's side.
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

// drop closes a session on the leader's side.
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

// dial connects to the process that is bound to the leader's address, and says hello.
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
		// The entries from the previous stream must be in the log or dropped before the hello
		// says where the log ends.
		if m := p.w.cfg.mutant; m != nil && m.eager {
			p.sayHello(st, c, q)
			return
		}
		p.ask(func() {
			p.queue(job{do: func() { p.sayHello(st, c, q) }})
		})
	})
}

func (p *process) sayHello(st *stream, c *connection, leader *process) {
	if st.over || st.conn != c || c.cut {
		return
	}
	me := roster.Member{ID: p.id, ByHand: p.byHand, Version: p.build, Plugin: "socket"}
	if p.disk != nil {
		me.Slot, me.OwesDefrag = p.disk.slot, p.disk.owesDefrag
	}
	last := p.last()
	p.greeted = p.core.Roster().Epoch
	c.up = max(c.up, p.w.now)
	p.sendUp(st, c, func() { leader.hello(st, c, me, last) })
}

// waitForLeadership is how long a stream may wait until a process leads.
const waitForLeadership = 5 * heartbeatTimeout

// waitingStream is a stream that waits until a process leads.
type waitingStream struct {
	st   *stream
	conn *connection
	open func()
}

// hello handles the first message of a stream.
func (p *process) hello(st *stream, c *connection, m roster.Member, last entry.Position) {
	if p.epoch != 0 {
		p.welcome(st, c, m, last)
		return
	}
	s := &waitingStream{st: st, conn: c, open: func() { p.welcome(st, c, m, last) }}
	p.waiting = append(p.waiting, s)
	p.after(waitForLeadership, func() {
		if i := slices.Index(p.waiting, s); i >= 0 {
			p.waiting = slices.Delete(p.waiting, i, i+1)
			c.cut, c.cutAt = true, p.w.now
			p.w.after(p.w.faults.delay(p.w), func() { st.follower.lost(st, c) })
		}
	})
}

// welcome creates a session. It sends a message before any entry, so that the follower gets the
// roster first.
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

// lost handles a broken connection on the follower's side.
func (p *process) lost(st *stream, c *connection) {
	p.after(0, func() {
		if !st.over && st.conn == c {
			st.conn = nil
			p.redial(st)
		}
	})
}

// closeStreams breaks the connections of a dead process. What it had sent still arrives,
// completely, in part or not at all.
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

// cutStream is a fault: the connection breaks while both processes live.
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

// sendUp sends to the leader. A message in the kernel still arrives if the sender has died or was
// stopped.
func (p *process) sendUp(st *stream, c *connection, do func()) {
	c.up = max(c.up, p.w.now+p.w.faults.delay(p.w))
	at := c.up
	st.leader.after(at-p.w.now, func() {
		if !c.cut || at < c.cutAt {
			do()
		}
	})
}

// sendDown sends to the follower.
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

// tellLeader sends the end of the log, as an acknowledgement or a heartbeat.
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

// acknowledged handles an acknowledgement or heartbeat of a follower.
func (p *process) acknowledged(st *stream, c *connection, last entry.Position, known uint64) {
	if !slices.Contains(p.sessions, st) || st.conn != c {
		return
	}
	index := last.Index
	if !p.disk.holds(last) {
		index = 0 // the copy does not continue from this log
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
		index = 0 // the copy is being replaced, or the core has not decided about it yet
	}
	p.post(core.Progress{ID: st.follower.id, Index: index, Known: known})
}
