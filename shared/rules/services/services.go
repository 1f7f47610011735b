package services

import (
	"cmp"
	"fmt"
	"maps"
	"math"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/rules/keeper"
	"github.com/dynast-io/dynast/shared/rules/plural"
)

const (
	// failureHalfLife is the time that a process must run until the count of its failures halves.
	failureHalfLife = 10 * time.Second
	// forgottenStopTimeout is the stop timeout of an instance whose service is gone from the
	// configuration.
	forgottenStopTimeout = 10 * time.Second
)

// Core holds the state of all instances. The zero value is not usable; see New.
type Core struct {
	rng       *rand.Rand
	now       time.Duration
	decided   time.Duration // when decideAll was last called
	leading   bool
	stopping  bool   // StopAll was given
	runs      uint64 // the highest Run
	specs     map[string]*Spec
	names     []string // of the specs, in their order
	wishes    map[string]Wish
	instances map[ID]*instance
	order     []*instance // by ID
	out       []Effect
	saved     map[ID]bool     // which records changed in this step
	wished    map[string]bool // which wishes changed in this step
}

// instance is a record and its spec.
type instance struct {
	Record
	spec *Spec // the last one that is known; nil if only an earlier leader knew it
	gone bool  // the service is not configured any more
	// clearing means that a Clear has not been answered. There is never a second one at the same
	// time: the first answer would allow a start, and the second Clear would kill what was started.
	clearing bool
}

// removed reports whether an instance belongs to no configured service.
func (i *instance) removed() bool { return i.spec == nil || i.gone }

// isReady reports whether an instance serves.
func (i *instance) isReady() bool { return i.Phase == Up && i.Ready && !i.Reloading }

// New returns a Core that waits for Lead. rng is the source of the jitter.
func New(rng *rand.Rand) *Core {
	return &Core{rng: rng, specs: map[string]*Spec{}, wishes: map[string]Wish{}, instances: map[ID]*instance{},
		saved: map[ID]bool{}, wished: map[string]bool{}}
}

// Step takes an event and returns what to do about it.
func (c *Core) Step(now time.Duration, ev Event) []Effect {
	c.now, c.out = max(c.now, now), nil
	if lead, ok := ev.(Lead); ok {
		c.lead(lead)
	} else if c.leading {
		c.handle(ev)
	}
	if c.leading && c.mayMatter(ev) {
		for range maxRounds {
			if !c.decideAll() {
				break
			}
		}
	}
	return c.finish()
}

// mayMatter reports whether decisions may differ after an event. The success of a check, for
// example, is frequent and changes nothing.
func (c *Core) mayMatter(ev Event) bool {
	switch ev.(type) {
	case Tick, Lead, Configured, StopAll:
		return true
	}
	return len(c.saved)+len(c.wished) > 0
}

// maxRounds bounds how often one step decides again because a decision changed what others
// depend on.
const maxRounds = 8

// finish returns the effects of the step, with the saves first.
func (c *Core) finish() []Effect {
	var out []Effect
	for _, id := range slices.SortedFunc(maps.Keys(c.saved), compareIDs) {
		if i := c.instances[id]; i != nil {
			out = append(out, Save{Record: i.Record})
		}
	}
	// Records come first. An instance that a restart spares is told from the others by the
	// generation in its record. With the wish first, a leader that died in between would leave a
	// restart of all instances.
	for _, name := range slices.Sorted(maps.Keys(c.wished)) {
		out = append(out, SaveWish{Service: name, Wish: c.wishes[name].clone()})
	}
	clear(c.wished)
	clear(c.saved)
	return append(out, c.out...)
}

func (w Wish) clone() Wish {
	w.StoppedInstances = slices.Clone(w.StoppedInstances)
	return w
}

func (c *Core) do(e ...Effect)   { c.out = append(c.out, e...) }
func (c *Core) save(i *instance) { c.saved[i.ID] = true }
func (c *Core) setPhase(i *instance, p Phase) {
	i.Phase = p
	c.save(i)
}

