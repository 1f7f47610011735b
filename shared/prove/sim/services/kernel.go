package services

import (
	"slices"
	"time"

	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// proc is a process of an instance.
type proc struct {
	rules.Process
	w     *world
	id    rules.ID
	token uint64
	main  bool // not a descendant
	lock  bool // it still has the descriptor of the lock
	dead  bool
	// kept means that a pidfd of it is in the store of the members, or with the leader.
	kept bool
	// stubborn processes ignore SIGTERM. ready is when it becomes ready, sick when its alive check
	// begins to fail, and mute when it sends no more pings.
	stubborn          bool
	ready, sick, mute time.Duration
	watchdog          time.Duration
	notifies          bool
}

// death is what the kernel knows of a dead process. It tells how the process ended to whoever has a
// pidfd from before.
type death struct {
	exit  rules.Exit
	known bool
}

// exitOf returns what the kernel tells about a dead process.
func (w *world) exitOf(p rules.Process) rules.Exit {
	if d := w.deaths[p]; d != nil && d.known {
		return d.exit
	}
	return rules.Exit{}
}

// keep puts a pidfd of a process into the store that all members share.
func (w *world) keep(p *proc) {
	p.kept = true
	w.store[p.Process] = p.token
}

// loseStore ends the last member. With it the store is gone.
func (w *world) loseStore() {
	w.tell("no member is left")
	clear(w.store)
	for _, p := range w.procs {
		p.kept = false
	}
	for _, d := range w.deaths {
		d.known = false
	}
}

// note is a datagram in the notify socket.
type note struct {
	from  *proc
	event rules.Notified
}

// firstPIDs is the number of pids. They are used again, so that a pid alone says nothing.
const firstPIDs = 300

func (w *world) newProc(id rules.ID, token uint64) *proc {
	w.births++
	p := &proc{Process: rules.Process{PID: 2 + w.births%firstPIDs, StartTime: uint64(w.births)}, w: w, id: id, token: token, lock: true,
		ready: never, sick: never, mute: never}
	w.procs = append(w.procs, p)
	return p
}

// fork creates the main process of an instance. The lock is held from the first instant.
func (w *world) fork(id rules.ID, token uint64, s rules.Spec) *proc {
	for _, other := range w.procs {
		if other.id == id {
			w.fail("P1: %s is started, but process %d of it lives", id, other.PID)
		}
	}
	p := w.newProc(id, token)
	p.main, p.watchdog = true, s.Watchdog
	p.notifies = s.ReadyCheck && s.Fingerprint%3 == 0
	w.stats.Starts++
	w.live(p, s)
	if w.faults {
		w.misbehave(p)
	}
	return p
}

// live begins the life of a healthy program.
func (w *world) live(p *proc, s rules.Spec) {
	p.ready = w.now + w.upTo(2*time.Second)
	if p.notifies {
		w.after(p.ready-w.now, func() { p.notify(rules.Notified{Ready: p.ready <= w.now}) })
	}
	if s.Watchdog > 0 {
		p.ping()
	}
	if s.Restart != rules.Always {
		code := 0
		if w.faults && w.chance(0.3) {
			code = 1
		}
		w.after(w.upTo(5*time.Second), func() { p.die(rules.Exit{Known: true, Code: code}) })
	}
}

func (p *proc) ping() {
	p.w.after(p.watchdog/3, func() {
		if p.dead {
			return
		}
		if p.mute > p.w.now {
			p.notify(rules.Notified{Ping: true})
		}
		p.ping()
	})
}

// misbehave gives a program some of the faults that programs have.
func (w *world) misbehave(p *proc) {
	life := w.upTo(30 * time.Second)
	switch k := w.rng.IntN(20); {
	case k < 4:
		w.after(life, func() { p.die(rules.Exit{Known: true, Code: 1}) })
	case k < 6:
		w.after(life, func() { p.die(rules.Exit{Known: true}) })
	case k < 8:
		w.after(life, func() { p.die(rules.Exit{Known: true, Signal: "SIGSEGV"}) })
	case k < 10:
		p.sick = w.now + life
	case k < 11:
		p.mute = w.now + life
	case k < 12:
		p.ready = never
	case k < 13:
		p.ready = w.now + 10*life
		if p.notifies {
			w.after(10*life, func() { p.notify(rules.Notified{Ready: true}) })
		}
	case k < 14:
		w.after(life, func() { p.notify(rules.Notified{Hung: true}) })
	case k < 15:
		w.after(life/100, func() { p.move() })
	}
	p.stubborn = w.chance(0.15)
	if w.chance(0.1) {
		w.after(w.upTo(time.Second), func() { p.lock = false })
	}
	if w.chance(0.25) {
		w.after(w.upTo(time.Second), func() {
			if !p.dead {
				w.daemon(p)
			}
		})
	}
}

// daemon forks a process that its parent does not wait for.
func (w *world) daemon(p *proc) *proc {
	d := w.newProc(p.id, p.token)
	d.lock, d.stubborn = p.lock, w.chance(0.5)
	if w.chance(0.3) {
		w.after(w.upTo(10*time.Second), func() { d.die(rules.Exit{Known: true}) })
	}
	return d
}

// move makes a child the main process, as programs do that fork into the background.
func (p *proc) move() {
	if p.dead {
		return
	}
	child := p.w.newProc(p.id, p.token)
	child.lock, child.ready, child.main, child.watchdog = p.lock, p.w.now, true, p.watchdog
	if p.watchdog > 0 {
		child.ping()
	}
	p.notify(rules.Notified{Main: child.Process, Ready: true})
	p.w.after(p.w.between(10*time.Millisecond, time.Second), func() { p.main = false; p.die(rules.Exit{Known: true}) })
}

func (p *proc) notify(ev rules.Notified) {
	w := p.w
	if p.dead {
		return
	}
	w.notes = append(w.notes, note{p, ev})
	if w.leader != nil {
		w.leader.post(w.leader.readNote)
	}
}

// term delivers SIGTERM.
func (p *proc) term() {
	if p.stubborn || p.dead {
		return
	}
	if p.w.faults && p.w.chance(0.1) {
		p.notify(rules.Notified{Stopping: true, Extend: p.w.upTo(5 * time.Second)})
	}
	exit := rules.Exit{Known: true}
	if p.w.chance(0.5) {
		exit.Signal = "SIGTERM"
	}
	p.w.after(p.w.upTo(2*time.Second), func() { p.die(exit) })
}

func (p *proc) die(exit rules.Exit) {
	if p.dead {
		return
	}
	w := p.w
	p.dead = true
	d := &death{exit: exit, known: p.kept}
	if w.oldKernel && w.chance(0.5) {
		d.known = false // before Linux 6.15 the kernel tells it only until the process is reaped
	}
	w.deaths[p.Process] = d
	w.procs = slices.DeleteFunc(w.procs, func(q *proc) bool { return q == p })
	w.tell("process %d of %s dies: %s", p.PID, p.id, exit)
	if w.leader != nil {
		w.leader.died(p)
	}
}

// of returns the processes of an instance that live.
func (w *world) of(id rules.ID) []*proc {
	var out []*proc
	for _, p := range w.procs {
		if p.id == id {
			out = append(out, p)
		}
	}
	return out
}

// find returns a process that lives, or nil.
func (w *world) find(x rules.Process) *proc {
	for _, p := range w.procs {
		if p.Process == x {
			return p
		}
	}
	return nil
}
