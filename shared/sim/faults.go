package sim

import (
	"fmt"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/core"
)

// faults says what breaks in a run, and how often. Every run has its own
// selection: faults that always come together would hide each other.
type faults struct {
	on bool

	killEvery, stopEvery, cutEvery, endEvery, powerEvery time.Duration // mean; 0 is never
	upEvery, joinEvery, fullEvery, slowEvery             time.Duration

	strike         float64 // chance of a SIGKILL before an effect
	strikeHeir     float64 // the same, in a takeover
	spawnFails     float64
	spawnHangs     float64
	starves        float64 // chance that the scheduler leaves a process aside for long
	late           float64 // chance that a message takes long
	lockLingers    float64
	compacts       float64
	breaksNamed    float64 // chance that the named slot is unreadable at a takeover
	diskFull       bool
	slow           bool // fsync takes long
	stoppedForGood bool
	brokeOnce      bool // a slot was damaged in this run
}

// pickFaults chooses what breaks in this run.
func pickFaults(w *world) faults {
	some := func(p float64, lo, hi time.Duration) time.Duration {
		if !w.chance(p) {
			return 0
		}
		return w.between(lo, hi)
	}
	rare := func(p, most float64) float64 {
		if !w.chance(p) {
			return 0
		}
		return most * w.rng.Float64()
	}
	return faults{
		killEvery:      some(0.7, 30*time.Millisecond, time.Second),
		stopEvery:      some(0.5, 50*time.Millisecond, time.Second),
		cutEvery:       some(0.4, 30*time.Millisecond, time.Second),
		endEvery:       some(0.3, 300*time.Millisecond, 2*time.Second),
		powerEvery:     some(0.3, 300*time.Millisecond, 2*time.Second),
		upEvery:        some(0.3, 200*time.Millisecond, 2*time.Second),
		joinEvery:      some(0.3, 200*time.Millisecond, 2*time.Second),
		fullEvery:      some(0.2, 200*time.Millisecond, 2*time.Second),
		slowEvery:      some(0.3, 100*time.Millisecond, time.Second),
		strike:         rare(0.3, 0.001),
		strikeHeir:     rare(0.5, 0.2),
		spawnFails:     rare(0.3, 0.5),
		spawnHangs:     rare(0.3, 0.3),
		starves:        rare(0.2, 0.001),
		late:           rare(0.4, 0.05),
		lockLingers:    rare(0.5, 1),
		compacts:       rare(0.7, 1),
		breaksNamed:    rare(0.1, 0.5),
		stoppedForGood: w.chance(0.3),
	}
}

func (f faults) String() string {
	var b strings.Builder
	add := func(name string, on bool, v any) {
		if on {
			fmt.Fprintf(&b, " %s=%v", name, v)
		}
	}
	for _, e := range []struct {
		name  string
		every time.Duration
	}{{"kill", f.killEvery}, {"stop", f.stopEvery}, {"cut", f.cutEvery}, {"end", f.endEvery}, {"power", f.powerEvery},
		{"up", f.upEvery}, {"join", f.joinEvery}, {"full", f.fullEvery}, {"slow", f.slowEvery}} {
		add(e.name, e.every > 0, e.every.Round(time.Millisecond))
	}
	for _, e := range []struct {
		name string
		p    float64
	}{{"strike", f.strike}, {"strikeHeir", f.strikeHeir}, {"spawnFails", f.spawnFails}, {"spawnHangs", f.spawnHangs},
		{"starves", f.starves}, {"late", f.late}, {"lockLingers", f.lockLingers}, {"compacts", f.compacts}, {"breaksNamed", f.breaksNamed}} {
		add(e.name, e.p > 0, fmt.Sprintf("%.4f", e.p))
	}
	return strings.TrimSpace(b.String())
}

