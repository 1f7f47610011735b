package sim

import (
	"fmt"
	"time"

	"github.com/dynast-io/dynast/shared/core"
)

// Config says which run is wanted.
type Config struct {
	// Seed decides everything, also the size of the cluster and the faults.
	Seed uint64
	// Faults is how long faults are injected; 0 lets the seed choose between 0.3
	// and 3 s. Simulated time, as all here.
	Faults time.Duration
	// Bound is how long a cluster without faults may take to be whole again; 0
	// means 30 s.
	Bound time.Duration
	// BoundSteps is the same in steps of the simulator; 0 means 100,000.
	BoundSteps int
	// Trace, if set, is called with every line of the transcript.
	Trace func(line string)

	// mutant, if set, breaks the core's contract; for the tests of the simulator.
	mutant *mutant
}

// mutant changes what a member does or hears. effect returns true when it has
// done the effect in its own way; event returns what the core gets to see.
type mutant struct {
	name   string
	effect func(p *process, e core.Effect) bool
	event  func(p *process, ev core.Event) core.Event
}

// Violation is what a run found.
type Violation struct {
	Seed   uint64
	At     time.Duration
	Reason string
}

func (v *Violation) Error() string {
	return fmt.Sprintf("seed %d at %s: %s", v.Seed, v.At.Round(time.Microsecond), v.Reason)
}

// Run simulates one cluster from its first start to its end. The error is a
// *Violation.
func Run(cfg Config) (Stats, error) {
	if cfg.Bound == 0 {
		cfg.Bound = 30 * time.Second
	}
	if cfg.BoundSteps == 0 {
		cfg.BoundSteps = 100_000
	}
	w := newWorld(cfg)
	w.guarded(w.play)
	w.stats.Simulated = w.now - start
	w.stats.seal()
	if w.violation != nil {
		return w.stats, w.violation
	}
	return w.stats, nil
}

// Transcript runs a seed again and returns its story: the first line, which
// tells what kind of run it is, and the last ones; all of it when lines is 0.
func Transcript(cfg Config, lines int) []string {
	var all []string
	cfg.Trace = func(line string) { all = append(all, line) }
	_, _ = Run(cfg) // what it finds is in the transcript
	if lines > 0 && len(all) > lines+1 {
		all = append(all[:1:1], all[len(all)-lines:]...)
	}
	return all
}
