package sim

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// faults describes what breaks in a run, and how often. Every run has its own selection, because
// faults that always come together would hide each other.
type faults struct {
	on bool

	killEvery, stopEvery, cutEvery, endEvery, powerEvery   time.Duration // mean interval; 0 means never
	upEvery, joinEvery, fullEvery, slowEvery, failingEvery time.Duration
	// Requests of operators are no faults, but come during the faults.
	handOverEvery, scaleEvery, removeEvery, defragEvery, upgradeEvery, corruptEvery time.Duration

	killAnywhere   float64 // chance of a SIGKILL before an effect
	killHeir       float64 // the same in a takeover, also during steps that take time
	killInWrite    float64 // chance of a SIGKILL during a write to the log
	killInSpawn    float64 // chance of a SIGKILL while a process starts, to it or to the process that starts it
	killInSnapshot float64 // chance of a SIGKILL during a snapshot, to its sender or its receiver
	crowds         float64 // chance that a kill takes other processes with it
	spawnFails     float64
	spawnHangs     float64
	starves        float64 // chance that the scheduler does not run a process for long
	late           float64 // chance that a message takes long
	lockLingers    float64
	compacts       float64
	fsyncFails     float64
	succFails      float64 // chance that succession.json cannot be replaced, or that the outcome is unknown
	breaksNamed    float64 // chance that the named slot is unreadable at a takeover
	cutsNamed      float64 // chance that the named log has lost its end at a cold start
	hidesCopy      float64 // chance that a slot is unreadable while the most complete one is searched
	stopsHeir      float64 // chance of a SIGSTOP in each step of a takeover
	breaksCopy     float64 // chance that a follower's copy is damaged at its start
	stoppedForGood bool

	// The following are chosen by a separate random source, so that older seeds keep their
	// meaning.
	suspendEvery      time.Duration
	powerAnywhere     float64 // chance that power is lost before an effect
	powerHeir         float64 // the same in a takeover
	damagesSuccession float64 // chance that a takeover finds succession.json damaged
	damagesClaims     float64 // the same for claims.json
	breaksOther       float64 // chance that another slot is damaged together with the named one
	otherBuild        float64 // chance that a process that joins by hand is of another build

	diskFull  bool
	slow      bool // fsync takes long
	failing   bool // most fsyncs fail
	brokeOnce bool // the named slot was damaged in this run
}

// pickFaults chooses what breaks in this run.
func pickFaults(w *world) faults {
	likely := func(p float64) float64 {
		if w.cfg.Rough {
			return max(p, 0.6)
		}
		return p
	}
	some := func(p float64, lo, hi time.Duration) time.Duration {
		if !w.chance(likely(p)) {
			return 0
		}
		return w.between(lo, hi)
	}
	rare := func(p, most float64) float64 {
		if !w.chance(likely(p)) {
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
		corruptEvery:   some(0.2, 200*time.Millisecond, 2*time.Second),
		killAnywhere:   rare(0.3, 0.001),
		killHeir:       rare(0.5, 0.2),
		killInWrite:    rare(0.3, 0.003),
		killInSpawn:    rare(0.3, 0.5),
		killInSnapshot: rare(0.4, 0.7),
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
		f.cutsNamed = 0 // if unsynced logs are lost and the named log too, no slot has the entries
	}
	f.pickMore(w, likely)
	return f
}

// pickMore chooses the faults with a separate random source.
func (f *faults) pickMore(w *world, likely func(float64) float64) {
	rng := rand.New(rand.NewPCG(w.cfg.Seed, 0x2545f4914f6cdd1d))
	rare := func(p, most float64) float64 {
		if w.calm || rng.Float64() >= likely(p) {
			return 0
		}
		return most * rng.Float64()
	}
	f.suspendEvery = time.Duration(rare(0.1, 1) * float64(2*time.Second))
	f.powerAnywhere, f.powerHeir = rare(0.1, 0.0003), rare(0.1, 0.1)
	f.damagesSuccession, f.damagesClaims = rare(0.05, 0.3), rare(0.05, 0.3)
	f.breaksOther, f.otherBuild = rare(0.1, 0.5), rare(0.1, 1)
	if f.powerAnywhere > 0 || f.powerHeir > 0 {
		f.cutsNamed = 0
	}
}

func (f faults) String() string {
	var b strings.Builder
	for _, e := range []struct {
		name  string
		every time.Duration
	}{{"kill", f.killEvery}, {"stop", f.stopEvery}, {"cut", f.cutEvery}, {"end", f.endEvery}, {"power", f.powerEvery},
		{"up", f.upEvery}, {"join", f.joinEvery}, {"full", f.fullEvery}, {"slow", f.slowEvery}, {"failing", f.failingEvery},
		{"handOver", f.handOverEvery}, {"scale", f.scaleEvery}, {"remove", f.removeEvery}, {"defrag", f.defragEvery}, {"upgrade", f.upgradeEvery}, {"corrupt", f.corruptEvery},
		{"suspend", f.suspendEvery}} {
		if e.every > 0 {
			fmt.Fprintf(&b, " %s=%s", e.name, e.every.Round(time.Millisecond))
		}
	}
	for _, e := range []struct {
		name string
		p    float64
	}{{"killAnywhere", f.killAnywhere}, {"killHeir", f.killHeir}, {"killInWrite", f.killInWrite}, {"killInSpawn", f.killInSpawn},
		{"killInSnapshot", f.killInSnapshot}, {"crowds", f.crowds}, {"spawnFails", f.spawnFails}, {"spawnHangs", f.spawnHangs},
		{"starves", f.starves}, {"late", f.late}, {"lockLingers", f.lockLingers}, {"compacts", f.compacts}, {"fsyncFails", f.fsyncFails},
		{"succFails", f.succFails}, {"breaksNamed", f.breaksNamed}, {"cutsNamed", f.cutsNamed}, {"breaksCopy", f.breaksCopy},
		{"hidesCopy", f.hidesCopy}, {"stopsHeir", f.stopsHeir},
		{"powerAnywhere", f.powerAnywhere}, {"powerHeir", f.powerHeir}, {"damagesSuccession", f.damagesSuccession},
		{"damagesClaims", f.damagesClaims}, {"breaksOther", f.breaksOther}, {"otherBuild", f.otherBuild}} {
		if e.p > 0 {
			fmt.Fprintf(&b, " %s=%.4f", e.name, e.p)
		}
	}
	return strings.TrimSpace(b.String())
}

// hits returns true with the given chance while faults are on, and counts the fault.
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

// failsFsync reports whether the disk fails to sync.
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
