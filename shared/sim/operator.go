package sim

import (
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/roster"
)

// operator starts the cluster, again when all of it is dead; it also sends the
// writes of clients.
type operator struct {
	w                  *world
	followers, minSync int
	starting           bool
	done               bool // the cluster was stopped on purpose
	quiet              bool // no writes
	requests           []*request
	builds             int // that upgrades were asked for
}

func (o *operator) begin() {
	o.up()
	o.look()
	o.client()
}

// look starts the cluster where no process of it is left.
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
	w.tell("%s is started by the operator, to lead", p)
	p.after(w.between(time.Millisecond, 5*time.Millisecond), func() {
		p.boot(roster.Member{ID: p.id, Version: p.build}, core.Boot{Lead: true})
	})
}

// join is "dynast join".
func (o *operator) join() {
	w := o.w
	leader := w.leader()
	if leader == nil || leader.stopped {
		return
	}
	a, ok := w.bind(nil)
	if !ok {
		return
	}
	p := w.start(a)
	w.tell("%s is started by the operator, to join", p)
	leader.post(core.JoinRequested{Member: roster.Member{ID: p.id, Version: p.build}, Ref: &joiner{p: p}})
	w.after(startTimeout, func() {
		if p.core == nil {
			w.kill(p, "no answer to its request to join")
		}
	})
}

// leader returns the process that leads.
func (w *world) leader() *process {
	for _, p := range w.living {
		if p.epoch != 0 {
			return p
		}
	}
	return nil
}

// client writes to whoever serves.
func (o *operator) client() {
	w := o.w
	if p := w.leader(); p != nil && p.serving && !p.stopped && !o.quiet {
		for range 1 + w.rng.IntN(4) {
			p.write()
		}
	}
	w.after(w.between(500*time.Microsecond, 20*time.Millisecond), o.client)
}