// clear kills what is left of a process tree.
func (c *Core) clear(i *instance) {
	if !i.clearing {
		i.clearing = true
		c.do(Clear{ID: i.ID, Run: i.Run})
	}
}

func (c *Core) tell(i *instance, kind Kind, reason string) {
	c.do(Tell{ID: i.ID, Kind: kind, Reason: reason, Exit: i.LastExit})
}

func (c *Core) setWish(service string, w Wish) {
	c.wishes[service] = w
	c.wished[service] = true
}

func (c *Core) lead(e Lead) {
	c.leading, c.stopping = true, e.Stopping
	c.wishes = map[string]Wish{}
	for name, w := range e.Wishes {
		if e.Fresh {
			c.wished[name] = true // nothing is left of it
		} else {
			if w = w.clone(); w.RollBy <= c.now {
				w.RollBy = 0 // there was no leader for a while, and a rolling restart has its whole time again
			}
			c.wishes[name] = w
		}
	}
	for _, f := range e.Found {
		i := &instance{Record: f.Record, spec: f.Spec}
		c.instances[i.ID] = i
		c.runs = max(c.runs, i.Run)
	}
	c.configure(e.Specs)
	for _, f := range e.Found {
		i := c.instances[f.Record.ID]
		if e.Fresh && f.Main == (Process{}) {
			c.renew(i)
			if !f.Others {
				c.setPhase(i, Idle) // what ran before ended with the host, and that says nothing
				i.Process, i.Ready, i.Reloading, i.PingBy = Process{}, false, false, 0
				continue
			}
		}
		c.survey(i, f)
	}
}

// renew forgets how earlier runs ended.
func (c *Core) renew(i *instance) {
	i.Outcome, i.Failures, i.NotBefore, i.Armed, i.Reason = Unfinished, 0, 0, false, ""
	c.save(i)
}

// survey continues with what an earlier leader left of an instance.
func (c *Core) survey(i *instance, f Found) {
	lives := f.Main != (Process{})
	switch {
	case i.Phase == Starting && !lives:
		c.interrupted(i, f.Others)
	case lives && (i.Phase == Starting || i.Phase == Up || i.Phase == Ending):
		c.adopt(i, f.Main)
	case i.Phase == Up || i.Phase == Ending:
		c.exited(i, f.Exit)
	case i.Phase == Clearing || lives || f.Others:
		c.setPhase(i, Clearing)
		c.clear(i)
	}
}

// interrupted handles a start that left no main process. Whether there was one is unknown, unless
// it left others.
func (c *Core) interrupted(i *instance, others bool) {
	i.Ready = false
	if others {
		c.setPhase(i, Clearing)
		c.clear(i)
	} else {
		c.setPhase(i, Idle)
	}
	if i.spec != nil && i.spec.Restart == Never {
		c.give(i, Failed, "the leader died while it started the program, and it is not known whether the program ran")
		c.refresh(i)
	}
}

func (c *Core) adopt(i *instance, main Process) {
	if i.Phase == Starting {
		c.up(i, main)
	} else {
		i.Process = main
		c.do(Adopt{ID: i.ID, Run: i.Run, Process: main})
		c.check(i)
	}
	c.save(i)
	// The earlier leader may have died before it did this.
	switch {
	case i.Phase == Ending && i.StopBy == never:
		c.clear(i)
	case i.Phase == Ending && i.Why != Itself:
		c.do(Signal{ID: i.ID, Run: i.Run})
	}
	if i.PingBy != 0 && !i.removed() {
		i.PingBy = c.now + i.spec.Watchdog // nobody read pings in between
	}
	c.tell(i, ToldAdopted, "")
}

