package sim

import (
	"cmp"
	"context"
	"runtime"
	"runtime/debug"
	"slices"
	"sync"
	"time"
)

// Search runs many seeds, several at the same time.
type Search struct {
	// First is the first seed; 0 means 1.
	First uint64
	// Seeds is the number of seeds; 0 means as many as Budget allows.
	Seeds int
	// Budget ends the search after this time; 0 means no time limit.
	Budget time.Duration
	// Workers is the number of seeds that run at the same time; 0 means one for each processor.
	Workers int
	// KeepGoing continues the search after a violation.
	KeepGoing bool
	// Config is the configuration of every run, except for its Seed.
	Config Config
	// Progress, if set, is called regularly, and never concurrently.
	Progress func(Stats)
	// ProgressEvery is the interval of these calls; 0 means one second.
	ProgressEvery time.Duration
}

// Found is the result of a Search.
type Found struct {
	Stats   Stats
	Elapsed time.Duration
	// Violation is the violation with the lowest seed; nil if there is none.
	Violation *Violation
	// Violations are all violations, ordered by seed.
	Violations []*Violation
}

// searching is the state that the workers of a Search share.
type searching struct {
	Search
	mu    sync.Mutex
	next  uint64
	found Found
}

// Run runs seeds until the search is done, ctx ends or a seed fails. It finishes the seeds that
// have begun, so that it reports the lowest of several failing seeds.
func (s Search) Run(ctx context.Context) Found {
	if s.Workers <= 0 {
		s.Workers = runtime.GOMAXPROCS(0)
	}
	if s.First == 0 {
		s.First = 1
	}
	if s.ProgressEvery == 0 {
		s.ProgressEvery = time.Second
	}
	if s.Budget > 0 {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, s.Budget)
		defer cancel()
	}
	// A run uses little memory and makes much garbage. With less frequent collections the
	// collector does a third of the work.
	defer debug.SetGCPercent(debug.SetGCPercent(800))
	began := time.Now()
	x := &searching{Search: s, next: s.First}
	var workers sync.WaitGroup
	for range s.Workers {
		workers.Go(func() { x.work(ctx) })
	}
	done := make(chan struct{})
	var teller sync.WaitGroup
	if s.Progress != nil {
		teller.Go(func() { x.tell(done) })
	}
	workers.Wait()
	close(done)
	teller.Wait()
	x.found.Elapsed = time.Since(began)
	return x.found
}

// take returns the next seed, or false if there is none.
func (x *searching) take(ctx context.Context) (uint64, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if ctx.Err() != nil || x.found.Violation != nil && !x.KeepGoing || x.Seeds > 0 && x.next-x.First >= uint64(x.Seeds) {
		return 0, false
	}
	x.next++
	return x.next - 1, true
}

func (x *searching) work(ctx context.Context) {
	for {
		seed, ok := x.take(ctx)
		if !ok {
			return
		}
		cfg := x.Config
		cfg.Seed = seed
		stats, err := Run(cfg)
		x.add(stats, err)
	}
}

func (x *searching) add(stats Stats, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	x.found.Stats.Add(stats)
	if v, ok := err.(*Violation); ok {
		x.found.Violations = append(x.found.Violations, v)
		slices.SortFunc(x.found.Violations, func(a, b *Violation) int { return cmp.Compare(a.Seed, b.Seed) })
		x.found.Violation = x.found.Violations[0]
	}
}

func (x *searching) tell(done <-chan struct{}) {
	tick := time.NewTicker(x.ProgressEvery)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
			x.mu.Lock()
			stats := x.found.Stats
			x.mu.Unlock()
			x.Progress(stats)
		case <-done:
			return
		}
	}
}
