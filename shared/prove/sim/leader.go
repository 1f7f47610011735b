package sim

import (
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

func (p *process) doLeader(e core.Effect) {
	switch e := e.(type) {
	case core.Replicate:
		p.pump()
	case core.Publish:
		p.published = e.Roster
		p.pump()
	case core.PublishDeaths:
	case core.SendFrom:
		p.sendFrom(e)
	case core.SendSnapshot:
		p.sendSnapshot(e.ID)
	case core.Spawn:
		p.spawn(e.Slot, e.Build)
	case core.AbortSpawn:
		p.abortSpawn(e)
	case core.Reattach:
		p.introduce(e.Member)
	case core.Release:
	case core.Dismiss:
		p.checkUpgrade(e)
		p.dismiss(e)
	case core.Admit:
		e.Ref.(*joiner).admitted(p, e)
	case core.StopServing:
		p.serving = false
		p.drain(p.w.now + drainTimeout)
	default:
		p.doOperator(e)
	}
}

// drain waits until every accepted write is answered, or until the deadline.
func (p *process) drain(deadline time.Duration) {
	p.after(p.w.between(100*time.Microsecond, 2*time.Millisecond), func() {
		answered := len(p.proposals) == 0 && p.proposing == 0 && p.committed == p.end()
		if !answered && p.w.now < deadline {
			p.drain(deadline)
			return
		}
		p.gaveUpDraining = !answered
		p.refusing = true
		p.queue(job{do: func() { p.post(core.ServingStopped{Last: p.last()}) }})
	})
}

// session returns the open stream of a follower.
func (p *process) session(id roster.ID) *stream {
	for _, st := range p.sessions {
		if st.follower.id == id && p.serves(st) {
			return st
		}
	}
	return nil
}

// serves reports whether a stream's connection is a session of this leader.
func (p *process) serves(st *stream) bool {
	return st.conn != nil && st.conn.opened && st.leader == p
}

func (p *process) sendFrom(e core.SendFrom) {
	if st := p.session(e.ID); st != nil {
		c := st.conn
		c.mode, c.cursor, c.confirmed, c.awaiting = entries, e.After, e.After, 0
		p.pump()
	}
}

// pump sends every follower the entries that it lacks, after a short delay.
func (p *process) pump() {
	if p.pumping {
		return
	}
	p.pumping = true
	p.after(p.w.between(0, 100*time.Microsecond), func() {
		p.pumping = false
		for _, st := range slices.Clone(p.sessions) {
			if p.serves(st) {
				p.sendNext(st, st.conn)
			}
		}
	})
}

// sendNext sends entries. If there are none, it sends the commit index and the roster if they are
// new.
func (p *process) sendNext(st *stream, c *connection) {
	for c.mode == entries && c.cursor < p.end() && c.cursor < c.confirmed+window {
		if c.cursor+1 < p.disk.first {
			c.mode = idle
			p.post(core.Overtaken{ID: st.follower.id})
			break
		}
		to := min(p.end(), c.cursor+1+p.w.rng.Uint64N(8))
		r := &received{prev: c.cursor, rs: p.disk.log[c.cursor:to:to]}
		ev := core.Received{
			Epoch: p.epoch, Prev: p.disk.at(c.cursor), Last: p.disk.at(to), Commit: p.committed, Ref: r,
		}
		c.cursor = to
		p.hear(st, c, 0, func(q *process) { q.post(ev) })
	}
	if c.commit != p.committed || c.sent != p.core.Roster() {
		p.hear(st, c, 0, nil)
	}
}

// hear sends a message to a follower. Every message carries the roster and the commit index.
func (p *process) hear(st *stream, c *connection, takes time.Duration, also func(q *process)) {
	c.commit, c.sent = p.committed, p.core.Roster()
	heard := core.Heard{Roster: c.sent, Commit: c.commit}
	p.sendDown(st, takes, func(q *process) {
		q.post(heard)
		if also != nil {
			also(q)
		}
	})
}

// beat sends heartbeats: a leader to all followers, a follower to its leader.
func (p *process) beat() {
	if p.epoch == 0 {
		p.lookAtLeader()
		p.tellLeader()
		return
	}
	for _, st := range p.sessions {
		if p.serves(st) {
			p.hear(st, st.conn, 0, nil)
		}
	}
}

// lookAtLeader asks the kernel whether the leader is stopped.
func (p *process) lookAtLeader() {
	m, ok := p.core.Roster().LeaderMember()
	if !ok {
		return
	}
	q := p.w.find(m.ID)
	if stopped := q != nil && q.stopped; stopped || p.sawStopped {
		p.sawStopped = stopped
		p.post(core.LeaderStopped{ID: m.ID, Stopped: stopped})
	}
}

// sendSnapshot sends the database with all applied entries.
func (p *process) sendSnapshot(id roster.ID) {
	st := p.session(id)
	if st == nil {
		return
	}
	c := st.conn
	c.mode, c.awaiting = snapshot, 0
	p.after(p.w.between(0, time.Millisecond), func() {
		if st.conn != c || c.cut || c.mode != snapshot {
			return
		}
		p.w.stats.Snapshots++
		c.awaiting = p.committed
		log := p.disk.log[:p.committed:p.committed]
		takes := p.w.faults.transfer(p.w)
		p.w.faults.within(p, takes+time.Millisecond, p.w.faults.killInSnapshot/2, KilledInSnapshot)
		p.w.faults.within(st.follower, takes+time.Millisecond, p.w.faults.killInSnapshot, KilledInSnapshot)
		p.hear(st, c, takes, func(q *process) { q.install(log) })
	})
}

// introduce tells an adopted follower the new leader through its control service.
func (p *process) introduce(m roster.Member) {
	p.after(p.w.faults.delay(p.w)+p.w.faults.delay(p.w), func() {
		q := p.w.find(m.ID)
		if q == nil || q.dead || m.Plugin == "" {
			return
		}
		r := p.core.Roster()
		q.after(0, func() { q.post(core.Introduced{Roster: r}) })
	})
}

// dismiss tells a follower to leave: through its stream or, without a stream, through its control
// service.
func (p *process) dismiss(e core.Dismiss) {
	if st := p.session(e.ID); st != nil {
		// The roster in which all members leave can arrive before this message.
		p.after(p.w.between(0, 200*time.Microsecond), func() {
			if p.serves(st) {
				p.hear(st, st.conn, 0, func(q *process) { q.post(core.Dismissed{Reason: e.Reason}) })
			}
		})
		return
	}
	p.after(p.w.faults.delay(p.w), func() {
		if q := p.w.find(e.ID); q != nil && !q.dead {
			q.after(0, func() { q.post(core.Dismissed{Reason: e.Reason}) })
		}
	})
}
