package state

import (
	"context"
	"time"
)

// Quiet returns a context that ends when no request was under way for the time linger, or with
// ctx. It lets an exiting process stop waiting for clients that hang and never disconnect.
func Quiet(ctx context.Context, linger time.Duration, inFlight func() int64) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		tick := time.NewTicker(linger / 10)
		defer tick.Stop()
		for idle := 0; idle < 10; idle++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if inFlight() > 0 {
				idle = 0
			}
		}
	}()
	return ctx, cancel
}
