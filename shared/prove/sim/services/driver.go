package services

import (
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"time"

	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// leader is the process that has a Core, with its driver.
type leader struct {
	w     *world
	core  *rules.Core
	dead  bool
	mail  []func()
	timer int // tells the timer for Wake from earlier ones
	// checks tells the checks of an instance from earlier ones.
	checks   map[rules.ID]int
	watch    map[rules.ID]rules.Process
	starting int
}

// lead lets a new leader take over.
func (w *world) lead(fresh bool) {
	l := &leader{w: w, core: rules.New(rand.New(rand.NewPCG(w.rng.Uint64(), 1))), checks: map[rules.ID]int{},
		watch: map[rules.ID]rules.Process{}}
	w.leader = l
	w.leads++
	w.stats.Leads++
	ev := rules.Lead{Specs: slices.Clone(w.specs), Wishes: maps.Clone(w.wishes), Found: w.survey(), Fresh: fresh}
	w.tell("leader %d takes over, fresh %t", w.leads, fresh)
	l.step(ev)
	if l.dead {
		return
	}
	for p := range w.store {
		if w.deaths[p] != nil && !slices.Contains(slices.Collect(maps.Values(l.watch)), p) {
			delete(w.store, p) // how it ended is saved
		}
	}
	if len(w.notes) > 0 {
		l.post(l.readNote)
	}
}

// survey finds the records and what is left of their processes.
func (w *world) survey() []rules.Found {
	var out []rules.Found
	for _, id := range w.ids() {
		s := w.records[id]
		f := rules.Found{Record: s.Record}
		started, stored := w.startedAs(s)
		if p := w.find(s.Process); p != nil {
			f.Main = p.Process
		} else if stored {
			f.Main = started // it can be dead, and then Adopt reports how it ended
		} else if s.Phase == rules.Starting {
			for _, p := range w.of(id) {
				// Only the lock, or else the token, shows a process without a record. The oldest is
				// taken for the main process, or a driver knows that it is not.
				if p.main || w.chance(0.5) {
					f.Main = p.Process
				}
				break
			}
		} else if _, ok := w.store[s.Process]; ok {
			f.Exit = w.exitOf(s.Process)
		}
		f.Others = len(w.of(id)) > 0
		out = append(out, f)
	}
	return out
}

// startedAs returns the process of a start that the store has and the record does not.
func (w *world) startedAs(s stored) (rules.Process, bool) {
	for p, token := range w.store {
		if s.Phase == rules.Starting && token == s.token {
			return p, true
		}
	}
	return rules.Process{}, false
}

func (w *world) ids() []rules.ID { return slices.SortedFunc(maps.Keys(w.records), compare) }

func compare(a, b rules.ID) int {
	if a.Service != b.Service {
		return strings.Compare(a.Service, b.Service)
	}
	return a.N - b.N
}

// die ends a leader. What it has not done is never done.
func (l *leader) die(why string) {
	if l.dead {
		return
	}
	l.w.tell("the leader dies: %s", why)
	l.dead, l.w.leader = true, nil
	l.w.stats.Deaths++
}

// post queues something for the goroutine that owns the Core.
func (l *leader) post(f func()) {
	l.mail = append(l.mail, f)
	if len(l.mail) == 1 {
		l.pump()
	}
}

func (l *leader) pump() {
	l.w.after(l.w.upTo(2*time.Millisecond), func() {
		if l.dead {
			return
		}
		f := l.mail[0]
		f()
		l.mail = l.mail[1:]
		if !l.dead && len(l.mail) > 0 {
			l.pump()
		}
	})
}

func (l *leader) event(ev rules.Event) { l.post(func() { l.step(ev) }) }

// later does something in a goroutine of this leader.
func (l *leader) later(d time.Duration, f func()) {
	l.w.after(d, func() {
		if !l.dead {
			f()
		}
	})
}

// step feeds an event to the rules and carries out the effects.
func (l *leader) step(ev rules.Event) {
	w := l.w
	if w.faults && w.chance(0.002) {
		l.die("before an event")
		return
	}
	effects := l.core.Step(w.clock(), ev)
	l.describe(ev, effects)
	w.oracle.judge(l, ev, effects)
	deadly := 0.004
	if _, ok := ev.(rules.Lead); ok {
		deadly = 0.02
	}
	for n, e := range effects {
		if w.faults && w.chance(deadly) {
			l.die("between two effects")
			w.oracle.cut(ev, effects[n:])
			return
		}
		l.do(e)
	}
	l.arm()
}

// arm sets the timer for Wake.
func (l *leader) arm() {
	at, ok := l.core.Wake()
	l.timer++
	if !ok {
		return
	}
	mine := l.timer
	late := l.w.upTo(time.Millisecond)
	if l.w.chance(0.1) {
		late = l.w.upTo(time.Second) // the host is busy, and other events come first
	}
	l.later(max(at-l.w.clock(), 0)+late, func() {
		if l.timer == mine {
			l.event(rules.Tick{})
		}
	})
}

func (l *leader) do(e rules.Effect) {
	w := l.w
	switch e := e.(type) {
	case rules.Save:
		l.save(e.Record)
	case rules.SaveWish:
		if e.Wish.Empty() {
			delete(w.wishes, e.Service)
		} else {
			w.wishes[e.Service] = e.Wish
		}
	case rules.Forget:
		delete(w.records, e.ID)
	case rules.Start:
		l.start(e)
	case rules.Adopt:
		l.watch[e.ID] = e.Process
		if p := w.find(e.Process); p != nil {
			w.keep(p)
		} else {
			l.reap(e.ID, e.Run, e.Process)
		}
	case rules.Signal:
		if p := w.find(w.records[e.ID].Process); p != nil {
			w.stats.Signals++
			p.term()
		}
	case rules.Clear:
		l.clear(e)
	case rules.Check:
		l.checks[e.ID]++
		l.probe(e, l.checks[e.ID])
	case rules.EndChecks:
		l.checks[e.ID]++
	case rules.Tell:
	}
}

func (l *leader) save(r rules.Record) {
	w := l.w
	old, ok := w.records[r.ID]
	s := stored{r, old.token}
	if r.Phase == rules.Starting && (!ok || old.Phase != rules.Starting || old.Run != r.Run) {
		w.tokens++
		s.token = w.tokens
	}
	w.records[r.ID] = s
}

func (l *leader) start(e rules.Start) {
	w := l.w
	s := w.records[e.ID]
	spec, ok := w.spec(e.ID.Service)
	if s.Phase != rules.Starting || s.Run != e.Run || !ok {
		w.fail("%s is started without a record or a spec", e.ID)
	}
	l.starting++
	l.later(w.upTo(5*time.Millisecond), func() {
		if w.faults && w.chance(0.03) {
			l.starting--
			l.event(rules.StartFailed{ID: e.ID, Run: e.Run, Reason: "no such file"})
			return
		}
		if w.faults && w.chance(0.01) {
			l.die("before a fork")
			return
		}
		p := w.fork(e.ID, s.token, spec)
		w.tell("process %d of %s is born", p.PID, p.id)
		if w.faults && w.chance(0.01) {
			l.die("after a fork")
			return
		}
		w.keep(p)
		if w.faults && w.chance(0.01) {
			l.die("after it put a process into the store")
			return
		}
		l.later(w.upTo(3*time.Millisecond), func() {
			l.starting--
			l.event(rules.Started{ID: e.ID, Run: e.Run, Process: p.Process})
		})
	})
}

// died tells a leader that a process is dead, if it watches it.
func (l *leader) died(p *proc) {
	if l.watch[p.id] == p.Process {
		l.reap(p.id, l.w.records[p.id].Run, p.Process)
	}
}

func (l *leader) reap(id rules.ID, run uint64, p rules.Process) {
	l.later(l.w.upTo(3*time.Millisecond), func() {
		l.post(func() {
			if l.watch[id] == p { // otherwise the main process has moved
				delete(l.watch, id)
				if l.step(rules.Exited{ID: id, Run: run, Exit: l.w.exitOf(p)}); !l.dead {
					delete(l.w.store, p)
				}
			}
		})
	})
}

// clear kills the processes of an instance one after the other, until none is left.
func (l *leader) clear(e rules.Clear) {
	l.later(l.w.upTo(2*time.Millisecond), func() {
		all := l.w.of(e.ID)
		if len(all) == 0 {
			l.event(rules.Cleared(e))
			return
		}
		if l.w.records[e.ID].Run != e.Run {
			l.w.fail("P2: what clears run %d of %s meets a later run", e.Run, e.ID)
		}
		all[l.w.rng.IntN(len(all))].die(rules.Exit{Known: true, Signal: "SIGKILL"})
		l.clear(e)
	})
}

// probe makes attempts of a check until it is ended.
func (l *leader) probe(e rules.Check, mine int) {
	interval := l.w.between(100*time.Millisecond, time.Second)
	if !l.w.faults {
		interval *= 10 // most of the time passes without faults, and nothing new is learned from it
	}
	l.later(interval, func() {
		if l.checks[e.ID] != mine {
			return
		}
		p := l.w.find(l.w.records[e.ID].Process)
		ok := p != nil
		switch {
		case !ok:
		case e.Alive:
			ok = p.sick > l.w.now
		default:
			ok = p.ready <= l.w.now && !p.notifies
		}
		result := rules.Checked{ID: e.ID, Run: e.Run, Alive: e.Alive, OK: ok, Reason: "no answer"}
		if l.w.faults && l.w.chance(0.1) { // the goroutine of the attempt is late, and its process may be gone
			l.later(l.w.upTo(5*time.Second), func() { l.event(result) })
		} else {
			l.event(result)
		}
		if e.Alive || !ok {
			l.probe(e, mine)
		}
	})
}

// readNote hands the first notification to the rules. It is taken from the socket only after that.
func (l *leader) readNote() {
	w := l.w
	if len(w.notes) == 0 {
		return
	}
	n := w.notes[0]
	if s, ok := w.records[n.from.id]; ok && s.token == n.from.token && (!n.from.dead || s.Process == n.from.Process) {
		ev := n.event
		ev.ID, ev.Run = n.from.id, s.Run
		if ev.Main != (rules.Process{}) && w.find(ev.Main) == nil {
			ev.Main = rules.Process{}
		}
		if l.step(ev); l.dead {
			return
		}
	}
	w.notes = w.notes[1:]
	if len(w.notes) > 0 {
		l.post(l.readNote)
	}
}

func (w *world) spec(name string) (rules.Spec, bool) {
	for _, s := range w.specs {
		if s.Name == name {
			return s, true
		}
	}
	return rules.Spec{}, false
}
