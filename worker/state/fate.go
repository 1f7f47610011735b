package state

import (
	"context"
	"errors"
	"fmt"
	"runtime/debug"
	"sync"

	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/shared/rules/core"
)

// Fate ends the process, once, with a code and a reason. An error that a member cannot handle
// ends the process. Its leader then starts a replacement.
type Fate struct {
	ended chan struct{}
	once  sync.Once
	code  core.ExitCode
	// told is called with the code and the reason before Ended is closed.
	told func(code core.ExitCode, reason string)

	life   context.Context
	cancel context.CancelFunc
}

// NewFate returns the Fate of a running process.
func NewFate(told func(code core.ExitCode, reason string)) *Fate {
	f := &Fate{ended: make(chan struct{}), told: told}
	f.life, f.cancel = context.WithCancel(context.Background())
	return f
}

// Ended is closed when the process has to exit.
func (f *Fate) Ended() <-chan struct{} { return f.ended }

// Lifetime returns a context that ends with the process.
func (f *Fate) Lifetime() context.Context { return f.life }

// Code returns the exit code. It is valid once Ended is closed.
func (f *Fate) Code() core.ExitCode { return f.code }

// End ends the process. Only the first call has an effect.
func (f *Fate) End(code core.ExitCode, reason string) {
	f.once.Do(func() {
		f.code = code
		f.told(code, reason)
		close(f.ended)
		f.cancel()
	})
}

// Fatal ends the process because of an error that it cannot handle.
func (f *Fate) Fatal(code core.ExitCode, err error) { f.End(code, "fatal: "+err.Error()) }

// Ensure ends the process if err is not nil.
func (f *Fate) Ensure(err error) {
	if err != nil {
		f.Fatal(core.ExitError, err)
	}
}

// StoreFailed ends the process because of its store. If the database file is damaged, the next
// process in this slot fetches a new copy.
func (f *Fate) StoreFailed(err error) { f.Fatal(ExitCode(err), err) }

// ExitCode returns the exit code for an error of the store.
func ExitCode(err error) core.ExitCode {
	if errors.Is(err, store.ErrCorrupt) {
		return core.ExitCorrupt
	}
	return core.ExitError
}

// Guarded runs do. If do panics, the process ends and the reason is logged.
func (f *Fate) Guarded(do func()) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		trace := debug.Stack()
		if err := store.FromPanic(r, trace); ExitCode(err) == core.ExitCorrupt {
			f.StoreFailed(err) // any goroutine can be the first to read a damaged page
			return
		}
		f.Fatal(core.ExitError, fmt.Errorf("broken invariant: %v\n%s", r, trace))
	}()
	debug.SetPanicOnFault(true) // a fault can come from a mapped database file that became shorter
	do()
}
