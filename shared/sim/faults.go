package sim

import (
	"fmt"
	"strings"
	"time"
)

// faults says what breaks in a run, and how often. Every run has its own
// selection: faults that always come together would hide each other.
type faults struct {
	on bool

	killEvery, stopEvery, cutEvery, endEvery, powerEvery   time.Duration // mean; 0 is never
	upEvery, joinEvery, fullEvery, slowEvery, failingEvery time.Duration
	// What operators do is no fault, and comes in the middle of them.
	handOverEvery, scaleEvery, removeEvery, defragEvery, upgradeEvery, spoilEvery time.Duration

	strike         float64 // chance of a SIGKILL before an effect
	strikeHeir     float64 // the same, in a takeover; also in the middle of what takes time there
	strikeWrite    float64 // in the middle of a write to the log
	strikeSpawn    float64 // while a process starts: it, or who starts it
	strikeSnapshot float64 // while a database is on its way: its sender, or its receiver
	crowds         float64 // chance that a kill takes others with it
	spawnFails     float64
	spawnHangs     float64
	starves        float64 // chance that the scheduler leaves a process aside for long
	late           float64 // chance that a message takes long
	lockLingers    float64
	compacts       float64
	fsyncFails     float64
	succFails      float64 // chance that succession.json cannot be replaced, or that nobody knows
	breaksNamed    float64 // chance that the named slot is unreadable at a takeover
	cutsNamed      float64 // chance that its log has lost its end at a cold start
	hidesCopy      float64 // chance that a slot cannot be read just when the most complete one is looked for
	stopsHeir      float64 // chance of a SIGSTOP in each step of a takeover
	breaksCopy     float64 // chance that a follower's copy is damaged at its start
	stoppedForGood bool

	diskFull  bool
	slow      bool // fsync takes long
	failing   bool // most fsyncs fail
	brokeOnce bool // the named slot was damaged in this run
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
	f := faults{
		killEvery:      some(0.7, 30*time.Millisecond, time.Second),
		stopEvery:      some(0.5, 50*time.Millisecond, time.Second),
		cutEvery:       some(0.4, 30*time.Millisecond, time.Second),
		endEvery:       some(0.3, 300*time.Millisecond, 2*time.Second),
		powerEvery:     some(0.3, 300*time.Millisecond, 2*time.Second),
		upEvery:        some(0.3, 200*time.Millisecond, 2*time.Second),
		joinEvery:      some(0.3, 200*time.Millisecond, 2*time.Second),
		fullEvery:      some(0.2, 200*time.Millisecond, 2*time.Second),
		slowEvery:      some(0.3, 100*time.Millisecond, time.Second),
		failingEvery:   some(0.1, 300*time.Millisecond, 2*time.Second),
		handOverEvery:  some(0.3, 100*time.Millisecond, time.Second),
		scaleEvery:     some(0.2, 200*time.Millisecond, 2*time.Second),
		removeEvery:    some(0.2, 200*time.Millisecond, 2*time.Second),
		defragEvery:    some(0.2, 200*time.Millisecond, 2*time.Second),
		upgradeEvery:   some(0.2, 200*time.Millisecond, 2*time.Second),
		spoilEvery:     some(0.2, 200*time.Millisecond, 2*time.Second),
		strike:         rare(0.3, 0.001),
		strikeHeir:     rare(0.5, 0.2),
		strikeWrite:    rare(0.3, 0.003),
		strikeSpawn:    rare(0.3, 0.5),
		strikeSnapshot: rare(0.4, 0.7),
		crowds:         rare(0.3, 0.7),
		spawnFails:     rare(0.3, 0.5),
		spawnHangs:     rare(0.3, 0.3),
		starves:        rare(0.2, 0.001),
		late:           rare(0.4, 0.05),
		lockLingers:    rare(0.5, 1),
		compacts:       rare(0.7, 1),
		fsyncFails:     rare(0.2, 0.005),
		succFails:      rare(0.2, 0.5),
		breaksNamed:    rare(0.1, 0.5),
		cutsNamed:      rare(0.2, 1),
		hidesCopy:      rare(0.5, 0.7),
		stopsHeir:      rare(0.2, 0.1),
		breaksCopy:     rare(0.3, 0.5),
		stoppedForGood: w.chance(0.3),
	}
	if f.powerEvery > 0 {
		f.cutsNamed = 0 // what only unsynced logs hold, and then no log, nobody can bring back
	}
	return f
}

