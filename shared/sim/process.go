package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/entry"
	"github.com/dynast-io/dynast/shared/roster"
)

// process is one member and the driver of its core.
type process struct {
	w       *world
	id      roster.ID
	started time.Duration
	byHand  bool
	build   string
	leads   bool // started to lead: it ends when the lock is taken

	dead, stopped bool
	deferred      []func() // what would have happened while it was stopped
	watching      []roster.ID

	core    *core.Core     // nil until it has booted
	seen    *roster.Roster // the last that the oracle looked at
	mail    []core.Event
	running bool   // a run of the loop is due
	turn    func() // run, made once
	wakeGen int
	ticks   int           // in a row, without an event between
	tickAt  time.Duration // of the first of these

	disk    *disk
	writer  writer
	syncing bool
	again   bool // a Sync came while one was out

	up         *stream        // of a follower
	sawStopped bool           // its leader, when it looked last
	acked      entry.Position // as the follower tells it; zero until it has appended something
	sessions   []*stream      // of a leader, one for each follower
	suitors    []*suitor      // streams that wait for this process to lead
	pumping    bool

	told   [2]string // the last lines of its transcript
	untold int       // lines since that would have been the same

	// Of a leader:
	epoch          uint64 // 0 until it leads
	committed      uint64
	published      *roster.Roster // the last one that it carried out: the core may be further
	proposals      []uint64
	proposing      bool // a batch is on its way into the log
	gaveUpDraining bool // it stopped serving, and not everything was answered
	serving        bool
	spawning       []*spawn
	losses         int // reports of a possible loss
}

func (p *process) String() string {
	return fmt.Sprintf("%d/%d", p.id.Address.Port(), p.id.PID)
}

// after does something in the process in a while: never once it is dead, and
// later when it is stopped.
func (p *process) after(d time.Duration, do func()) {
	p.w.schedule(p, d, do)
}

// clock is the core's: from the start of the process, never 0.
func (p *process) clock() time.Duration { return p.w.now - p.started + 1 }

// boot makes the core and gives it its first event.
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

// post gives the core an event, in the order of the calls.
func (p *process) post(ev core.Event) {
	if p.dead {
		return
	}
	p.mail = append(p.mail, ev)
	p.wakeUp()
}

// wakeUp runs the loop soon.
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

// run is one turn of the loop: one event or, when none waits and it is time, a Tick.
func (p *process) run() {
	p.running = false
	if p.dead || p.stopped {
		return
	}
	if len(p.mail) > 0 {
		ev := p.mail[0]
		p.mail = p.mail[1:]
		p.ticks = 0
		p.step(ev)
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

// countTick finds a core that asks to be woken at once, again and again.
func (p *process) countTick() {
	if p.ticks == 0 {
		p.tickAt = p.w.now
	}
	p.ticks++
	if p.ticks > 100 && p.w.now-p.tickAt < time.Duration(p.ticks)*500*time.Microsecond {
		p.w.fail("%s is in a busy loop: %d ticks in %s while %s, nothing else happening", p, p.ticks, p.w.now-p.tickAt, p.core.Role())
	}
}

// step gives the core one event and carries out what it says; it may be
// killed between any two effects.
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
		if w.faults.strikes(p) {
			w.kill(p, fmt.Sprintf("SIGKILL before %T", e))
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
	case core.TryLock, core.Adopt, core.AdoptBest, core.TakeSlot, core.BeginEpoch, core.WriteSuccession, core.Lead:
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
		p.w.fail("%s kills %s, which never was", p, e.ID)
	case !watched && !q.dead:
		p.w.fail("%s kills %s without a pidfd", p, q)
	case !q.dead:
		p.w.stats.KilledByCore++
		p.w.oracle.killedByCore++
		p.w.after(p.w.between(0, time.Millisecond), func() { p.w.kill(q, fmt.Sprintf("SIGKILL from %s: %s", p, e.Reason)) })
	}
}

// sync makes the log durable, one fsync at a time.
func (p *process) sync() {
	if p.syncing {
		p.again = true
		return
	}
	p.syncing = true
	d, at := p.disk, p.last()
	takes := p.w.faults.fsync(p.w)
	if p.inherits() {
		p.w.faults.within(p, takes, p.w.faults.strikeHeir, KilledInTakeover)
	}
	p.after(takes, func() {
		p.syncing = false
		if p.w.faults.failsFsync(p.w) {
			// Nothing that this process knows of its log is certain any more. What was
			// synced before is; the rest is in the page cache, for others to read.
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

// compact lets go of the beginning of a log, which the database has: who needs
// it gets the database.
func (p *process) compact() {
	p.after(p.w.between(20*time.Millisecond, 300*time.Millisecond), func() {
		if d := p.disk; d != nil && p.committed > 0 && p.w.chance(p.w.faults.compacts) {
			to := p.committed // as far as it may be, or not so far
			if p.w.chance(0.6) {
				to = 1 + p.w.rng.Uint64N(p.committed)
			}
			d.first = max(d.first, to)
		}
		p.compact()
	})
}
