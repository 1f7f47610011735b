package sim

import (
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// operator starts the cluster, and starts it again when all processes are dead. It also sends the
// writes of clients.
type operator struct {
	w                  *world
	followers, minSync int
	starting           bool
	done               bool // the cluster was stopped on purpose
	quiet              bool // no writes
	requests           []*request
	builds             int // number of requested upgrades
}

func (o *operator) begin() {
	o.up()
	o.look()
	o.client()
}

// look starts the cluster if no process of it is left.
func (o *operator) look() {
	w := o.w
	if len(w.living) == 0 && !o.starting && !o.done {
		w.stats.ColdStarts++
		o.starting = true
		w.after(w.between(0, 300*time.Millisecond), func() {
			o.starting = false
			if len(w.living) == 0 {
				o.up()
			}
		})
	}
	w.after(20*time.Millisecond, o.look)
}

// up is "dynast up".
func (o *operator) up() {
	w := o.w
	a, ok := w.bind(nil)
	if !ok {
		return
	}
	p := w.start(a)
	w.tell("an operator starts %s as leader", p)
	p.after(w.between(time.Millisecond, 5*time.Millisecond), func() {
		p.boot(roster.Member{ID: p.id, Version: p.build}, core.Boot{Lead: true})
	})
}

// maxLiving is the number of processes above which the operator starts no more. Otherwise the few
// ports of the model would not be enough for the followers that the leader must keep.
const maxLiving = 6

// join is "dynast join".
func (o *operator) join() {
	w := o.w
	leader := w.leader()
	if leader == nil || leader.stopped || len(w.living) > maxLiving {
		return
	}
	a, ok := w.bind(nil)
	if !ok {
		return
	}
	p := w.start(a)
	if w.faults.hits(w, w.faults.otherBuild, OtherBuildJoined) {
		p.build = "another"
	}
	w.tell("an operator starts %s to join", p)
	leader.post(core.JoinRequested{Member: roster.Member{ID: p.id, Version: p.build}, Ref: &joiner{p: p}})
	w.after(startTimeout, func() {
		if p.core == nil {
			w.kill(p, "no answer to its request to join")
		}
	})
}

// leader returns the leading process.
func (w *world) leader() *process {
	for _, p := range w.living {
		if p.epoch != 0 {
			return p
		}
	}
	return nil
}

// client writes to the process that serves.
func (o *operator) client() {
	w := o.w
	if p := w.leader(); p != nil && p.serving && !p.stopped && !o.quiet {
		for range 1 + w.rng.IntN(4) {
			p.write()
		}
	}
	if w.faults.on {
		w.after(w.between(500*time.Microsecond, 20*time.Millisecond), o.client)
	} else { // otherwise half of the time of a run would go into writes
		w.after(w.between(500*time.Microsecond, 80*time.Millisecond), o.client)
	}
}