// begin lets the faults loose.
func (f *faults) begin(w *world) {
	f.on = true
	f.repeat(w, f.killEvery, func() {
		if p := f.victim(w); p != nil {
			w.stats.Kills++
			w.kill(p, "SIGKILL")
		}
	})
	f.repeat(w, f.stopEvery, func() {
		if p := f.victim(w); p != nil {
			d := w.between(time.Millisecond, 3*heartbeatTimeout)
			if f.stoppedForGood && w.chance(0.3) {
				d = 0
			}
			w.stop(p, d)
		}
	})
	f.repeat(w, f.cutEvery, func() {
		if p := f.victim(w); p != nil {
			w.cutStream(p)
		}
	})
	f.repeat(w, f.endEvery, func() {
		w.tell("everything is killed")
		for _, p := range w.alive() {
			w.stats.Kills++
			w.kill(p, "SIGKILL to all")
		}
	})
	f.repeat(w, f.powerEvery, w.losePower)
	f.repeat(w, f.upEvery, w.operator.up)
	f.repeat(w, f.joinEvery, w.operator.join)
	f.repeat(w, f.fullEvery, func() {
		f.diskFull = true
		w.after(w.between(0, 500*time.Millisecond), func() { f.diskFull = false })
	})
	f.repeat(w, f.slowEvery, func() {
		f.slow = true
		w.after(w.between(0, 300*time.Millisecond), func() { f.slow = false })
	})
}

func (f *faults) repeat(w *world, mean time.Duration, do func()) {
	if mean == 0 {
		return
	}
	var again func()
	again = func() {
		if f.on {
			do()
			w.after(w.between(0, 2*mean), again)
		}
	}
	w.after(w.between(0, 2*mean), again)
}

// victim picks a process, the leader more often than its share.
func (f *faults) victim(w *world) *process {
	if p := w.leader(); p != nil && w.chance(0.3) {
		return p
	}
	ps := w.alive()
	if len(ps) == 0 {
		return nil
	}
	return ps[w.rng.IntN(len(ps))]
}

// end stops the faults and takes back what would last, but for processes that
// the cluster itself has to end: a stopped leader, a stopped follower.
func (f *faults) end(w *world) {
	*f = faults{stoppedForGood: f.stoppedForGood, brokeOnce: f.brokeOnce}
	w.tell("no more faults")
	for _, p := range w.alive() {
		if p.stopped && !(f.stoppedForGood && w.owned(p) && w.chance(0.7)) {
			w.resume(p)
		}
	}
}

// owned reports whether it is somebody's duty to end a process that hangs: the
// leader by a follower, a follower by its leader.
func (w *world) owned(p *process) bool {
	leader := w.leader()
	if leader == nil {
		return false
	}
	if leader == p {
		for _, q := range w.alive() {
			if q != p && !q.stopped && q.core != nil && q.core.Role() == core.Following && q.core.Roster().Leader == p.id.Address {
				return true
			}
		}
		return false
	}
	m, ok := leader.core.Roster().Find(p.id.Address)
	return ok && m.ID == p.id
}

// strikes reports whether a process is killed before its next effect.
func (f *faults) strikes(p *process) bool {
	if !f.on {
		return false
	}
	if r := p.core.Role(); r == core.Inheriting || r == core.Leading && p.epoch == 0 {
		return p.w.chance(f.strikeHeir)
	}
	return p.w.chance(f.strike)
}

// strikeNamed damages the slot that a new leader is about to read.
func (f *faults) strikeNamed(w *world) {
	if !f.on || w.succession == nil || !w.chance(f.breaksNamed) {
		return
	}
	d := w.disk(w.succession.Slot)
	others := 0
	for _, x := range w.disks {
		if x != d && !x.broken && len(x.log) > 0 {
			others++
		}
	}
	if d.owner == nil && others > 0 {
		w.tell("slot %d is damaged", d.slot)
		d.broken, f.brokeOnce = true, true
	}
}

func (f *faults) delay(w *world) time.Duration {
	if w.chance(f.late) {
		return w.between(0, heartbeatTimeout)
	}
	return w.between(20*time.Microsecond, 300*time.Microsecond)
}

func (f *faults) write(w *world) time.Duration {
	return w.between(5*time.Microsecond, 100*time.Microsecond)
}

func (f *faults) fsync(w *world) time.Duration {
	if f.slow {
		return w.between(time.Millisecond, 2*heartbeatTimeout)
	}
	return w.between(100*time.Microsecond, 2*time.Millisecond)
}

func (f *faults) transfer(w *world) time.Duration {
	return w.between(time.Millisecond, 50*time.Millisecond)
}
