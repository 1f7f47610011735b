package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// process is one member and the driver of its core.
type process struct {
	w       *world
	id      roster.ID
	started time.Duration
	byHand  bool
	build   string
	leads   bool // started to lead: it exits if the lock is taken

	dead, stopped bool
	deferred      []func() // what would have run while the process was stopped
	watching      []roster.ID

	core    *core.Core     // nil until it has booted
	seen    *roster.Roster // the last roster that the oracle checked
	mail    []letter
	running bool   // the next turn of the loop is scheduled
	turn    func() // the method run, allocated once
	wakeGen int
	ticks   int           // consecutive Ticks without another event
	tickAt  time.Duration // time of the first of these

	disk    *disk
	writer  writer
	syncing bool
	again   bool // another Sync came during an fsync

	up         *stream        // the stream of a follower
	sawStopped bool           // the leader was stopped at the last look
	acked      entry.Position // the position that the follower acknowledges; zero until it has appended something
	// leftWith is the end of the log at the process's death. greeted is the epoch that the
	// process knew at its last hello.
	leftWith entry.Position
	greeted  uint64
	sessions []*stream        // the streams of a leader, one for each follower
	waiting  []*waitingStream // streams that wait until this process leads
	pumping  bool

	lastLines [2]string // the last lines of its transcript
	repeated  int       // number of left-out lines that repeat these

	// Only for a leader:
	epoch          uint64 // 0 until it leads
	committed      uint64
	published      *roster.Roster // the last roster that it carried out; the core may have a newer one
	proposals      []uint64
	proposing      int  // batches that are being appended
	refusing       bool // no more proposals are accepted
	gaveUpDraining bool // it stopped serving with unanswered writes
	serving        bool
	spawning       []*spawn
	losses         int // reports of a possible loss
}

func (p *process) String() string {
	return fmt.Sprintf("%d/%d", p.id.Address.Port(), p.id.PID)
}

// after runs do in the process later. It never runs once the process is dead, and runs later if
// the process is stopped.
func (p *process) after(d time.Duration, do func()) {
	p.w.schedule(p, d, do)
}

// clock is the core's clock. It counts from the start of the process, and is never 0.
func (p *process) clock() time.Duration { return p.w.now - p.started + 1 }

// boot creates the core and gives it its first event.
func (p *process) boot(self roster.Member, ev core.Boot) {
	w := p.w
	p.leads = ev.Lead
	p.core = core.New(core.Config{
		Self: self, Client: "client", Followers: w.operator.followers, MinSync: w.operator.minSync,
		HeartbeatInterval: heartbeatInterval, HeartbeatTimeout: heartbeatTimeout,
		TurnDelay: 5 * time.Millisecond, LockRetry: 2 * time.Millisecond, StopTimeout: stopTimeout,
		InSyncWindow: 16, LagLimit: 64,
		Keeper: w.keeperConfig(), Rand: rand.New(rand.NewPCG(w.cfg.Seed, uint64(p.id.PID))),
	})
	p.post(ev)
	p.everySecond()
	p.compact()
}

// post queues an event for the core.
func (p *process) post(ev core.Event) {
	if p.dead {
		return
	}
	p.mail = append(p.mail, letter{event: ev})
	p.wakeUp()
}

// letter is an event for the core, or a function that runs in the order of events.
type letter struct {
	event core.Event
	ask   func()
}

// ask runs f after the core has had all queued events.
func (p *process) ask(f func()) {
	if p.core == nil || p.dead {
		return
	}
	p.mail = append(p.mail, letter{ask: f})
	p.wakeUp()
}

// wakeUp schedules the next turn of the loop.
func (p *process) wakeUp() {
	if p.core == nil || p.running || p.stopped {
		return
	}
	p.running = true
	d := p.w.between(time.Microsecond, 20*time.Microsecond)
	if p.w.faults.hits(p.w, p.w.faults.starves, ProcessStarved) {
		d = p.w.between(0, 2*heartbeatTimeout)
	}
	p.w.after(d, p.turn)
}

// run is one turn of the loop: one event, or a Tick if no event waits and the time has come.
func (p *process) run() {
	p.running = false
	if p.dead || p.stopped {
		return
	}
	if len(p.mail) > 0 {
		l := p.mail[0]
		p.mail = p.mail[1:]
		p.ticks = 0
		if l.ask != nil {
			l.ask()
		} else {
			p.step(l.event)
		}
	} else if p.clock() >= p.core.Wake() {
		p.countTick()
		p.step(core.Tick{})
	}
	if p.dead {
		return
	}
	if len(p.mail) > 0 {
		p.wakeUp()
		return
	}
	p.wakeGen++
	gen := p.wakeGen
	p.w.after(p.core.Wake()-p.clock()+p.w.between(0, 200*time.Microsecond), func() {
		if gen == p.wakeGen && !p.dead {
			p.wakeUp()
		}
	})
}

// countTick detects a core that asks to be woken at once, again and again.
func (p *process) countTick() {
	if p.ticks == 0 {
		p.tickAt = p.w.now
	}
	p.ticks++
	if p.ticks > 100 && p.w.now-p.tickAt < time.Duration(p.ticks)*500*time.Microsecond {
		p.w.fail("%s is in a busy loop: %d ticks in %s in role %s, without another event", p, p.ticks, p.w.now-p.tickAt, p.core.Role())
	}
}

