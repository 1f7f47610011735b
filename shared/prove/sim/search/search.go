// Package search runs a simulation for many seeds and collects what they found. The simulations are
// in the packages sim and sim/services.
package search

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

// Violation is a broken rule that a run found.
type Violation struct {
	Seed uint64
	// At is the simulated time.
	At     time.Duration
	Reason string
}

func (v *Violation) Error() string {
	return fmt.Sprintf("seed %d at %s: %s", v.Seed, v.At.Round(time.Microsecond), v.Reason)
}

// Config is the configuration of a run.
type Config[C, S any] interface {
	// WithSeed returns the same configuration with another seed.
	WithSeed(seed uint64) C
	// Run runs the simulation. It returns a *Violation as error.
	Run() (S, error)
}

// Stats counts what happened in one run or in several.
type Stats[S any] interface {
	*S
	Add(S)
}

// Search runs many seeds, several at the same time.
type Search[C Config[C, S], S any, P Stats[S]] struct {
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
	Config C
	// Progress, if set, is called regularly, and never concurrently.
	Progress func(S)
	// ProgressEvery is the interval of these calls; 0 means one second.
	ProgressEvery time.Duration
}

// Found is the result of a Search.
type Found[S any] struct {
	Stats   S
	Elapsed time.Duration
	// Violation is the violation with the lowest seed; nil if there is none.
	Violation *Violation
	// Violations are all violations, ordered by seed.
	Violations []*Violation
}

// searching is the state that the workers of a Search share.
type searching[C Config[C, S], S any, P Stats[S]] struct {
	Search[C, S, P]
	mu    sync.Mutex
	next  uint64
	found Found[S]
}

// Run runs seeds until the search is done, ctx ends or a seed fails. It finishes the seeds that
// have begun, so that it reports the lowest of several failing seeds.
func (s Search[C, S, P]) Run(ctx context.Context) Found[S] {
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
	x := &searching[C, S, P]{Search: s, next: s.First}
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
func (x *searching[C, S, P]) take(ctx context.Context) (uint64, bool) {
	x.mu.Lock()
	defer x.mu.Unlock()
	if ctx.Err() != nil || x.found.Violation != nil && !x.KeepGoing || x.Seeds > 0 && x.next-x.First >= uint64(x.Seeds) {
		return 0, false
	}
	x.next++
	return x.next - 1, true
}

func (x *searching[C, S, P]) work(ctx context.Context) {
	for {
		seed, ok := x.take(ctx)
		if !ok {
			return
		}
		x.add(x.Config.WithSeed(seed).Run())
	}
}

func (x *searching[C, S, P]) add(stats S, err error) {
	x.mu.Lock()
	defer x.mu.Unlock()
	P(&x.found.Stats).Add(stats)
	if v, ok := err.(*Violation); ok {
		x.found.Violations = append(x.found.Violations, v)
		slices.SortFunc(x.found.Violations, func(a, b *Violation) int { return cmp.Compare(a.Seed, b.Seed) })
		x.found.Violation = x.found.Violations[0]
	}
}

func (x *searching[C, S, P]) tell(done <-chan struct{}) {
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
