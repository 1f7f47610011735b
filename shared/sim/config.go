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
	// Faults is how long faults are injected; 0 means 3 s. Simulated time, as all here.
	Faults time.Duration
	// Bound is how long a cluster without faults may take to be whole again; 0
	// means 30 s.
	Bound time.Duration
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

// Stats counts what a run went through.
type Stats struct {
	Steps, Leads, Acknowledged              int
	Kills, Stops, PowerLosses, ColdStarts   int
	Spawns, Snapshots, Losses, KilledByCore int
	Simulated                               time.Duration
}

// Add sums up several runs.
func (s *Stats) Add(o Stats) {
	s.Steps += o.Steps
	s.Leads += o.Leads
	s.Acknowledged += o.Acknowledged
	s.Kills += o.Kills
	s.Stops += o.Stops
	s.PowerLosses += o.PowerLosses
	s.ColdStarts += o.ColdStarts
	s.Spawns += o.Spawns
	s.Snapshots += o.Snapshots
	s.Losses += o.Losses
	s.KilledByCore += o.KilledByCore
	s.Simulated += o.Simulated
}

func (s Stats) String() string {
	return fmt.Sprintf("%d steps in %s of simulated time: %d takeovers, %d writes acknowledged, %d processes killed and %d stopped by faults, "+
		"%d power losses, %d cold starts, %d spawns, %d snapshots, %d killed by a member, %d runs with a reported loss",
		s.Steps, s.Simulated.Round(time.Second), s.Leads, s.Acknowledged, s.Kills, s.Stops, s.PowerLosses, s.ColdStarts,
		s.Spawns, s.Snapshots, s.KilledByCore, s.Losses)
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
	if cfg.Faults == 0 {
		cfg.Faults = 3 * time.Second
	}
	if cfg.Bound == 0 {
		cfg.Bound = 30 * time.Second
	}
	w := newWorld(cfg)
	w.guarded(w.play)
	w.stats.Simulated = w.now
	if w.violation != nil {
		return w.stats, w.violation
	}
	return w.stats, nil
}