// step gives the core one event and carries out its effects. The process may be killed between
// any two effects.
func (p *process) step(ev core.Event) {
	w := p.w
	if m := w.cfg.mutant; m != nil && m.event != nil {
		ev = m.event(p, ev)
	}
	effects := p.core.Step(p.clock(), ev)
	p.describe(ev, effects)
	if p.inherits() && w.faults.hits(w, w.faults.stopsHeir, StoppedInTakeover) {
		w.faults.stop(p)
	}
	for _, e := range effects {
		if w.faults.killsNow(p) {
			w.kill(p, fmt.Sprintf("SIGKILL before %T", e))
			return
		}
		if w.faults.losesPower(p) {
			w.losePower()
			return
		}
		if m := w.cfg.mutant; m != nil && m.effect != nil && m.effect(p, e) {
			continue
		}
		p.do(e)
		if p.dead || w.violation != nil {
			return
		}
	}
}

// do carries out one effect.
func (p *process) do(e core.Effect) {
	switch e := e.(type) {
	case core.Watch:
		p.watch(e.ID)
	case core.Unwatch:
		p.unwatch(e.ID)
	case core.Kill:
		p.killOther(e)
	case core.Beat:
		p.beat()
	case core.Commit:
		p.commit(e.Index)
	case core.Sync:
		p.sync()
	case core.Exit:
		p.w.oracle.exited(p, e)
		p.w.kill(p, fmt.Sprintf("exit %d: %s", e.Code, e.Reason))
	case core.Report:
		if e.Kind == core.LossPossible {
			p.losses++
		}
	case core.Follow, core.Expect, core.Unfollow, core.Append, core.Ack, core.Resync:
		p.doFollower(e)
	case core.TryLock, core.Adopt, core.AdoptBest, core.TakeSlot, core.Claim, core.BeginEpoch, core.WriteSuccession, core.Lead:
		p.doTakeover(e)
	default:
		p.doLeader(e)
	}
}

func (p *process) watch(id roster.ID) {
	p.watching = append(p.watching, id)
	if q := p.w.find(id); q == nil || q.dead {
		p.w.announce(p, id)
	}
}

func (p *process) unwatch(id roster.ID) {
	for i, x := range p.watching {
		if x == id {
			p.watching = append(p.watching[:i:i], p.watching[i+1:]...)
			return
		}
	}
}

func (p *process) killOther(e core.Kill) {
	q := p.w.find(e.ID)
	watched := false
	for _, x := range p.watching {
		watched = watched || x == e.ID
	}
	switch {
	case q == nil:
		p.w.fail("%s kills %s, which never existed", p, e.ID)
	case !watched && !q.dead:
		p.w.fail("%s kills %s without a pidfd", p, q)
	case !q.dead:
		p.w.stats.KilledByCore++
		p.w.oracle.killedByCore++
		p.w.after(p.w.between(0, time.Millisecond), func() { p.w.kill(q, fmt.Sprintf("SIGKILL from %s: %s", p, e.Reason)) })
	}
}

// sync makes the log durable, with one fsync at a time.
func (p *process) sync() {
	if p.syncing {
		p.again = true
		return
	}
	p.syncing = true
	d, at := p.disk, p.last()
	takes := p.w.faults.fsync(p.w)
	if p.inherits() {
		p.w.faults.within(p, takes, p.w.faults.killHeir, KilledInTakeover)
	}
	p.after(takes, func() {
		p.syncing = false
		if p.w.faults.failsFsync(p.w) {
			// The process no longer knows which part of its log is on disk. What was synced
			// before is safe. The rest is in the page cache, where other processes can read it.
			p.w.kill(p, "exit 1: fsync the log: input/output error")
			return
		}
		if p.disk == d && d.holds(at) {
			d.synced = max(d.synced, int(at.Index))
		}
		p.post(core.Synced{Last: at})
		if p.again {
			p.again = false
			p.sync()
		}
	})
}

func (p *process) last() entry.Position {
	if p.disk == nil {
		return entry.Position{}
	}
	return p.disk.last()
}

// everySecond is a member's background sync.
func (p *process) everySecond() {
	p.after(p.w.between(50*time.Millisecond, time.Second), func() {
		if d := p.disk; d != nil && p.w.chance(0.5) {
			if p.w.faults.failsFsync(p.w) {
				p.w.kill(p, "exit 1: fsync the log: input/output error")
				return
			}
			d.synced = len(d.log)
		}
		p.everySecond()
	})
}

// compact removes the beginning of a log, which the database has. A follower that needs it gets a
// snapshot.
func (p *process) compact() {
	p.after(p.w.between(20*time.Millisecond, 300*time.Millisecond), func() {
		if d := p.disk; d != nil && p.committed > 0 && p.w.chance(p.w.faults.compacts) {
			to := p.committed // as far as allowed, or less
			if p.w.chance(0.6) {
				to = 1 + p.w.rng.Uint64N(p.committed)
			}
			d.first = max(d.first, to)
		}
		p.compact()
	})
}
