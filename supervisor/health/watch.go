package health

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/dynast-io/dynast/shared/config"
)

// Watch repeats a check until ctx ends and reports every result. Attempts begin one interval
// after the end of the one before. With once, Watch returns after the first success. A check by
// delay reports one success after the delay. A check by notification reports nothing, because
// the program speaks by itself.
func Watch(ctx context.Context, c config.Check, t Target, once bool, report func(error)) {
	switch c.Kind {
	case config.CheckNotify:
		return
	case config.CheckDelay:
		if wait(ctx, c.Delay) {
			report(nil)
		}
		return
	}
	// An alive check starts somewhere in its interval, so that a thousand of them do not ask at
	// the same moment. A ready check starts at once, because others wait for it.
	if !once && !wait(ctx, rand.N(max(c.Interval, 1))) {
		return
	}
	for {
		err := Probe(ctx, c, t)
		if ctx.Err() != nil {
			return
		}
		report(err)
		if once && err == nil {
			return
		}
		if !wait(ctx, c.Interval) {
			return
		}
	}
}

// wait returns false if ctx ends first.
func wait(ctx context.Context, d time.Duration) bool {
	timer := time.NewTimer(d)
	defer timer.Stop()
	select {
	case <-timer.C:
		return true
	case <-ctx.Done():
		return false
	}
}
