package services

import (
	"cmp"
	"context"
	"fmt"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

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

// Search runs many seeds, several at the same time. Its fields are those of the Search of package
// sim.
type Search struct {
	First         uint64
	Seeds         int
	Budget        time.Duration
	Workers       int
	KeepGoing     bool
	Config        Config
	Progress      func(Stats)
	ProgressEvery time.Duration
}

// Found is the result of a Search. Violations are ordered by seed.
type Found struct {
	Stats      Stats
	Elapsed    time.Duration
	Violations []*Violation
}

// Run runs seeds until the search is done, ctx ends or a seed fails.
func (s Search) Run(ctx context.Context) Found {
	s.First = max(s.First, 1)
	if s.Workers <= 0 {
		s.Workers = runtime.GOMAXPROCS(0)
	}
	if s.Budget > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.Budget)
		defer cancel()
	}
	// A run uses little memory and makes much garbage.
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	began, told := time.Now(), time.Now()
	var (
		mu    sync.Mutex
		found Found
		next  = s.First
		all   sync.WaitGroup
	)
	take := func() (uint64, bool) {
		mu.Lock()
		defer mu.Unlock()
		if ctx.Err() != nil || len(found.Violations) > 0 && !s.KeepGoing || s.Seeds > 0 && next-s.First >= uint64(s.Seeds) {
			return 0, false
		}
		next++
		return next - 1, true
	}
	add := func(stats Stats, err error) {
		mu.Lock()
		defer mu.Unlock()
		found.Stats.Add(stats)
		if v, ok := err.(*Violation); ok {
			found.Violations = append(found.Violations, v)
		}
		if s.Progress != nil && time.Since(told) >= max(s.ProgressEvery, time.Second) {
			told = time.Now()
			s.Progress(found.Stats)
		}
	}
	for range s.Workers {
		all.Go(func() {
			for seed, ok := take(); ok; seed, ok = take() {
				cfg := s.Config
				cfg.Seed = seed
				add(Run(cfg))
			}
		})
	}
	all.Wait()
	slices.SortFunc(found.Violations, func(a, b *Violation) int { return cmp.Compare(a.Seed, b.Seed) })
	found.Elapsed = time.Since(began)
	return found
}
