package services

import (
	"fmt"
	"time"

	"github.com/dynast-io/dynast/shared/prove/sim/search"
)

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

// Stats counts what happened in one run or in several.
type Stats struct {
	Runs, Steps, Leads, Deaths, PowerLosses int
	Starts, Signals, Commands               int
	Exits, Unknown                          int // exits that were noted, and those with an unknown status
	Violations                              int // runs that broke a rule
	Simulated                               time.Duration
}

// Add adds the counts of other runs.
func (s *Stats) Add(o Stats) {
	s.Runs += o.Runs
	s.Steps += o.Steps
	s.Leads += o.Leads
	s.Deaths += o.Deaths
	s.PowerLosses += o.PowerLosses
	s.Starts += o.Starts
	s.Signals += o.Signals
	s.Commands += o.Commands
	s.Exits += o.Exits
	s.Unknown += o.Unknown
	s.Violations += o.Violations
	s.Simulated += o.Simulated
}

func (s Stats) String() string {
	return fmt.Sprintf("%d runs, %d steps in %s of simulated time: %d leaders, %d of them died, %d power losses, %d commands, %d processes started, %d told to stop, %d exits noted, %d of them unknown",
		s.Runs, s.Steps, s.Simulated.Round(time.Second), s.Leads, s.Deaths, s.PowerLosses, s.Commands, s.Starts, s.Signals, s.Exits, s.Unknown)
}