func (c *Core) configure(specs []Spec) {
	c.specs, c.names = map[string]*Spec{}, nil
	for _, s := range specs {
		c.specs[s.Name] = &s
		c.names = append(c.names, s.Name)
	}
	for name := range c.wishes {
		if c.specs[name] == nil {
			delete(c.wishes, name)
			c.wished[name] = true
		}
	}
	for _, s := range specs {
		for n := 1; n <= s.Instances; n++ {
			c.ensure(ID{s.Name, n})
		}
	}
	for _, i := range c.instances {
		if s := c.specs[i.ID.Service]; s != nil {
			i.spec, i.gone = s, false
			if s.Watchdog == 0 || s.Fingerprint != i.Fingerprint {
				// The process pings at the interval that it was started with. It can be a process
				// that only runs on until those that depend on it have ended.
				i.PingBy = 0
			}
		} else {
			i.gone, i.PingBy = true, 0
		}
		c.refresh(i)
	}
	c.sort()
}

// refresh lets an instance run again that is finished or has failed, if the configuration has
// changed the program since it was started, or wants it to run always.
func (c *Core) refresh(i *instance) {
	if s := i.spec; s != nil && (i.Outcome != Unfinished && i.Run > 0 && i.Fingerprint != s.Fingerprint || i.Outcome == Succeeded && s.Restart == Always) {
		c.renew(i)
	}
}

func (c *Core) ensure(id ID) *instance {
	i := c.instances[id]
	if i == nil {
		i = &instance{Record: Record{ID: id}, spec: c.specs[id.Service]}
		c.instances[id] = i
		c.order = nil
	}
	return i
}

func (c *Core) sort() {
	c.order = slices.SortedFunc(maps.Values(c.instances), func(a, b *instance) int { return compareIDs(a.ID, b.ID) })
}

func compareIDs(a, b ID) int {
	return cmp.Or(cmp.Compare(a.Service, b.Service), cmp.Compare(a.N, b.N))
}

func (c *Core) handle(ev Event) {
	switch e := ev.(type) {
	case Tick:
	case Configured:
		c.configure(e.Specs)
		for _, i := range c.order {
			if i.Phase == Up { // the checks may have changed
				c.do(EndChecks{ID: i.ID, Run: i.Run})
				c.check(i)
			}
		}
	case Started:
		c.started(e)
	case StartFailed:
		c.startFailed(e)
	case Exited:
		if i := c.current(e.ID, e.Run); i != nil && (i.Phase == Up || i.Phase == Ending) {
			c.exited(i, e.Exit)
		}
	case Cleared:
		if i := c.current(e.ID, e.Run); i != nil {
			i.clearing = false
			if i.Phase == Clearing { // otherwise Exited is still to come
				i.Process, i.Why, i.StopBy = Process{}, 0, 0
				c.setPhase(i, Idle)
			}
		}
	case Checked:
		c.checked(e)
	case Notified:
		c.notified(e)
	case Due:
		c.due(e.Service)
	case StopAll:
		c.stopping = true
	case Batch: // nothing is decided in between
		for _, ev := range e.Events {
			c.handle(ev)
		}
	case StartWanted:
		c.startWanted(e)
	case StopWanted:
		c.stopWanted(e)
	case RestartWanted:
		c.restartWanted(e)
	}
}

// current returns the instance if an event is about its current process.
func (c *Core) current(id ID, run uint64) *instance {
	if i := c.instances[id]; i != nil && i.Run == run {
		return i
	}
	return nil
}

func (c *Core) started(e Started) {
	if i := c.current(e.ID, e.Run); i != nil && i.Phase == Starting {
		c.up(i, e.Process)
		c.tell(i, ToldStarted, "")
	}
}

// up handles that the process of an instance exists.
func (c *Core) up(i *instance, main Process) {
	i.Process, i.StartedAt = main, c.now
	c.setPhase(i, Up)
	i.Reason = ""
	c.do(Adopt{ID: i.ID, Run: i.Run, Process: main})
	if i.Ready { // it said so before Started was reported
		c.ready(i)
		return
	}
	c.check(i)
}

