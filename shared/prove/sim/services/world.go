package services

import (
	"cmp"
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"time"

	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// process is a simulated process.
type process struct {
	rules.Process
	id    rules.ID
	run   uint64
	main  bool
	alive bool
	exit  rules.Exit
	// known means that a later leader can find out how it ended.
	known bool
	// ignores SIGTERM.
	ignores bool
	// readyAt is when its ready check succeeds, and sickAt is when its alive check begins to fail.
	readyAt, sickAt time.Duration
	began           time.Duration
	fingerprint     uint64
}

// task is something that happens later.
type task struct {
	at   time.Duration
	seq  int
	lead int // it only happens while this leader lives; 0 means always
	do   func()
}

// world is the simulated host.
type world struct {
	rng     *rand.Rand
	now     time.Duration
	tasks   []task
	seq     int
	nextPID int
	procs   []*process // in the order of their start; dead ones are removed by forget

	specs   []rules.Spec
	records map[rules.ID]rules.Record
	wishes  map[string]rules.Wish
	fresh   bool // the next leader starts everything anew

	core     *rules.Core
	leader   int // counts leaders; the current one if core is not nil
	starting int // starts that this leader has begun and that are not answered
	leaving  bool
	watched  map[rules.ID]int // the pid that the leader watches
	calm     bool             // no more faults
	stopping bool

	oracle oracle
	err    error
	trace  []string
	steps  int
}

func newWorld(seed uint64) *world {
	w := &world{
		rng: rand.New(rand.NewPCG(seed, 77)), now: time.Hour, nextPID: 100,
		records: map[rules.ID]rules.Record{}, wishes: map[string]rules.Wish{},
	}
	w.oracle.init(w)
	w.specs = w.randomSpecs()
	return w
}

func (w *world) chance(percent int) bool { return w.rng.IntN(100) < percent }

func (w *world) span(most time.Duration) time.Duration {
	return time.Duration(w.rng.Int64N(int64(most)) + 1)
}

func (w *world) fail(format string, args ...any) {
	if w.err == nil {
		w.err = fmt.Errorf("at %s: %s", w.now, fmt.Sprintf(format, args...))
	}
}

func (w *world) log(format string, args ...any) {
	if len(w.trace) < 4000 {
		w.trace = append(w.trace, fmt.Sprintf("%12s ", w.now)+fmt.Sprintf(format, args...))
	}
}

// later does something after a delay. With lead it only happens if the current leader still lives.
func (w *world) later(d time.Duration, lead bool, do func()) {
	t := task{at: w.now + d, seq: w.seq, do: do}
	w.seq++
	if lead {
		t.lead = w.leader
	}
	w.tasks = append(w.tasks, t)
}

// run takes tasks in the order of their time until a moment.
func (w *world) run(until time.Duration) {
	for w.err == nil {
		i := -1
		for k, t := range w.tasks {
			if t.at <= until && (i < 0 || cmp.Or(cmp.Compare(t.at, w.tasks[i].at), cmp.Compare(t.seq, w.tasks[i].seq)) < 0) {
				i = k
			}
		}
		wake, ok := time.Duration(0), false
		if w.core != nil && !w.leaving {
			wake, ok = w.core.Wake()
		}
		if ok && wake <= until && (i < 0 || wake < w.tasks[i].at) {
			w.now = max(w.now, wake)
			w.step(rules.Tick{})
			continue
		}
		if i < 0 {
			break
		}
		t := w.tasks[i]
		w.tasks = slices.Delete(w.tasks, i, i+1)
		w.now = max(w.now, t.at)
		if t.lead == 0 || t.lead == w.leader && w.core != nil {
			t.do()
		}
	}
	w.now = max(w.now, until)
}

// maxSteps bounds a run. Most have a few hundred steps.
const maxSteps = 100_000

// step feeds an event to the leader's rules and carries out the effects. The leader may die
// between any two of them.
func (w *world) step(ev rules.Event) {
	if w.core == nil || w.err != nil {
		return
	}
	if w.steps++; w.steps > maxSteps {
		w.fail("it never comes to rest")
		return
	}
	if c, ok := ev.(rules.Checked); !ok || !c.OK {
		w.log("event %T %+v", ev, ev)
	}
	leader := w.leader
	effects := w.core.Step(w.now, ev)
	w.oracle.stepped(ev)
	for _, e := range effects {
		if !w.calm && w.rng.IntN(400) == 0 {
			w.die("between two effects")
		}
		if w.core == nil || w.leader != leader || w.err != nil {
			return
		}
		w.do(e)
	}
	if w.leaving && w.starting == 0 {
		w.die("after a hand-over")
	}
}

func (w *world) die(how string) {
	w.log("leader %d dies %s", w.leader, how)
	w.core, w.leaving, w.starting = nil, false, 0
	w.watched = nil
}

func (w *world) do(e rules.Effect) {
	switch e := e.(type) {
	case rules.Save:
		before := w.records[e.Record.ID].Phase
		w.records[e.Record.ID] = e.Record
		if e.Record.Phase == rules.Ending && before != rules.Ending {
			w.oracle.ends(e.Record.ID)
		}
		return
	case rules.SaveWish:
		w.wishes[e.Service] = e.Wish
		if e.Wish.Empty() {
			delete(w.wishes, e.Service)
		}
		return
	}
	if w.leaving {
		return
	}
	w.log("effect %T %+v", e, e)
	switch e := e.(type) {
	case rules.Forget:
		w.oracle.forgotten(e.ID)
		delete(w.records, e.ID)
	case rules.Start:
		w.start(e)
	case rules.Adopt:
		w.watched[e.ID] = e.Process.PID
		if p := w.find(e.Process.PID); p == nil || !p.alive {
			w.reportDeath(e.ID, e.Run, e.Process.PID)
		}
	case rules.Signal:
		w.oracle.signalled(e.ID)
		if p := w.main(e.ID); p != nil && !p.ignores {
			w.later(w.span(200*time.Millisecond), false, func() { w.end(p, rules.Exit{Known: true, Code: w.rng.IntN(2) * 143}) })
		}
	case rules.Clear:
		w.oracle.cleared(e.ID)
		w.later(w.span(20*time.Millisecond), true, func() {
			for _, p := range w.of(e.ID) {
				w.end(p, rules.Exit{Known: true, Signal: "SIGKILL"})
			}
			w.step(rules.Cleared{ID: e.ID, Run: e.Run})
		})
	case rules.Check:
		w.check(e)
	case rules.Tell:
		w.oracle.told(e)
	}
}

// start forks after a moment, and reports it after another one. The leader may die in between.
func (w *world) start(e rules.Start) {
	w.oracle.starts(e.ID)
	w.starting++
	leader := w.leader
	fingerprint := w.spec(e.ID.Service).Fingerprint
	w.later(w.span(5*time.Millisecond), true, func() {
		if w.chance(3) {
			w.starting--
			w.step(rules.StartFailed{ID: e.ID, Run: e.Run, Reason: "no such program"})
			return
		}
		p := w.fork(e, fingerprint)
		if !w.calm && w.rng.IntN(60) == 0 {
			w.die("between fork and record")
			return
		}
		w.later(w.span(5*time.Millisecond), true, func() {
			if w.leader == leader {
				w.starting--
				w.step(rules.Started{ID: e.ID, Run: e.Run, Process: p.Process})
			}
		})
	})
}

// fork makes a process with a random fate.
func (w *world) fork(e rules.Start, fingerprint uint64) *process {
	w.nextPID++
	p := &process{Process: rules.Process{PID: w.nextPID, StartTime: uint64(w.now)}, id: e.ID, run: e.Run, main: true, alive: true,
		known: w.chance(70), ignores: w.chance(10), readyAt: w.now + w.span(300*time.Millisecond), began: w.now, fingerprint: fingerprint}
	w.oracle.forks(p)
	w.procs = append(w.procs, p)
	if w.calm {
		if s := w.spec(e.ID.Service); s != nil && s.Restart != rules.Always {
			w.later(w.span(time.Second), false, func() { w.end(p, rules.Exit{Known: true}) })
		}
		return p
	}
	if w.chance(10) {
		p.readyAt = never
	}
	if w.chance(10) {
		p.sickAt = w.now + w.span(5*time.Second)
	}
	if w.chance(20) { // it forks a daemon that stays
		w.later(w.span(time.Second), false, func() {
			if p.alive {
				w.nextPID++
				w.procs = append(w.procs, &process{Process: rules.Process{PID: w.nextPID, StartTime: uint64(w.now)}, id: p.id, run: p.run, alive: true, ignores: w.chance(50)})
			}
		})
	}
	if w.chance(60) {
		life := w.span(20 * time.Second)
		if w.chance(50) {
			life = w.span(50 * time.Millisecond)
		}
		code := w.rng.IntN(3) / 2
		w.later(life, false, func() { w.end(p, rules.Exit{Known: true, Code: code}) })
	}
	return p
}

const never = time.Duration(1<<62 - 1)

// end is the death of a process.
func (w *world) end(p *process, exit rules.Exit) {
	if !p.alive {
		return
	}
	p.alive, p.exit = false, exit
	if p.main && w.core != nil && w.watched[p.id] == p.PID {
		w.reportDeath(p.id, p.run, p.PID)
	}
}

// reportDeath tells the leader about the death of a process that it watches.
func (w *world) reportDeath(id rules.ID, run uint64, pid int) {
	w.later(w.span(2*time.Millisecond), true, func() {
		if w.leaving {
			return
		}
		exit := rules.Exit{}
		if p := w.find(pid); p != nil {
			exit = p.exit
			exit.Known = exit.Known && p.known
		}
		w.oracle.died(id)
		w.step(rules.Exited{ID: id, Run: run, Exit: exit})
	})
}

// check answers the checks of a process until the leader or the process ends.
func (w *world) check(e rules.Check) {
	interval := 100 * time.Millisecond
	if w.calm {
		interval = time.Minute
	}
	w.later(interval, true, func() {
		p := w.main(e.ID)
		if p == nil || p.run != e.Run || w.leaving {
			return
		}
		ok := w.now >= p.readyAt
		if e.Alive {
			ok = p.sickAt == 0 || w.now < p.sickAt
		}
		w.step(rules.Checked{ID: e.ID, Run: e.Run, Alive: e.Alive, OK: ok, Reason: "the check said so"})
		if e.Alive || !ok {
			w.check(e)
		}
	})
}

func (w *world) find(pid int) *process {
	for _, p := range w.procs {
		if p.PID == pid {
			return p
		}
	}
	return nil
}

// main returns the living main process of an instance.
func (w *world) main(id rules.ID) *process {
	for _, p := range w.procs {
		if p.id == id && p.main && p.alive {
			return p
		}
	}
	return nil
}

// of returns the living processes of an instance.
func (w *world) of(id rules.ID) []*process {
	var out []*process
	for _, p := range w.procs {
		if p.id == id && p.alive {
			out = append(out, p)
		}
	}
	return out
}

func (w *world) spec(name string) *rules.Spec {
	for i := range w.specs {
		if w.specs[i].Name == name {
			return &w.specs[i]
		}
	}
	return nil
}

// lead makes a new leader, which looks at what is there.
func (w *world) lead() {
	w.leader++
	w.core = rules.New(rand.New(rand.NewPCG(w.rng.Uint64(), 1)))
	w.watched, w.starting, w.leaving = map[rules.ID]int{}, 0, false
	ids := map[rules.ID]bool{}
	for id := range w.records {
		ids[id] = true
	}
	for _, p := range w.procs {
		if p.alive {
			ids[p.id] = true
		}
	}
	var found []rules.Found
	for _, id := range slices.SortedFunc(maps.Keys(ids), compareIDs) {
		found = append(found, w.survey(id))
	}
	fresh := w.fresh
	w.fresh = false
	if fresh {
		w.stopping = false
	}
	wishes := map[string]rules.Wish{}
	for k, v := range w.wishes {
		wishes[k] = v
	}
	w.oracle.leads(fresh)
	w.step(rules.Lead{Specs: slices.Clone(w.specs), Wishes: wishes, Found: found, Fresh: fresh, Stopping: w.stopping})
}

func compareIDs(a, b rules.ID) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.N, b.N))
}

func (w *world) survey(id rules.ID) rules.Found {
	f := rules.Found{Record: w.records[id]}
	f.Record.ID = id
	for _, p := range w.procs {
		switch {
		case p.id != id:
		case p.alive && p.main && (p.Process == f.Record.Process || f.Record.Phase == rules.Starting && f.Record.Run == p.run):
			f.Main = p.Process
		case p.alive:
			f.Others = true
		case p.Process == f.Record.Process && w.chance(30):
			f.Exit = p.exit
		}
	}
	return f
}
