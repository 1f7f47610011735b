package services

import (
	"slices"
	"time"

	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// oracle checks what must hold, from what happens on the host and not from the state of the rules:
//
//   - An instance never gets a process while an earlier one lives.
//   - A process that is healthy and wanted is never ended.
//   - A service starts only when what it needs is ready, and stops before it.
//   - A program that fails again and again is started after growing delays.
//   - A program that must not be restarted is not started again without a reason.
//   - A scheduled service starts only when it is due, or when an operator wants it.
//   - When the faults end, everything comes to rest in the wanted state (see rest).
type oracle struct {
	w         *world
	ready     map[rules.ID]int // the pid whose readiness the leader knows
	fast      map[rules.ID]int // failures in a row of processes that ran very shortly
	lastDeath map[rules.ID]time.Duration
	lastStart map[rules.ID]time.Duration
	// finished are instances that must not run again by themselves.
	finished map[rules.ID]bool
	due      map[rules.ID]bool
	wanted   map[rules.ID]bool // a command or a configuration allows another start
}

func (o *oracle) init(w *world) {
	*o = oracle{w: w, ready: map[rules.ID]int{}, fast: map[rules.ID]int{}, lastDeath: map[rules.ID]time.Duration{}, lastStart: map[rules.ID]time.Duration{},
		finished: map[rules.ID]bool{}, due: map[rules.ID]bool{}, wanted: map[rules.ID]bool{}}
}

// forks checks that nothing of the instance is left.
func (o *oracle) forks(p *process) {
	if left := o.w.of(p.id); len(left) > 0 {
		o.w.fail("%s gets process %d while %d lives", p.id, p.PID, left[0].PID)
	}
	o.lastStart[p.id] = o.w.now
	if s := o.w.spec(p.id.Service); s != nil && !s.ReadyCheck {
		o.ready[p.id] = p.PID
	}
}

// short is how long a process must run at least that does not count as a failure in a row.
const short = 100 * time.Millisecond

// starts checks the decision to start.
func (o *oracle) starts(id rules.ID) {
	w, s := o.w, o.w.spec(id.Service)
	if s == nil {
		w.fail("%s starts, which is not configured", id)
		return
	}
	if w.stopping {
		w.fail("%s starts while everything stops", id)
	}
	wish := w.wishes[id.Service]
	if wish.Stopped || slices.Contains(wish.StoppedInstances, id.N) {
		w.fail("%s starts, which an operator stopped", id)
	}
	if o.finished[id] && !o.wanted[id] && !(s.Scheduled && o.due[id]) {
		w.fail("%s starts again, which has ended for good", id)
	}
	if s.Scheduled && !o.due[id] && !o.wanted[id] {
		w.fail("%s starts, which is not due", id)
	}
	for _, name := range s.Needs {
		d := w.spec(name)
		for n := 1; d != nil && n <= d.Instances; n++ {
			dep := rules.ID{Service: name, N: n}
			if o.ready[dep] == 0 {
				w.fail("%s starts, but %s is not ready", id, dep)
			}
		}
	}
	if k := o.fast[id]; k >= 2 && !o.wanted[id] {
		least := s.BackoffFirst
		for range k - 2 {
			least = min(2*least, s.BackoffMax)
		}
		if waited := w.now - o.lastDeath[id]; waited < least*3/4 {
			w.fail("%s starts %s after its failure %d in a row, want at least %s", id, waited, k, least*3/4)
		}
	}
	delete(o.finished, id)
}

// died notes that the leader learns of the death of a main process.
func (o *oracle) died(id rules.ID) {
	delete(o.ready, id)
	if o.w.now-o.lastStart[id] < short {
		o.fast[id]++
	} else {
		o.fast[id] = 0
	}
	o.lastDeath[id] = o.w.now
}

// allowed reports whether there is a reason to end an instance's process.
func (o *oracle) allowed(id rules.ID) bool {
	w, s := o.w, o.w.spec(id.Service)
	if s == nil || w.stopping {
		return true
	}
	wish := w.wishes[id.Service]
	p := w.main(id)
	switch {
	case p == nil, // it is dead
		id.N > s.Instances,
		wish.Stopped || slices.Contains(wish.StoppedInstances, id.N),
		p.fingerprint != s.Fingerprint,
		w.records[id].Generation < wish.Generation,
		s.AliveFailures > 0 && p.sickAt != 0 && w.now >= p.sickAt,
		w.records[id].Phase == rules.Ending, w.records[id].Phase == rules.Clearing:
		return true
	}
	return false
}

func (o *oracle) signalled(id rules.ID) {
	if !o.allowed(id) || o.w.records[id].Why == 0 {
		o.w.fail("%s gets a signal, and there is no reason for it", id)
	}
	if !o.w.stopping {
		return
	}
	for _, d := range o.w.specs {
		if d.Name == id.Service || !slices.Contains(d.Needs, id.Service) && !slices.Contains(d.After, id.Service) {
			continue
		}
		for n := 1; n <= d.Instances; n++ {
			dep := rules.ID{Service: d.Name, N: n}
			if o.w.main(dep) != nil && o.w.records[id].Why == rules.Wanted && o.w.records[dep].Why != rules.Wanted {
				o.w.fail("%s is stopped while %s runs, which needs it", id, dep)
			}
		}
	}
}

func (o *oracle) cleared(id rules.ID) {
	if !o.allowed(id) {
		o.w.fail("%s is killed, and there is no reason for it", id)
	}
}

func (o *oracle) forgotten(id rules.ID) {
	if left := o.w.of(id); len(left) > 0 {
		o.w.fail("%s is forgotten while process %d lives", id, left[0].PID)
	}
	delete(o.ready, id)
	delete(o.fast, id)
	delete(o.finished, id)
	delete(o.due, id)
}

func (o *oracle) leads(fresh bool) {
	// A new leader starts without a delay what it cannot know to have failed.
	clear(o.fast)
	clear(o.ready)
	if fresh {
		clear(o.finished)
		clear(o.due)
	}
	for id, r := range o.w.records {
		p, s := o.w.main(id), o.w.spec(id.Service)
		if p != nil && (r.Ready && r.Phase == rules.Up && p.Process == r.Process || (r.Phase == rules.Starting || r.Phase == rules.Up) && s != nil && !s.ReadyCheck) {
			o.ready[id] = p.PID
		}
	}
}

// stepped looks at an event that the leader gets.
func (o *oracle) stepped(ev rules.Event) {
	switch e := ev.(type) {
	case rules.Checked:
		if p := o.w.main(e.ID); !e.Alive && e.OK && p != nil && p.run == e.Run {
			o.ready[e.ID] = p.PID
		}
	case rules.Due:
		if s := o.w.spec(e.Service); s != nil {
			for n := 1; n <= s.Instances; n++ {
				o.due[rules.ID{Service: e.Service, N: n}] = true
				delete(o.fast, rules.ID{Service: e.Service, N: n})
			}
		}
	case rules.Configured:
		for _, s := range o.w.specs {
			o.allow(s.Name, 0)
		}
		for id, r := range o.w.records { // without a ready check a process is ready
			if p, s := o.w.main(id), o.w.spec(id.Service); p != nil && r.Phase == rules.Up && s != nil && !s.ReadyCheck {
				o.ready[id] = p.PID
			}
		}
	case rules.StartWanted:
		o.allow(e.Service, e.Instance)
	case rules.RestartWanted:
		o.allow(e.Service, e.Instance)
	}
}

// told notes that an instance has ended for good. Its record says so, too.
func (o *oracle) told(t rules.Tell) {
	if t.Kind == rules.ToldDone || t.Kind == rules.ToldFailed {
		o.finished[t.ID] = true
		delete(o.due, t.ID)
		delete(o.wanted, t.ID)
		delete(o.fast, t.ID)
	}
}

// allow notes that one instance, or all of a service, may start again.
func (o *oracle) allow(service string, instance int) {
	for n := 1; n <= 10; n++ {
		if instance == 0 || instance == n {
			o.wanted[rules.ID{Service: service, N: n}] = true
			delete(o.fast, rules.ID{Service: service, N: n})
		}
	}
}

// rest checks the state after a long time without faults.
func (o *oracle) rest() {
	w := o.w
	if w.core == nil {
		w.fail("there is no leader in the end")
		return
	}
	for _, v := range w.core.View() {
		id, s := v.ID, w.spec(v.ID.Service)
		lives := len(w.of(id)) > 0
		wish := w.wishes[id.Service]
		stopped := w.stopping || s == nil || wish.Stopped || slices.Contains(wish.StoppedInstances, id.N)
		switch v.State {
		case rules.StateReady, rules.StateRunning:
			if stopped || id.N > s.Instances && !wish.Rolling {
				w.fail("in the end %s is %s, which is not wanted", id, v.State)
			}
			if w.main(id) == nil {
				w.fail("in the end %s is %s without a process", id, v.State)
			}
			if v.State == rules.StateRunning && w.main(id) != nil && w.main(id).readyAt < w.now-time.Minute {
				w.fail("in the end %s is not ready", id)
			}
			if s != nil && v.Fingerprint != s.Fingerprint {
				w.fail("in the end %s runs with an old configuration", id)
			}
		case rules.StateStarting, rules.StateStopping, rules.StateBackoff:
			w.fail("in the end %s is still %s", id, v.State)
		case rules.StateStopped, rules.StateDone, rules.StateFailed:
			if lives {
				w.fail("in the end %s is %s and has a process", id, v.State)
			}
			if v.State == rules.StateStopped && !stopped {
				w.fail("in the end %s is stopped, and nobody wanted that", id)
			}
		case rules.StateWaiting:
			if v.Waits == "" {
				w.fail("in the end %s waits for nothing", id)
			}
		}
	}
	for _, s := range w.specs {
		for n := 1; n <= s.Instances; n++ {
			if !slices.ContainsFunc(w.core.View(), func(v rules.View) bool { return v.ID == rules.ID{Service: s.Name, N: n} }) {
				w.fail("in the end %s/%d is missing", s.Name, n)
			}
		}
		if w.wishes[s.Name].Rolling && s.Instances > 0 && !w.stopping {
			for n := 1; n <= s.Instances; n++ {
				if r := w.records[rules.ID{Service: s.Name, N: n}]; r.Phase == rules.Up && r.Ready && r.Generation < w.wishes[s.Name].Generation {
					w.fail("in the end the rolling restart of %s has not ended", s.Name)
				}
			}
		}
	}
}