// check begins the check that is due for a process. Without a ready check it is ready.
func (c *Core) check(i *instance) {
	switch {
	case i.Phase != Up:
	case !i.Ready && (i.removed() || !i.spec.ReadyCheck):
		c.ready(i)
	case i.removed():
	case !i.Ready:
		c.do(Check{ID: i.ID, Run: i.Run})
	case i.Ready && i.spec.AliveFailures > 0:
		c.do(Check{ID: i.ID, Run: i.Run, Alive: true})
	}
}

func (c *Core) ready(i *instance) {
	i.Ready, i.AliveMisses, i.PingBy, i.Reason = true, 0, 0, ""
	if !i.removed() && i.spec.Watchdog > 0 {
		i.PingBy = c.now + i.spec.Watchdog
	}
	c.save(i)
	c.check(i)
	if !i.removed() && i.spec.ReadyCheck {
		c.tell(i, ToldReady, "")
	}
	c.rollOn(i, c.now)
}

// rollOn gives a rolling restart its whole time again, from a moment on.
func (c *Core) rollOn(i *instance, from time.Duration) {
	w := c.wishes[i.ID.Service]
	if w.Rolling && w.RollBy != 0 && i.Generation >= w.Generation && !i.removed() {
		w.RollBy = max(w.RollBy, from+i.spec.RollTimeout)
		c.setWish(i.ID.Service, w)
	}
}

func (c *Core) startFailed(e StartFailed) {
	i := c.current(e.ID, e.Run)
	if i == nil || i.Phase != Starting {
		return
	}
	c.setPhase(i, Idle)
	i.Ready, i.Reason = false, e.Reason
	c.tell(i, ToldNoStart, e.Reason)
	c.again(i, 0)
}

func (c *Core) exited(i *instance, exit Exit) {
	ran := max(c.now-i.StartedAt, 0)
	i.LastExit, i.ExitedAt = exit, c.now
	i.Exits++
	why := i.Why
	if i.Phase == Up {
		why = 0
	}
	i.Ready, i.Reloading, i.PingBy, i.AliveMisses = false, false, 0, 0
	c.setPhase(i, Clearing)
	c.do(EndChecks{ID: i.ID, Run: i.Run})
	c.clear(i)
	defer c.refresh(i)
	switch why {
	case Wanted, Cycled:
		c.tell(i, ToldStopped, "")
		if why == Wanted {
			i.Armed = false
		}
		return
	case Unhealthy:
		// The exit status says nothing, because dynast ended the process.
		c.again(i, ran)
		return
	}
	i.Reason = exit.String()
	c.tell(i, ToldExited, i.Reason)
	switch {
	case i.removed():
	case i.spec.Restart != Always && exit.OK():
		c.give(i, Succeeded, "")
	case i.spec.Restart == Never:
		c.give(i, Failed, i.Reason)
	default:
		c.again(i, ran)
	}
}

// again schedules the next start after a failure. ran is how long the process ran.
func (c *Core) again(i *instance, ran time.Duration) {
	s := i.spec
	if i.removed() {
		return
	}
	i.Failures = i.Failures*math.Exp2(-float64(ran)/float64(failureHalfLife)) + 1
	c.save(i)
	switch {
	case s.Restart == Never:
		c.give(i, Failed, i.Reason)
	case s.Limit > 0 && i.Failures > float64(s.Limit)-0.5:
		c.give(i, Failed, fmt.Sprintf("%s in a short time; the last one: %s", plural.Count(s.Limit, "failure"), i.Reason))
	default:
		// The first failure is not delayed. The second waits for about BackoffFirst.
		i.NotBefore = c.now
		if i.Failures > 1.5 {
			// Delay doubles its base with each failure, so the second one, which is the first that
			// is delayed, needs a quarter of it.
			i.NotBefore += keeper.Delay(s.BackoffFirst/4, s.BackoffMax, i.Failures, c.rng)
		}
		i.Restarts++
	}
}

