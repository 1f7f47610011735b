package sim

import (
	"time"

	"github.com/dynast-io/dynast/shared/prove/sim/search"
	"github.com/dynast-io/dynast/shared/rules/core"
)

// Config describes a run.
type Config struct {
	// Seed determines everything, including the size of the cluster and the faults.
	Seed uint64
	// Faults is how long faults are injected, in simulated time like all times here. With 0, the
	// seed chooses between 0.3 and 3 s.
	Faults time.Duration
	// Bound is how long a cluster may take to recover after the faults; 0 means 30 s.
	Bound time.Duration
	// BoundSteps is the same bound in steps of the simulator; 0 means 100,000.
	BoundSteps int
	// Rough makes every rare fault likely, so that many of them meet.
	Rough bool
	// Trace, if set, is called with every line of the transcript.
	Trace func(line string)

	// mutant, if set, breaks the contract of the core. Tests of the simulator use it.
	mutant *mutant
}

// mutant changes what a member does or gets. effect returns true if it handled the effect itself.
// event returns the event that the core gets instead.
type mutant struct {
	name   string
	eager  bool // a follower says hello at once
	rare   bool // needs more seeds than the tests run by default
	effect func(p *process, e core.Effect) bool
	event  func(p *process, ev core.Event) core.Event
}

// Violation is a broken rule that a run found. Search runs many seeds.
type (
	Violation = search.Violation
	Search    = search.Search[Config, Stats, *Stats]
)

// WithSeed returns the configuration of a run with another seed.
func (c Config) WithSeed(seed uint64) Config {
	c.Seed = seed
	return c
}

// Run is the function Run.
func (c Config) Run() (Stats, error) { return Run(c) }

// Run simulates one cluster from its first start to its end. It returns a *Violation as error.
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
		w.stats.Violations = 1
		return w.stats, w.violation
	}
	return w.stats, nil
}

// Transcript runs a seed again and returns its transcript: the first line, which describes the
// run, and the last lines. With lines 0 it returns all of it.
func Transcript(cfg Config, lines int) []string {
	var all []string
	cfg.Trace = func(line string) { all = append(all, line) }
	_, _ = Run(cfg) // the violation is in the transcript
	if lines > 0 && len(all) > lines+1 {
		all = append(all[:1:1], all[len(all)-lines:]...)
	}
	return all
}
