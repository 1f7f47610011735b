package services

import (
	"math"
	"slices"
	"time"

	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// oracle has a model of its own of every instance. It learns only from what the rules are told,
// and checks what they answer.
type oracle struct {
	w        *world
	all      map[rules.ID]*model
	wishes   map[string]*wish
	last     map[string]rules.Spec // the last specification of each service
	stopping bool
	unsure   bool             // a leader died in the middle of what it did, and the next one settles it
	lost     map[string]bool  // wishes that it did not save
	exits    map[rules.ID]int // how many exits of each instance are noted
}

// wish is what operators asked for.
type wish struct {
	stopped bool
	some    map[int]bool // instances that are stopped
	rolling bool
	since   time.Duration // when a rolling restart last came forward, or 0 if that is not sure
}

// model is what the oracle knows of an instance.
type model struct {
	run       uint64
	busy      bool // from Start until nothing is left
	starting  bool // from Start until its answer
	up        bool // the main process lives, as far as the rules know
	ready     bool
	asked     rules.Why // why it is ended
	restart   bool      // an operator asked for a restart of this run
	hung      bool
	reloading bool
	quits     bool // it said that it stops
	at        bool // an operator asked in this step for a restart of this instance now
	misses    int
	pinged    time.Duration
	started   time.Duration
	deadline  time.Duration // of the stop
	killed    bool          // the deadline has passed, and no later message moves it
	failures  float64
	notBefore time.Duration
	outcome   rules.Outcome
	armed     bool
	print     uint64
	unsure    bool // the last leader died while it saved this instance
}

func newOracle(w *world) *oracle {
	return &oracle{w: w, all: map[rules.ID]*model{}, wishes: map[string]*wish{}, lost: map[string]bool{}, exits: map[rules.ID]int{}}
}

func (o *oracle) of(id rules.ID) *model {
	m := o.all[id]
	if m == nil {
		m = &model{}
		o.all[id] = m
	}
	return m
}

func (o *oracle) wish(name string) *wish {
	x := o.wishes[name]
	if x == nil {
		x = &wish{some: map[int]bool{}}
		o.wishes[name] = x
	}
	return x
}

// cut notes what a leader did not do any more when it died.
func (o *oracle) cut(ev rules.Event, left []rules.Effect) {
	o.unsure = true
	for _, e := range left {
		switch e := e.(type) {
		case rules.Save:
			o.of(e.Record.ID).unsure = true
		case rules.SaveWish:
			o.lost[e.Service] = true
		}
	}
	if _, ok := ev.(rules.Lead); ok {
		for _, m := range o.all {
			m.unsure = true
		}
	}
}

// judge checks one step of the rules.
func (o *oracle) judge(_ *leader, ev rules.Event, effects []rules.Effect) {
	again := o.learn(ev)
	saves := map[rules.ID]rules.Record{}
	defer o.judged()
	for _, e := range effects {
		switch e := e.(type) {
		case rules.Save:
			saves[e.Record.ID] = e.Record
		case rules.SaveWish:
			o.wish(e.Service).rolling = e.Wish.Rolling
		case rules.Tell:
			if e.Kind == rules.ToldAborted {
				o.aborted(e.ID)
				o.spare(e.ID.Service)
			}
		}
	}
	for _, id := range again {
		if r, ok := saves[id]; ok { // otherwise it is forgotten in the same step
			o.delayed(id, r)
		}
	}
	for _, e := range effects {
		switch e := e.(type) {
		case rules.Save:
			o.saved(e.Record)
		case rules.Start:
			o.starts(e.ID)
			o.of(e.ID).run = e.Run
		case rules.Tell:
			if m := o.of(e.ID); e.Kind == rules.ToldKilled {
				m.killed = true
			}
		case rules.Signal:
			if asked := o.of(e.ID).asked; asked == 0 || asked == rules.Itself {
				o.w.fail("P2: %s is told to stop, but nothing asked for that", e.ID)
			}
		case rules.Clear:
			if m := o.of(e.ID); m.up && (m.asked == 0 || o.w.clock() < m.deadline) {
				o.w.fail("P2: %s is killed before its time", e.ID)
			}
		case rules.Forget:
			if len(o.w.of(e.ID)) > 0 || o.of(e.ID).busy {
				o.w.fail("%s is forgotten, but it has processes", e.ID)
			}
			delete(o.all, e.ID)
			delete(o.exits, e.ID)
		}
	}
}

// judged checks what has to be done about an event at once.
func (o *oracle) judged() {
	for id, m := range o.all {
		if m.at && m.up && m.asked == 0 {
			o.w.fail("an operator restarts %s, but it runs on", id)
		}
		if _, ok := o.w.spec(id.Service); ok && m.quits && m.up && m.asked == 0 {
			o.w.fail("%s says that it stops, but counts as running", id)
		}
		m.at = false
	}
}

// aborted checks that an instance is a reason to end a rolling restart.
func (o *oracle) aborted(id rules.ID) {
	s, _ := o.w.spec(id.Service)
	m, x := o.of(id), o.wish(id.Service)
	switch now := o.w.clock(); {
	case m.up && m.ready && !m.reloading && m.asked == 0:
		o.w.fail("a rolling restart ends because of %s, which is ready", id)
	case m.outcome == rules.Failed, id.N > s.Instances && m.failures > 0:
	case now-x.since < s.RollTimeout:
		o.w.fail("a rolling restart ends because of %s, before its time is up", id)
	}
}

func (o *oracle) spare(service string) {
	for id, m := range o.all {
		if id.Service == service {
			m.restart = false
		}
	}
}

// learn updates the models. It returns the instances that failed and start again.
func (o *oracle) learn(ev rules.Event) (again []rules.ID) {
	now := o.w.clock()
	if id, run, ok := about(ev); ok && o.of(id).run != run {
		return nil // an earlier process
	}
	switch e := ev.(type) {
	case rules.Lead:
		return o.lead(e)
	case rules.Configured:
		o.configured()
	case rules.Started:
		o.begun(e.ID)
	case rules.StartFailed:
		m := o.of(e.ID)
		m.busy, m.starting = false, false
		if o.fails(e.ID, m, 0) {
			return []rules.ID{e.ID}
		}
	case rules.Exited:
		if o.exited(e.ID, e.Exit) {
			return []rules.ID{e.ID}
		}
	case rules.Cleared:
		if m := o.of(e.ID); !m.up && !m.starting {
			m.busy = false
			m.asked = 0
		}
	case rules.Checked:
		m := o.of(e.ID)
		switch {
		case !m.up || m.asked != 0 || e.Alive != m.ready:
		case !e.Alive && e.OK:
			o.ready(e.ID, m)
		case e.Alive && e.OK:
			m.misses = 0
		case e.Alive:
			m.misses++
		}
	case rules.Notified:
		m := o.of(e.ID)
		if _, ok := o.w.spec(e.ID.Service); ok && m.up {
			if e.Reloading && m.ready && !m.reloading {
				m.reloading = true
			}
			m.quits = m.quits || e.Stopping
		}
		if e.Ready && m.reloading && m.asked == 0 {
			m.reloading = false
			o.rollsOn(e.ID, m)
		}
		if e.Ready && !m.ready && (m.starting || m.up && m.asked == 0) {
			o.ready(e.ID, m)
		}
		if e.Ping {
			m.pinged = now
		}
		m.hung = m.hung || e.Hung && m.up
		if e.Extend > 0 && m.asked != 0 && !m.killed {
			m.deadline = max(m.deadline, now+e.Extend)
		}
	case rules.StopAll:
		o.stopping = true
	case rules.Batch:
		for _, one := range e.Events {
			o.command(one)
		}
	default:
		o.command(ev)
	}
	return nil
}

// about returns the run that an event is about.
func about(ev rules.Event) (rules.ID, uint64, bool) {
	switch e := ev.(type) {
	case rules.Started:
		return e.ID, e.Run, true
	case rules.StartFailed:
		return e.ID, e.Run, true
	case rules.Exited:
		return e.ID, e.Run, true
	case rules.Cleared:
		return e.ID, e.Run, true
	case rules.Checked:
		return e.ID, e.Run, true
	case rules.Notified:
		return e.ID, e.Run, true
	}
	return rules.ID{}, 0, false
}

func (o *oracle) lead(e rules.Lead) (again []rules.ID) {
	o.stopping = e.Stopping
	if e.Fresh {
		o.wishes = map[string]*wish{}
	} else if o.unsure {
		o.wishes = map[string]*wish{}
		for name, x := range e.Wishes {
			mine := o.wish(name)
			mine.stopped, mine.rolling, mine.since = x.Stopped, x.Rolling, 0
			for _, n := range x.StoppedInstances {
				mine.some[n] = true
			}
		}
	}
	unsure := o.unsure
	o.unsure = false
	for name, x := range e.Wishes {
		if mine := o.wish(name); x.RollBy <= o.w.clock() { // a new leader grants the whole time
			mine.since = o.w.clock()
		}
	}
	found := map[rules.ID]bool{}
	clear(o.exits)
	for _, f := range e.Found {
		r := f.Record
		known := o.all[r.ID] != nil
		m := o.of(r.ID)
		found[r.ID] = true
		o.exits[r.ID] = r.Exits
		asked := m.restart || !known || o.lost[r.ID.Service]
		if !known || m.unsure || e.Fresh {
			*m = model{ready: r.Ready, reloading: r.Reloading, asked: r.Why, misses: r.AliveMisses, started: r.StartedAt, deadline: r.StopBy, failures: r.Failures,
				notBefore: r.NotBefore, outcome: r.Outcome, armed: r.Armed, print: r.Fingerprint, restart: r.Generation < e.Wishes[r.ID.Service].Generation && !e.Fresh}
			if r.Phase != rules.Ending {
				m.asked = 0
			}
			if m.deadline > never {
				m.deadline = 0 // it was killed already
			}
		}
		lives := f.Main != (rules.Process{})
		if unsure && !e.Fresh {
			m.restart = asked && r.Generation < e.Wishes[r.ID.Service].Generation
		}
		m.run, m.starting, m.busy, m.pinged = r.Run, false, true, o.w.clock()
		m.up = lives && r.Phase != rules.Starting && r.Phase != rules.Clearing
		if e.Fresh && !lives {
			*m = model{run: r.Run, busy: f.Others, print: r.Fingerprint, started: r.StartedAt}
			if r.Phase == rules.Ending {
				m.asked = r.Why
			}
			if !f.Others {
				continue
			}
		}
		switch {
		case r.Phase == rules.Starting && lives:
			o.begun(r.ID)
		case r.Phase == rules.Starting:
			m.ready, m.busy = false, f.Others
			if s, ok := o.w.spec(r.ID.Service); ok && s.Restart == rules.Never {
				m.outcome, m.armed = rules.Failed, false
			}
		case (r.Phase == rules.Up || r.Phase == rules.Ending) && !lives:
			m.up = true
			if o.exited(r.ID, f.Exit) {
				again = append(again, r.ID)
			}
		case r.Phase == rules.Idle:
			m.busy = f.Others
		}
	}
	for id := range o.all {
		if !found[id] {
			delete(o.all, id)
		}
	}
	clear(o.lost)
	o.configured()
	return again
}

// configured learns what a new configuration means for what has ended.
func (o *oracle) configured() {
	for _, s := range o.w.specs {
		if o.last == nil {
			o.last = map[string]rules.Spec{}
		}
		o.last[s.Name] = s
		for n := 1; n <= s.Instances; n++ {
			o.of(rules.ID{Service: s.Name, N: n})
		}
	}
	for name := range o.wishes {
		if _, ok := o.w.spec(name); !ok {
			delete(o.wishes, name)
		}
	}
	for id, m := range o.all {
		s, ok := o.w.spec(id.Service)
		if !ok {
			m.restart = false
			continue
		}
		o.refresh(id, m)
		if m.up && !m.ready && !s.ReadyCheck {
			o.ready(id, m)
		}
	}
}

// refresh lets a program run again that has changed since it was started.
func (o *oracle) refresh(id rules.ID, m *model) {
	s, ok := o.w.spec(id.Service)
	if ok && !m.up && m.outcome != 0 && (m.print != s.Fingerprint || m.outcome == rules.Succeeded && s.Restart == rules.Always) {
		o.renew(m)
	}
}

func (o *oracle) renew(m *model) {
	m.outcome, m.failures, m.notBefore, m.armed = 0, 0, 0, false
}

func (o *oracle) begun(id rules.ID) {
	m := o.of(id)
	m.starting, m.up, m.started, m.pinged, m.hung, m.reloading, m.quits = false, true, o.w.clock(), o.w.clock(), false, false, false
	if s, ok := o.w.spec(id.Service); !ok || !s.ReadyCheck {
		o.ready(id, m)
	}
}

func (o *oracle) ready(id rules.ID, m *model) {
	m.ready, m.pinged, m.misses = true, o.w.clock(), 0
	o.rollsOn(id, m)
}

// rollsOn notes that a rolling restart comes forward, if an instance is not one of the old ones.
func (o *oracle) rollsOn(id rules.ID, m *model) {
	if x := o.wish(id.Service); !m.restart && m.asked == 0 {
		x.since = max(x.since, o.w.clock())
	}
}

// exited learns of an exit. It reports whether the instance failed and starts again.
func (o *oracle) exited(id rules.ID, exit rules.Exit) bool {
	m := o.of(id)
	if !m.up {
		return false
	}
	m.up, m.ready, m.misses, m.hung, m.reloading, m.quits = false, false, 0, false, false, false
	defer o.refresh(id, m)
	ran := max(o.w.clock()-m.started, 0)
	s, ok := o.w.spec(id.Service)
	asked := m.asked
	m.asked = 0
	switch {
	case asked == rules.Wanted:
		m.armed = false
	case asked == rules.Cycled, !ok:
	case asked == rules.Unhealthy:
		return o.fails(id, m, ran)
	case s.Restart != rules.Always && exit.OK():
		m.outcome, m.armed = rules.Succeeded, false
	case s.Restart == rules.Never:
		m.outcome, m.armed = rules.Failed, false
	default:
		return o.fails(id, m, ran)
	}
	return false
}

// fails counts a failure. It reports whether the instance starts again.
func (o *oracle) fails(id rules.ID, m *model, ran time.Duration) bool {
	s, ok := o.w.spec(id.Service)
	if !ok {
		return false
	}
	m.failures = m.failures*math.Pow(0.5, ran.Seconds()/10) + 1
	if s.Restart == rules.Never || s.Limit > 0 && m.failures > float64(s.Limit)-0.5 {
		m.outcome, m.armed = rules.Failed, false
		return false
	}
	return true
}

// delayed checks the delay after a failure: the first is free, the second has the documented
// first delay, and each further one doubles it.
func (o *oracle) delayed(id rules.ID, r rules.Record) {
	m := o.of(id)
	s, _ := o.w.spec(id.Service)
	want := 0.0
	if m.failures > 1.5 {
		want = min(float64(s.BackoffFirst)*math.Pow(2, m.failures-2), float64(s.BackoffMax))
	}
	got := float64(r.NotBefore - o.w.clock())
	if got < 0.75*want-100 || got > 1.25*want+100 {
		o.w.fail("%s has failed (%.2f failures) and is delayed by %s, want %s", id, m.failures, time.Duration(got), time.Duration(want))
	}
	m.notBefore = r.NotBefore
}

// command learns what an operator wants.
func (o *oracle) command(ev rules.Event) {
	switch e := ev.(type) {
	case rules.Due:
		s, ok := o.w.spec(e.Service)
		x := o.wish(e.Service)
		for n := 1; ok && s.Scheduled && n <= s.Instances; n++ {
			m := o.of(rules.ID{Service: e.Service, N: n})
			if !x.stopped && !x.some[n] && !o.stopping && !m.busy && !m.armed {
				o.renew(m)
				m.armed = true
			}
		}
	case rules.StartWanted:
		o.start(e.Service, e.Instance)
	case rules.StopWanted:
		x := o.wish(e.Service)
		if e.Instance == 0 {
			x.stopped, x.some, x.rolling = true, map[int]bool{}, false
		} else if !x.stopped {
			x.some[e.Instance] = true
		}
		o.each(e.Service, e.Instance, func(m *model) { m.armed = m.armed && m.busy })
	case rules.RestartWanted:
		o.start(e.Service, e.Instance)
		if x := o.wish(e.Service); x.rolling && e.Instance != 0 {
			id := rules.ID{Service: e.Service, N: e.Instance}
			if m := o.all[id]; m != nil && o.wants(id) {
				m.at = m.up && m.asked == 0
			}
			return
		}
		if e.Instance != 0 {
			o.spare(e.Service)
		}
		o.each(e.Service, e.Instance, func(m *model) { m.restart = m.busy && m.asked == 0 })
		x := o.wish(e.Service)
		x.rolling, x.since = e.Rolling && e.Instance == 0, o.w.clock()
	}
}

func (o *oracle) each(service string, n int, do func(*model)) {
	for id, m := range o.all {
		if id.Service == service && (n == 0 || n == id.N) {
			do(m)
		}
	}
}

func (o *oracle) start(service string, n int) {
	x := o.wish(service)
	s, ok := o.w.spec(service)
	switch {
	case n == 0:
		x.stopped, x.some = false, map[int]bool{}
	case x.stopped:
		x.stopped = false
		for k := 1; ok && k <= s.Instances; k++ {
			x.some[k] = k != n
		}
	default:
		delete(x.some, n)
	}
	o.each(service, n, func(m *model) {
		switch {
		case m.up && m.asked != 0:
			m.asked = rules.Cycled
		case !m.up && !m.starting:
			o.renew(m)
			m.armed = ok && s.Scheduled
		}
	})
}

// wants reports whether an instance should run.
func (o *oracle) wants(id rules.ID) bool {
	s, ok := o.w.spec(id.Service)
	x, m := o.wish(id.Service), o.of(id)
	switch {
	case o.stopping, !ok, x.stopped, x.some[id.N]:
		return false
	case id.N > s.Instances && !(x.rolling && id.N == s.Instances+1):
		return false
	case s.Scheduled:
		return m.armed || m.starting || m.up && m.asked == 0
	}
	return m.outcome == 0
}

// saved checks a record. A process that is ended needs a reason.
func (o *oracle) saved(r rules.Record) {
	m := o.of(r.ID)
	o.noted(r)
	if r.Phase == rules.Idle || r.Phase == rules.Clearing {
		if r.Outcome != m.outcome {
			o.w.fail("the outcome of %s is %d, want %d", r.ID, r.Outcome, m.outcome)
		}
	}
	if r.Phase != rules.Ending || m.asked == r.Why {
		return
	}
	if m.asked != 0 {
		o.w.fail("%s is ended for reason %d, but it was ended for %d", r.ID, r.Why, m.asked)
	}
	o.justify(r, m)
	timeout := 10 * time.Second
	if s, ok := o.w.spec(r.ID.Service); ok {
		timeout = s.StopTimeout
	} else if last, ok := o.last[r.ID.Service]; ok {
		// It was removed. A leader uses the timeout that it knew, or that of the start.
		timeout = min(timeout, last.StopTimeout)
		if started := o.w.records[r.ID].spec; started != nil {
			timeout = min(timeout, started.StopTimeout)
		}
	}
	m.asked, m.deadline, m.killed = r.Why, o.w.clock()+timeout, false
}

// noted checks the exit status in a record. It is the true one, and it is known if a member had a
// pidfd of the process.
func (o *oracle) noted(r rules.Record) {
	before := o.exits[r.ID]
	o.exits[r.ID] = r.Exits
	if r.Exits == before {
		return
	}
	d := o.w.deaths[r.Process]
	switch {
	case r.Exits != before+1:
		o.w.fail("P7: %s has ended %d times at once", r.ID, r.Exits-before)
	case d == nil:
		o.w.fail("P7: the end of %s is noted, but process %d lives", r.ID, r.Process.PID)
	case d.known && r.LastExit != d.exit:
		o.w.fail("P7: %s ended with %s, but %s is noted", r.ID, d.exit, r.LastExit)
	case !d.known && r.LastExit.Known:
		o.w.fail("P7: nobody could know how %s ended, but %s is noted", r.ID, r.LastExit)
	}
	o.w.stats.Exits++
	if !r.LastExit.Known {
		o.w.stats.Unknown++
	}
}

// justify checks that there is a reason to end a process.
func (o *oracle) justify(r rules.Record, m *model) {
	s, ok := o.w.spec(r.ID.Service)
	switch r.Why {
	case rules.Wanted:
		if o.wants(r.ID) {
			o.w.fail("P2: %s is stopped, but it is wanted", r.ID)
		}
		o.stopsInOrder(r.ID)
	case rules.Itself:
		if !m.quits {
			o.w.fail("%s counts as stopping, but it did not say so", r.ID)
		}
	case rules.Cycled:
		if m.at || m.print != s.Fingerprint {
			return
		}
		if !m.restart {
			o.w.fail("P2: %s is restarted, but nobody asked for that", r.ID)
		}
		if x := o.wish(r.ID.Service); x.rolling {
			o.rolls(r.ID, s)
			x.since = o.w.clock() + s.StopTimeout
		}
	case rules.Unhealthy:
		late := s.Watchdog > 0 && o.w.clock()-m.pinged >= s.Watchdog
		if !ok || !late && !m.hung && (s.AliveFailures == 0 || m.misses < s.AliveFailures) {
			o.w.fail("P2: %s is ended as unhealthy, but it is not", r.ID)
		}
	}
}

// rolls checks that a rolling restart leaves enough instances: all others that are wanted, and
// the additional one.
func (o *oracle) rolls(id rules.ID, s rules.Spec) {
	for n := 1; n <= s.Instances+1; n++ {
		other := rules.ID{Service: s.Name, N: n}
		m := o.of(other)
		if other != id && o.wants(other) && !(m.up && m.ready && !m.reloading && m.asked == 0) {
			o.w.fail("the rolling restart stops %s, but %s is not ready", id, other)
		}
	}
}

// uses reports whether an instance depends on a service. Of a removed service, a leader knows the
// last specification or the one of the start.
func (o *oracle) uses(id rules.ID, name string) bool {
	in := func(s rules.Spec) bool { return slices.Contains(s.Needs, name) || slices.Contains(s.After, name) }
	if s, ok := o.w.spec(id.Service); ok {
		return in(s)
	}
	last, ok := o.last[id.Service]
	started := o.w.records[id].spec
	return ok && started != nil && in(last) && in(*started)
}

// stopsInOrder checks that nothing is left of the services that depend on this one and are not
// wanted either.
func (o *oracle) stopsInOrder(id rules.ID) {
	for other, m := range o.all {
		if o.uses(other, id.Service) && !o.wants(other) && (m.busy || len(o.w.of(other)) > 0) {
			o.w.fail("%s is stopped before %s, which depends on it", id, other)
		}
	}
}

// starts checks that an instance may start now.
func (o *oracle) starts(id rules.ID) {
	m := o.of(id)
	s, ok := o.w.spec(id.Service)
	switch {
	case !ok || !o.wants(id):
		o.w.fail("%s is started, but it is not wanted", id)
	case m.busy:
		o.w.fail("P1: %s is started, but it has processes or is being started", id)
	case o.w.clock() < m.notBefore:
		o.w.fail("%s is started %s too early", id, m.notBefore-o.w.clock())
	case s.Scheduled && !m.armed:
		o.w.fail("%s is started, but it is not due", id)
	}
	if why := o.missing(s); why != "" {
		o.w.fail("%s is started, but %s", id, why)
	}
	m.busy, m.up, m.ready, m.asked, m.restart, m.misses, m.outcome, m.print, m.unsure = true, false, false, 0, false, 0, 0, s.Fingerprint, false
	m.hung, m.starting, m.reloading, m.quits = false, true, false, false
}

// missing says which dependency is not there, or "".
func (o *oracle) missing(s rules.Spec) string {
	for _, name := range s.Needs {
		d, ok := o.w.spec(name)
		for n := 1; n <= d.Instances; n++ {
			if m := o.of(rules.ID{Service: name, N: n}); !m.up || !m.ready || m.reloading || m.asked != 0 {
				return name + " is not ready"
			}
		}
		if !ok || d.Instances == 0 {
			return name + " does not exist"
		}
	}
	for _, name := range s.After {
		d, ok := o.w.spec(name)
		for n := 1; n <= d.Instances; n++ {
			m := o.of(rules.ID{Service: name, N: n})
			if m.outcome != rules.Succeeded && !(d.Restart == rules.Always && m.up && m.ready && !m.reloading && m.asked == 0) {
				return name + " has not succeeded"
			}
		}
		if !ok {
			return name + " does not exist"
		}
	}
	return ""
}
