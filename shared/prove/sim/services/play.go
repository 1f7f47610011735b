package services

import (
	"fmt"
	"maps"
	"slices"
	"time"

	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// play is one run: faults, then none, and at last an orderly stop and a new start.
func (w *world) play() {
	w.oldKernel = w.chance(0.2)
	w.nextGap = w.between(time.Second, 20*time.Second)
	for n := range 2 + w.rng.IntN(4) {
		w.specs = append(w.specs, w.newSpec(n))
	}
	w.lead(true)
	end := w.between(10*time.Second, 200*time.Second)
	for w.now < end {
		w.until(w.now + w.upTo(w.nextGap))
		w.disturb()
	}
	w.calm()
	w.settled()
	if w.chance(0.5) {
		w.stopAll()
	}
}

// newSpec invents the service with the number n. It depends only on services with lower numbers.
func (w *world) newSpec(n int) rules.Spec {
	s := rules.Spec{
		Name: fmt.Sprintf("s%d", n), Instances: 1 + w.rng.IntN(3), Fingerprint: w.rng.Uint64N(1000),
		StopTimeout:  w.between(100*time.Millisecond, 10*time.Second),
		BackoffFirst: w.between(50*time.Millisecond, time.Second), BackoffMax: w.between(time.Second, 20*time.Second),
		ReadyCheck: w.chance(0.6), RollTimeout: w.between(5*time.Second, time.Minute),
	}
	switch w.rng.IntN(5) {
	case 0:
		s.Restart, s.Scheduled = rules.Policy(1+w.rng.IntN(2)), w.chance(0.5)
	case 1:
		s.Restart = rules.Never
	}
	if s.Restart == rules.Always && w.chance(0.5) {
		s.AliveFailures = 1 + w.rng.IntN(3)
	} else if w.chance(0.3) {
		s.Watchdog = w.between(time.Second, 5*time.Second)
	}
	if w.chance(0.5) {
		s.Limit = 1 + w.rng.IntN(6)
	}
	for _, other := range w.specs {
		if other.Name >= s.Name || other.Scheduled || !w.chance(0.35) {
			continue
		}
		if other.Restart == rules.Always && w.chance(0.7) {
			s.Needs = append(s.Needs, other.Name)
		} else {
			s.After = append(s.After, other.Name)
		}
	}
	return s
}

// disturb is one fault, one command or one change.
func (w *world) disturb() {
	switch k := w.rng.IntN(20); {
	case k < 6 && w.leader != nil:
		w.command()
	case k < 8 && w.leader != nil:
		w.reconfigure()
	case k < 10 && w.leader != nil:
		w.leader.die("SIGKILL")
	case k < 11:
		w.handOver()
	case k < 12 && w.chance(0.3):
		w.powerLoss()
	case k < 14 && len(w.procs) > 0:
		w.procs[w.rng.IntN(len(w.procs))].die(rules.Exit{Known: true, Signal: "SIGKILL"})
	case k < 17 && w.leader != nil:
		for _, s := range w.specs {
			if s.Scheduled {
				w.leader.event(rules.Due{Service: s.Name})
			}
		}
	case k == 17 && w.leader != nil && w.chance(0.1):
		w.leader.stopAll()
		w.until(w.now + w.upTo(20*time.Second))
		if w.leader != nil && w.chance(0.5) {
			w.leader.die("an operator gave up")
			w.stopping = false
		}
	}
	if w.leader == nil && w.chance(0.9) {
		if w.chance(0.3) {
			w.loseStore()
		}
		w.until(w.now + w.upTo(20*time.Second))
		w.lead(w.chance(0.03))
	}
}

// command is something that an operator does.
func (w *world) command() {
	s := w.specs[w.rng.IntN(len(w.specs))]
	n := 0
	if s.Instances > 0 && w.chance(0.4) {
		n = 1 + w.rng.IntN(s.Instances)
	}
	w.stats.Commands++
	switch w.rng.IntN(7) {
	case 0:
		w.leader.event(rules.StartWanted{Service: s.Name, Instance: n})
	case 1:
		w.leader.event(rules.StopWanted{Service: s.Name, Instance: n})
	case 2:
		w.leader.event(rules.RestartWanted{Service: s.Name, Instance: n})
	case 3, 4:
		w.leader.event(rules.RestartWanted{Service: s.Name, Rolling: true})
	case 5: // an operator is impatient
		w.leader.event(rules.RestartWanted{Service: s.Name, Rolling: true})
		w.until(w.now + w.upTo(10*time.Second))
		if w.leader != nil {
			w.leader.event(rules.RestartWanted{Service: s.Name, Instance: n})
		}
	default:
		w.leader.event(w.batch())
	}
}

// batch is a command about several services.
func (w *world) batch() rules.Batch {
	var b rules.Batch
	kind, rolling := w.rng.IntN(3), w.chance(0.3)
	for _, k := range w.rng.Perm(len(w.specs))[:1+w.rng.IntN(len(w.specs))] {
		name := w.specs[k].Name
		switch kind {
		case 0:
			b.Events = append(b.Events, rules.StartWanted{Service: name})
		case 1:
			b.Events = append(b.Events, rules.StopWanted{Service: name})
		default:
			b.Events = append(b.Events, rules.RestartWanted{Service: name, Rolling: rolling})
		}
	}
	return b
}

// reconfigure changes the configuration. The driver keeps it before it tells the rules.
func (w *world) reconfigure() {
	next := slices.Clone(w.specs)
	k := w.rng.IntN(len(next))
	switch w.rng.IntN(6) {
	case 0:
		next[k].Instances = w.rng.IntN(4)
	case 1:
		next[k].Fingerprint = w.rng.Uint64N(1000)
	case 2:
		next[k].ReadyCheck = !next[k].ReadyCheck
		if next[k].AliveFailures = w.rng.IntN(3); next[k].Watchdog > 0 {
			next[k].AliveFailures = 0
		}
	case 3:
		for range 1 + w.rng.IntN(3) {
			if k = w.rng.IntN(len(next)); len(next) > 1 {
				next = slices.Delete(next, k, k+1)
			}
		}
	default:
		for n := range 6 {
			name := fmt.Sprintf("s%d", n)
			if !slices.ContainsFunc(next, func(s rules.Spec) bool { return s.Name == name }) {
				next = append(next, w.newSpec(n))
				break
			}
		}
	}
	have := func(name string) bool {
		return slices.ContainsFunc(next, func(s rules.Spec) bool { return s.Name == name })
	}
	for k := range next {
		drop := func(name string) bool { return !have(name) }
		next[k].Needs = slices.DeleteFunc(slices.Clone(next[k].Needs), drop)
		next[k].After = slices.DeleteFunc(slices.Clone(next[k].After), drop)
	}
	w.leader.post(func() {
		w.specs = next
		w.leader.step(rules.Configured{Specs: slices.Clone(next)})
	})
}

// handOver ends a leader in an orderly way, as soon as it starts no process.
func (w *world) handOver() {
	for range 100 {
		if w.leader == nil {
			return
		}
		if w.leader.starting == 0 && len(w.leader.mail) == 0 {
			w.leader.die("it hands over")
			w.lead(false)
			return
		}
		w.until(w.now + time.Millisecond)
	}
}

// powerLoss kills everything, and loses some records.
func (w *world) powerLoss() {
	if w.leader != nil {
		w.leader.die("the host loses power")
	}
	w.stats.PowerLosses++
	w.loseStore()
	for _, p := range w.procs {
		w.deaths[p.Process] = &death{}
	}
	w.procs, w.notes, w.stopping = nil, nil, false
	w.booted = w.now
	for _, id := range w.ids() {
		if w.chance(0.3) {
			delete(w.records, id)
		}
	}
	// The programs died with the host; what they still planned does not happen.
	w.queue = nil
	w.lead(true)
}

// calm ends all faults.
func (w *world) calm() {
	w.faults = false
	w.tell("no more faults")
	for _, p := range w.procs {
		p.reloaded()
		if p.ready > w.now {
			p.ready = w.now + time.Second
			if p.notifies {
				w.after(time.Second, func() { p.notify(rules.Notified{Ready: true}) })
			}
		}
	}
	if w.leader == nil {
		w.lead(false)
	}
	w.until(w.now + time.Second) // an order to stop everything may still wait for the leader
	if w.stopping {
		w.allStops()
	}
	if w.leader == nil {
		w.lead(false)
	}
}

// allStops checks that everything that is being stopped is soon gone.
func (w *world) allStops() {
	w.until(w.now + bound)
	if !w.stopped || len(w.procs) > 0 {
		w.fail("%d processes are left after an orderly stop", len(w.procs))
	}
}

// bound is how long the services may take to settle: several services in a row with their
// longest delays and stop timeouts, and scheduled runs.
const bound = 4 * time.Minute

// settled checks that everything is as it is asked for when the faults are over.
func (w *world) settled() {
	w.until(w.now + bound)
	if w.leader == nil {
		w.fail("there is no leader")
	}
	o := w.oracle
	for _, v := range w.leader.core.View() {
		m, live := o.of(v.ID), w.of(v.ID)
		s, ok := w.spec(v.ID.Service)
		switch {
		case v.Phase == rules.Starting || v.Phase == rules.Ending || v.Phase == rules.Clearing:
			w.fail("%s is still in phase %d", v.ID, v.Phase)
		case !ok:
			w.fail("%s is still known, but not configured", v.ID)
		case v.Phase == rules.Idle && len(live) > 0:
			w.fail("%d processes of %s are left", len(live), v.ID)
		case !o.wants(v.ID):
			if v.Phase != rules.Idle {
				w.fail("%s runs, but it is not wanted", v.ID)
			}
		case v.Phase == rules.Idle && o.missing(s) == "":
			w.fail("%s does not run, but nothing is missing (%s %s)", v.ID, v.State, v.Waits)
		case v.Phase == rules.Up && (v.State != rules.StateReady || s.Fingerprint != m.print):
			w.fail("%s is not ready, or not as configured", v.ID)
		case v.Phase == rules.Up && w.unhealthy(v.Process, s):
			w.fail("%s is not healthy, but runs", v.ID)
		case v.Phase == rules.Up && m.restart:
			w.fail("%s was not restarted", v.ID)
		}
	}
	for _, s := range w.specs {
		if o.wish(s.Name).rolling {
			w.fail("the rolling restart of %s does not end", s.Name)
		}
		for n := 1; n <= s.Instances; n++ {
			if id := (rules.ID{Service: s.Name, N: n}); !slices.ContainsFunc(w.leader.core.View(), func(v rules.View) bool { return v.ID == id }) {
				w.fail("%s is unknown", id)
			}
		}
	}
	for _, p := range w.procs {
		if _, ok := w.records[p.id]; !ok {
			w.fail("process %d of %s has no owner", p.PID, p.id)
		}
	}
}

// unhealthy reports whether a process has failed its alive check or its watchdog for a minute.
func (w *world) unhealthy(x rules.Process, s rules.Spec) bool {
	p := w.find(x)
	return p != nil && (s.AliveFailures > 0 && p.sick < w.now-time.Minute || s.Watchdog > 0 && p.mute < w.now-time.Minute)
}

// stopAll stops everything in an orderly way, while leaders die, and starts it again.
func (w *world) stopAll() {
	w.leader.stopAll()
	for range w.rng.IntN(4) {
		w.until(w.now + w.upTo(5*time.Second))
		if w.leader != nil && w.stopping {
			w.leader.die("SIGKILL")
			w.lead(false)
		}
	}
	w.allStops()
	w.lead(true)
	w.settled()
	for _, name := range slices.Sorted(maps.Keys(w.wishes)) {
		if !w.wishes[name].Empty() {
			w.fail("the wish for %s outlived an orderly stop", name)
		}
	}
}