// give ends the runs of an instance until somebody starts it again.
func (c *Core) give(i *instance, o Outcome, reason string) {
	i.Outcome, i.Reason, i.Armed = o, reason, false
	c.save(i)
	if o == Succeeded {
		c.tell(i, ToldDone, "")
	} else {
		c.tell(i, ToldFailed, reason)
	}
}

func (c *Core) checked(e Checked) {
	i := c.current(e.ID, e.Run)
	if i == nil || i.Phase != Up || i.removed() || e.Alive != i.Ready || e.Alive && i.spec.AliveFailures == 0 {
		return // it comes from a check that has ended
	}
	switch {
	case !e.Alive && e.OK:
		c.ready(i)
	case !e.Alive:
		if i.Reason != e.Reason {
			i.Reason = e.Reason
			c.save(i)
		}
	case e.OK && i.AliveMisses > 0:
		i.AliveMisses = 0
		c.save(i)
	case !e.OK:
		i.AliveMisses++
		c.save(i)
		if i.AliveMisses >= i.spec.AliveFailures {
			c.unhealthy(i, e.Reason)
		}
	}
}

func (c *Core) notified(e Notified) {
	i := c.current(e.ID, e.Run)
	if i != nil && i.Phase == Starting && e.Ready && !i.Ready {
		i.Ready = true // a program can be faster than the report of its start
		c.save(i)
	}
	if i == nil || (i.Phase != Up && i.Phase != Ending) {
		return
	}
	if e.Main != (Process{}) && e.Main != i.Process {
		i.Process = e.Main
		c.save(i)
		c.do(Adopt{ID: i.ID, Run: i.Run, Process: e.Main})
	}
	if e.Extend > 0 && i.Phase == Ending {
		i.StopBy = max(i.StopBy, c.now+e.Extend)
		c.save(i)
	}
	if i.Phase != Up || i.removed() {
		return
	}
	if e.Reloading && i.Ready && !i.Reloading {
		i.Reloading, i.Reason = true, "the program reloads its configuration"
		c.save(i)
	}
	switch {
	case e.Ready && !i.Ready && i.spec.ReadyCheck:
		c.do(EndChecks{ID: i.ID, Run: i.Run})
		c.ready(i)
	case e.Ready && i.Reloading:
		i.Reloading, i.Reason = false, ""
		c.save(i)
		c.tell(i, ToldReady, "")
		c.rollOn(i, c.now)
	}
	switch {
	case e.Stopping:
		// As after a stop signal, the program has the stop timeout. Its exit counts as any other.
		c.end(i, Itself)
		i.StopBy = max(i.StopBy, c.now+e.Extend)
	case e.Hung:
		c.unhealthy(i, "it reported a failure to its watchdog")
	case e.Ping && i.PingBy != 0:
		i.PingBy = c.now + i.spec.Watchdog // not saved: a later leader gives it a whole interval
	}
}

func (c *Core) unhealthy(i *instance, reason string) {
	i.Reason = reason
	c.tell(i, ToldUnhealthy, reason)
	c.end(i, Unhealthy)
}

// end asks a process to exit.
func (c *Core) end(i *instance, why Why) {
	timeout := forgottenStopTimeout
	if i.spec != nil {
		timeout = i.spec.StopTimeout
		if why == Unhealthy && i.spec.HungTimeout > 0 {
			timeout = i.spec.HungTimeout
		}
	}
	i.Why, i.StopBy = why, c.now+timeout
	c.setPhase(i, Ending)
	c.do(EndChecks{ID: i.ID, Run: i.Run})
	if why != Itself {
		c.do(Signal{ID: i.ID, Run: i.Run})
	}
	if w := c.wishes[i.ID.Service]; w.RollBy != 0 && why == Cycled {
		w.RollBy = max(w.RollBy, i.StopBy+i.spec.RollTimeout)
		c.setWish(i.ID.Service, w)
	}
}

