package sim

import (
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/keeper"
)

// world is one host and its processes.
type world struct {
	cfg       Config
	rng       *rand.Rand
	now       time.Duration
	timers    timers
	order     uint64
	stats     Stats
	violation *Violation

	calm           bool // no randomness: every delay is the shortest
	fsyncFailsOnce bool // the next fsync fails
	terse          bool // the transcript leaves out repetitions

	processes []*process // all processes that ever existed, by pid from firstPID on
	living    []*process // the living processes, the oldest first
	boot      int        // the boot of the host; grows with each power loss

	lock       lock
	succession *core.Succession
	// successionBefore is the content that a power loss restores: the previous one, as long as
	// its replacement is not durable.
	successionBefore *core.Succession
	// successionDamaged and claimsDamaged say whether the file exists but is unreadable: in the
	// first place the current file, in the second the one that a power loss restores.
	successionDamaged, claimsDamaged [2]bool
	claims                           *core.Claims // claims.json; nil if it does not exist
	claimsBefore                     *core.Claims // like successionBefore
	disks                            []*disk      // by slot number
	faults                           faults
	oracle                           oracle
	operator                         operator
	writes                           uint64 // number of payloads so far
}

// The times of a simulated cluster. They are shorter than those of a real one, in the same
// proportions.
const (
	heartbeatInterval = 20 * time.Millisecond
	heartbeatTimeout  = 120 * time.Millisecond
	startTimeout      = 600 * time.Millisecond
	stopTimeout       = 500 * time.Millisecond
	drainTimeout      = 300 * time.Millisecond
	// roomPoll is the interval at which a process that waits for room on a full disk checks for
	// it. A follower asks its leader again after retryRoom.
	roomPoll  = 4 * time.Millisecond
	retryRoom = 40 * time.Millisecond
	// start is the time at which a run begins, so that no clock shows zero.
	start = time.Second
)

func newWorld(cfg Config) *world {
	w := &world{
		cfg:  cfg,
		rng:  rand.New(rand.NewPCG(cfg.Seed, 0x9e3779b97f4a7c15)),
		now:  start,
		boot: 1,
	}
	w.oracle.w, w.operator.w = w, w
	w.oracle.rosters, w.oracle.asked, w.oracle.begun = rosters{}, map[int]bool{}, map[uint64]*process{}
	w.operator.followers = 1 + w.rng.IntN(3)
	w.operator.minSync = w.rng.IntN(3)
	w.oracle.asked[w.operator.followers] = true
	w.faults = pickFaults(w)
	return w
}

func (w *world) keeperConfig() keeper.Config {
	return keeper.Config{
		StartTimeout: startTimeout, Base: 10 * time.Millisecond, Max: 2 * time.Second,
		HalfLife: time.Second, Free: 3,
	}
}

// after calls do later.
func (w *world) after(d time.Duration, do func()) { w.schedule(nil, d, do) }

func (w *world) schedule(in *process, d time.Duration, do func()) {
	w.order++
	w.timers.push(timer{at: w.now + max(d, 0), order: w.order, in: in, do: do})
}

// between returns a duration in [lo, hi).
func (w *world) between(lo, hi time.Duration) time.Duration {
	if hi <= lo || w.calm {
		return lo
	}
	return lo + time.Duration(w.rng.Int64N(int64(hi-lo)))
}

func (w *world) chance(p float64) bool { return p > 0 && !w.calm && w.rng.Float64() < p }

// runUntil advances time until the condition holds, and checks it after every step. It returns
// false if the time is over or a rule was broken.
func (w *world) runUntil(end time.Duration, cond func() bool) bool {
	for w.violation == nil {
		if cond != nil && cond() {
			return true
		}
		if len(w.timers) == 0 || w.timers[0].at > end {
			w.now = max(w.now, end)
			return false
		}
		t := w.timers.pop()
		w.now = max(w.now, t.at)
		switch p := t.in; {
		case p == nil:
			t.do()
		case p.dead:
			continue // a dead process does nothing
		case p.stopped:
			p.deferred = append(p.deferred, t.do)
		default:
			t.do()
		}
		w.stats.Steps++
		w.oracle.everyStep()
	}
	return false
}

// fail ends the run with its first violation.
func (w *world) fail(format string, args ...any) {
	if w.violation == nil {
		w.violation = &Violation{Seed: w.cfg.Seed, At: w.now, Reason: fmt.Sprintf(format, args...)}
		w.tell("VIOLATION: %s", w.violation.Reason)
	}
}

// guarded turns a panic of the core into a violation.
func (w *world) guarded(f func()) {
	defer func() {
		if r := recover(); r != nil {
			if w.cfg.mutant == nil && w.cfg.Trace != nil {
				w.tell("panic: %v", r)
			}
			w.fail("panic: %v", r)
		}
	}()
	f()
}

// tell writes a line of the transcript.
func (w *world) tell(format string, args ...any) {
	if w.cfg.Trace != nil {
		w.cfg.Trace(fmt.Sprintf("%10.3fms  %s", float64(w.now)/1e6, fmt.Sprintf(format, args...)))
	}
}

// play is the course of a run: start, inject faults, stop the faults, and check.
func (w *world) play() {
	w.tell("%d followers, min_sync %d, faults %s", w.operator.followers, w.operator.minSync, w.faults)
	lasts := w.cfg.Faults
	if lasts == 0 {
		lasts = w.between(300*time.Millisecond, 3*time.Second)
	}
	w.operator.begin()
	w.faults.begin(w)
	w.runUntil(w.now+lasts, nil)
	w.faults.end(w)
	if w.violation != nil {
		return
	}
	w.expectRecovery()
	if w.violation == nil && w.chance(0.4) {
		w.expectHeir()
	}
	if w.violation == nil && w.chance(0.2) {
		w.expectRecoveryFromBrokenStop()
	}
	if w.violation == nil && w.chance(0.3) {
		w.expectOrderlyStop()
	}
}
