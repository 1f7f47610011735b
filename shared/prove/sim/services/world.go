package services

import (
	"container/heap"
	"fmt"
	"math/rand/v2"
	"time"

	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// Config describes a run.
type Config struct {
	// Seed determines everything.
	Seed uint64
	// Trace, if set, is called with every line of the transcript.
	Trace func(line string)
}

// Violation is a broken rule that a run found.
type Violation struct {
	Seed   uint64
	At     time.Duration
	Reason string
}

func (v *Violation) Error() string {
	return fmt.Sprintf("seed %d at %s: %s", v.Seed, v.At.Round(time.Microsecond), v.Reason)
}

// never is a time that does not come.
const never = time.Duration(1 << 62)

// world is one simulated host.
type world struct {
	cfg     Config
	rng     *rand.Rand
	now     time.Duration
	booted  time.Duration // when the host booted
	queue   timers
	seq     int
	faults  bool
	leader  *leader
	leads   int
	procs   []*proc // that live, in the order of their births
	births  int
	oracle  *oracle
	stats   Stats
	nextGap time.Duration // between two faults, at most
	// deaths are the dead processes since the boot. store has the tokens of the processes of which
	// the members share a pidfd.
	deaths    map[rules.Process]*death
	store     map[rules.Process]uint64
	oldKernel bool // before Linux 6.15

	// What is on the disk.
	records map[rules.ID]stored
	wishes  map[string]rules.Wish
	specs   []rules.Spec
	tokens  uint64
	// notes is the queue of the notify socket.
	notes []note
}

// stored is a record as the driver keeps it. The token marks the processes of a run.
type stored struct {
	rules.Record
	token uint64
}

// Run simulates one host. It returns a *Violation as error.
func Run(cfg Config) (stats Stats, err error) {
	w := &world{cfg: cfg, rng: rand.New(rand.NewPCG(cfg.Seed, 0x5e7)), faults: true,
		records: map[rules.ID]stored{}, wishes: map[string]rules.Wish{}, deaths: map[rules.Process]*death{}, store: map[rules.Process]uint64{}}
	w.oracle = newOracle(w)
	defer func() {
		if r := recover(); r != nil {
			v, ok := r.(*Violation)
			if !ok {
				panic(fmt.Sprintf("seed %d: %v", cfg.Seed, r))
			}
			w.tell("VIOLATION: %s", v.Reason)
			w.stats.Violations, err = 1, v
		}
		w.stats.Runs, w.stats.Simulated = 1, w.now
		stats = w.stats
	}()
	w.play()
	return
}

// Transcript runs a seed again and returns the last lines of its transcript, or all of them if
// lines is 0.
func Transcript(cfg Config, lines int) []string {
	var all []string
	cfg.Trace = func(line string) { all = append(all, line) }
	_, _ = Run(cfg) // the violation is in the transcript
	if lines > 0 && len(all) > lines {
		all = all[len(all)-lines:]
	}
	return all
}

func (w *world) fail(format string, args ...any) {
	panic(&Violation{Seed: w.cfg.Seed, At: w.now, Reason: fmt.Sprintf(format, args...)})
}

func (w *world) tell(format string, args ...any) {
	if w.cfg.Trace != nil {
		w.cfg.Trace(fmt.Sprintf("%12s ", w.now.Round(time.Microsecond)) + fmt.Sprintf(format, args...))
	}
}

// clock is CLOCK_BOOTTIME.
func (w *world) clock() time.Duration { return w.now - w.booted + time.Second }

func (w *world) chance(p float64) bool { return w.rng.Float64() < p }

func (w *world) between(a, b time.Duration) time.Duration {
	return a + time.Duration(w.rng.Int64N(int64(b-a)+1))
}

// any time up to b, often a short one.
func (w *world) upTo(b time.Duration) time.Duration {
	for range w.rng.IntN(4) {
		b /= 8
	}
	return w.between(0, b)
}

// timer is something that happens later.
type timer struct {
	at  time.Duration
	seq int
	do  func()
}

type timers []timer

func (t timers) Len() int { return len(t) }
func (t timers) Less(i, j int) bool {
	return t[i].at < t[j].at || t[i].at == t[j].at && t[i].seq < t[j].seq
}
func (t timers) Swap(i, j int) { t[i], t[j] = t[j], t[i] }
func (t *timers) Push(x any)   { *t = append(*t, x.(timer)) }
func (t *timers) Pop() any {
	old := *t
	x := old[len(old)-1]
	*t = old[:len(old)-1]
	return x
}

func (w *world) after(d time.Duration, do func()) {
	if d >= never/2 {
		return
	}
	w.seq++
	heap.Push(&w.queue, timer{w.now + d, w.seq, do})
}

// maxSteps bounds a run. More steps mean that the rules do not come to rest.
const maxSteps = 400_000

// until lets time pass.
func (w *world) until(end time.Duration) {
	for len(w.queue) > 0 && w.queue[0].at <= end {
		t := heap.Pop(&w.queue).(timer)
		w.now = t.at
		if w.stats.Steps++; w.stats.Steps > maxSteps {
			w.fail("more than %d steps", maxSteps)
		}
		t.do()
	}
	w.now = end
}
