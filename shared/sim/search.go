package sim

import (
	"context"
	"runtime"
	"runtime/debug"
	"sync"
	"time"
)

// Search runs many seeds, several at a time.
type Search struct {
	// First is the first seed; 0 means 1.
	First uint64
	// Seeds is how many are run; 0 means as many as Budget allows.
	Seeds int
	// Budget ends the search after this time; 0 means no end but Seeds.
	Budget time.Duration
	// Workers is how many run at a time; 0 means one for each processor.
	Workers int
	// Config is that of every run, but for its Seed.
	Config Config
	// Progress, if set, is called now and then, never twice at once.
	Progress func(Stats)
	// ProgressEvery is how often; 0 means once a second.
	ProgressEvery time.Duration
}

// Found is the result of a Search.
type Found struct {
	Stats   Stats
	Elapsed time.Duration
	// Violation is that of the lowest seed among those that failed; nil if none did.
	Violation *Violation
}

// searching is what the workers of a Search share.
type searching struct {
	Search
	mu    sync.Mutex
	next  uint64
	found Found
}

// Run searches until it is done, ctx ends or a seed fails. Seeds that were begun are
// finished, so that of several that fail the lowest is told.
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
	// A run holds little and makes a lot of garbage: a collector that waits for
	// more of it does a third of the work.
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

// take returns the next seed, false when there is none.
func (x *searching) take(ctx context.Context) (uint64, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if ctx.Err() != nil || x.found.Violation != nil || x.Seeds > 0 && x.next-x.First >= uint64(x.Seeds) {
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
	if v, ok := err.(*Violation); ok && (x.found.Violation == nil || v.Seed < x.found.Violation.Seed) {
		x.found.Violation = v
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