func (f faults) String() string {
	var b strings.Builder
	for _, e := range []struct {
		name  string
		every time.Duration
	}{{"kill", f.killEvery}, {"stop", f.stopEvery}, {"cut", f.cutEvery}, {"end", f.endEvery}, {"power", f.powerEvery},
		{"up", f.upEvery}, {"join", f.joinEvery}, {"full", f.fullEvery}, {"slow", f.slowEvery}, {"failing", f.failingEvery},
		{"handOver", f.handOverEvery}, {"scale", f.scaleEvery}, {"remove", f.removeEvery}, {"defrag", f.defragEvery}, {"upgrade", f.upgradeEvery}, {"spoil", f.spoilEvery}} {
		if e.every > 0 {
			fmt.Fprintf(&b, " %s=%s", e.name, e.every.Round(time.Millisecond))
		}
	}
	for _, e := range []struct {
		name string
		p    float64
	}{{"strike", f.strike}, {"strikeHeir", f.strikeHeir}, {"strikeWrite", f.strikeWrite}, {"strikeSpawn", f.strikeSpawn},
		{"strikeSnapshot", f.strikeSnapshot}, {"crowds", f.crowds}, {"spawnFails", f.spawnFails}, {"spawnHangs", f.spawnHangs},
		{"starves", f.starves}, {"late", f.late}, {"lockLingers", f.lockLingers}, {"compacts", f.compacts}, {"fsyncFails", f.fsyncFails},
		{"succFails", f.succFails}, {"breaksNamed", f.breaksNamed}, {"cutsNamed", f.cutsNamed}, {"breaksCopy", f.breaksCopy},
		{"hidesCopy", f.hidesCopy}, {"stopsHeir", f.stopsHeir}} {
		if e.p > 0 {
			fmt.Fprintf(&b, " %s=%.4f", e.name, e.p)
		}
	}
	return strings.TrimSpace(b.String())
}

// hits is a chance that is taken only while faults are on, and counted.
func (f *faults) hits(w *world, p float64, kind Fault) bool {
	if !f.on || !w.chance(p) {
		return false
	}
	w.count(kind)
	return true
}

func (f *faults) delay(w *world) time.Duration {
	if f.hits(w, f.late, MessageLate) {
		return w.between(0, heartbeatTimeout)
	}
	return w.between(20*time.Microsecond, 300*time.Microsecond)
}

func (f *faults) write(w *world) time.Duration {
	if f.slow && w.chance(0.1) {
		return w.between(time.Millisecond, heartbeatTimeout)
	}
	return w.between(5*time.Microsecond, 100*time.Microsecond)
}

func (f *faults) fsync(w *world) time.Duration {
	if f.slow {
		w.count(FsyncSlow)
		return w.between(time.Millisecond, 2*heartbeatTimeout)
	}
	return w.between(100*time.Microsecond, 2*time.Millisecond)
}

// failsFsync: the disk refuses.
func (f *faults) failsFsync(w *world) bool {
	if w.fsyncFailsOnce {
		w.fsyncFailsOnce = false
		w.count(FsyncFailed)
		return true
	}
	p := f.fsyncFails
	if f.failing {
		p = 0.7
	}
	return f.hits(w, p, FsyncFailed)
}

func (f *faults) transfer(w *world) time.Duration {
	return w.between(time.Millisecond, 50*time.Millisecond)
}
