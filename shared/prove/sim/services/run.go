package services

import (
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// Result is how a run went.
type Result struct {
	Steps int
	Err   error
	Trace []string
}

// Run simulates one seed.
func Run(seed uint64) Result {
	w := newWorld(seed)
	w.lead()
	for range 40 + w.rng.IntN(80) {
		if w.err != nil {
			break
		}
		w.run(w.now + w.span(2*time.Second))
		w.disturb()
		if w.core == nil && w.chance(70) {
			w.lead()
		}
	}
	w.settle()
	if w.err != nil {
		w.err = fmt.Errorf("seed %d: %w", seed, w.err)
	}
	return Result{Steps: w.steps, Err: w.err, Trace: w.trace}
}

// settle ends the faults and lets everything come to rest.
func (w *world) settle() {
	w.calm = true
	for _, p := range w.procs {
		p.readyAt = min(p.readyAt, w.now)
		p.sickAt = 0
	}
	if w.leaving {
		w.run(w.now + time.Second)
	}
	if w.core == nil {
		w.lead()
	}
	w.run(w.now + time.Hour)
	if w.err == nil {
		w.oracle.rest()
	}
}

// disturb does one random thing to the host, the leader or the configuration.
func (w *world) disturb() {
	name := ""
	if len(w.specs) > 0 {
		name = w.specs[w.rng.IntN(len(w.specs))].Name
	}
	instance := 0
	if s := w.spec(name); s != nil && s.Instances > 0 && w.chance(40) {
		instance = 1 + w.rng.IntN(s.Instances)
	}
	switch w.rng.IntN(16) {
	case 0, 1:
		if w.core != nil {
			w.die("suddenly")
		}
	case 2:
		if w.core != nil {
			w.log("hand-over")
			w.leaving = true
			if w.starting == 0 {
				w.die("after a hand-over")
			}
		}
	case 3:
		w.powerLoss()
	case 4, 5:
		if len(w.procs) > 0 {
			w.end(w.procs[w.rng.IntN(len(w.procs))], rules.Exit{Known: true, Signal: "SIGKILL"})
		}
	case 6, 7:
		w.reconfigure()
	case 8:
		w.step(rules.StartWanted{Service: name, Instance: instance})
	case 9:
		w.step(rules.StopWanted{Service: name, Instance: instance})
	case 10, 11:
		w.step(rules.RestartWanted{Service: name, Instance: instance, Rolling: w.chance(50)})
	case 12, 13:
		w.step(rules.Due{Service: name})
	case 14:
		if w.chance(20) && w.core != nil && !w.leaving {
			w.stopping = true
			w.step(rules.StopAll{})
		}
	}
	w.sweep()
}

// sweep forgets processes that are long dead.
func (w *world) sweep() {
	kept := w.procs[:0]
	for _, p := range w.procs {
		if p.alive || w.records[p.id].Process == p.Process {
			kept = append(kept, p)
		}
	}
	w.procs = kept
}

// powerLoss ends everything. Some records are lost, and the others are those of another boot.
func (w *world) powerLoss() {
	w.log("power loss")
	if w.core != nil {
		w.die("with the host")
	}
	for _, p := range w.procs {
		p.alive = false
	}
	w.procs = nil
	for _, id := range slices.SortedFunc(maps.Keys(w.records), compareIDs) {
		r := w.records[id]
		if w.chance(20) {
			delete(w.records, id)
			continue
		}
		w.records[id] = rules.Record{ID: id, Run: r.Run, Restarts: r.Restarts, Outcome: r.Outcome, Exits: r.Exits}
	}
	w.fresh = true
}

// reconfigure changes the services.
func (w *world) reconfigure() {
	if w.core == nil || w.leaving {
		return
	}
	next := w.randomSpecs()
	for i := range next {
		if old := w.spec(next[i].Name); old != nil && w.chance(60) {
			next[i] = *old
		}
	}
	w.specs = consistent(next)
	w.step(rules.Configured{Specs: w.specs})
}

// consistent removes dependencies on services that do not exist.
func consistent(specs []rules.Spec) []rules.Spec {
	known := map[string]bool{}
	for i := range specs {
		keep := func(names []string) []string {
			var out []string
			for _, n := range names {
				if known[n] {
					out = append(out, n)
				}
			}
			return out
		}
		specs[i].Needs, specs[i].After = keep(specs[i].Needs), keep(specs[i].After)
		known[specs[i].Name] = true
	}
	return specs
}

// randomSpecs returns up to five services. Each may depend on those before it.
func (w *world) randomSpecs() []rules.Spec {
	var out []rules.Spec
	for i := range 1 + w.rng.IntN(5) {
		s := rules.Spec{
			Name: string(rune('a' + i)), Instances: w.rng.IntN(3) + w.rng.IntN(2), Restart: rules.Policy(w.rng.IntN(3)),
			ReadyCheck: w.chance(40), StopTimeout: w.span(2 * time.Second),
			BackoffFirst: 100 * time.Millisecond, BackoffMax: 5 * time.Second, Fingerprint: uint64(w.rng.IntN(3)),
		}
		if w.chance(60) {
			s.Restart = rules.Always
		}
		if w.chance(40) {
			s.AliveFailures = 1 + w.rng.IntN(3)
		}
		if w.chance(30) {
			s.Limit = 3 + w.rng.IntN(4)
		}
		if w.chance(15) {
			s.Scheduled, s.Restart = true, rules.Policy(1+w.rng.IntN(2))
		}
		for k := range out {
			switch {
			case w.chance(25) && !out[k].Scheduled:
				s.Needs = append(s.Needs, out[k].Name)
			case w.chance(15):
				s.After = append(s.After, out[k].Name)
			}
		}
		out = append(out, s)
	}
	return out
}

// Explain returns the last part of a trace.
func (r Result) Explain(lines int) string {
	return strings.Join(r.Trace[max(0, len(r.Trace)-lines):], "\n")
}