// due starts a run of a scheduled service.
func (c *Core) due(service string) {
	s := c.specs[service]
	if s == nil || !s.Scheduled || c.stopping || c.wishes[service].Stopped {
		return
	}
	for n := 1; n <= s.Instances; n++ {
		i := c.instances[ID{service, n}]
		if c.stopped(i) {
			continue
		}
		if i.Armed || i.Phase != Idle {
			i.Skipped++
			c.save(i)
			c.tell(i, ToldSkipped, "the run before it has not ended")
			continue
		}
		c.arm(i)
	}
}

// arm makes an instance start again, whatever happened before.
func (c *Core) arm(i *instance) {
	c.renew(i)
	i.Armed = i.spec != nil && i.spec.Scheduled
}

// those returns the instances that a command is about: one, or all if n is 0.
func (c *Core) those(service string, n int) []*instance {
	var out []*instance
	for _, i := range c.instances {
		if i.ID.Service == service && (n == 0 || i.ID.N == n) {
			out = append(out, i)
		}
	}
	return out
}

func (c *Core) startWanted(e StartWanted) {
	w := c.wishes[e.Service].clone()
	if e.Instance == 0 {
		w.Stopped, w.StoppedInstances = false, nil
	} else {
		w = c.allBut(e.Service, w, e.Instance)
	}
	c.setWish(e.Service, w)
	for _, i := range c.those(e.Service, e.Instance) {
		switch i.Phase {
		case Idle, Clearing:
			c.arm(i)
		case Ending:
			i.Why = Cycled // it starts again when it has ended, whatever it was ended for
			c.save(i)
		}
	}
}

// allBut returns a wish in which one instance is not stopped.
func (c *Core) allBut(service string, w Wish, n int) Wish {
	if s := c.specs[service]; w.Stopped && s != nil {
		w.Stopped, w.StoppedInstances = false, nil
		for k := 1; k <= s.Instances; k++ {
			w.StoppedInstances = append(w.StoppedInstances, k)
		}
	}
	w.StoppedInstances = slices.DeleteFunc(w.StoppedInstances, func(k int) bool { return k == n })
	return w
}

func (c *Core) stopWanted(e StopWanted) {
	w := c.wishes[e.Service].clone()
	switch {
	case e.Instance == 0:
		w.Stopped, w.StoppedInstances, w.Rolling, w.RollBy, w.RollFailed = true, nil, false, 0, ""
	case !w.Stopped && !slices.Contains(w.StoppedInstances, e.Instance):
		w.StoppedInstances = append(w.StoppedInstances, e.Instance)
	}
	c.setWish(e.Service, w)
	for _, i := range c.those(e.Service, e.Instance) {
		if i.Phase == Idle {
			i.Armed = false
			c.save(i)
		}
	}
}

func (c *Core) restartWanted(e RestartWanted) {
	c.startWanted(StartWanted{Service: e.Service, Instance: e.Instance})
	w := c.wishes[e.Service]
	if w.Rolling && e.Instance != 0 {
		// The instance has its turn now, and the rolling restart goes on. One that is just being
		// started has it later, unless its start belongs to the rolling restart.
		for _, i := range c.those(e.Service, e.Instance) {
			if i.Phase == Up && c.wanted(i) {
				c.end(i, Cycled)
			}
		}
		return
	}
	for _, i := range c.those(e.Service, 0) {
		// A record can be ahead of the wish, which is forgotten when a service starts anew, or
		// which a leader did not live to save.
		w.Generation = max(w.Generation, i.Generation)
	}
	w.Generation++
	w.Rolling, w.RollBy, w.RollFailed = e.Rolling && e.Instance == 0, 0, ""
	c.setWish(e.Service, w)
	for _, i := range c.those(e.Service, 0) {
		if e.Instance != 0 && i.ID.N != e.Instance {
			i.Generation = w.Generation // only the named instance is behind
			c.save(i)
		}
	}
}

// String says how a process ended.
func (e Exit) String() string {
	switch {
	case !e.Known:
		return "exit status unknown"
	case e.Signal != "":
		return "killed by " + e.Signal
	default:
		return fmt.Sprintf("exit status %d", e.Code)
	}
}
