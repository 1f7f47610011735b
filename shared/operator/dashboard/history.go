package dashboard

import (
	"context"
	"sync"
	"time"

	"github.com/dynast-io/dynast/shared/observe/meter"
)

// maxSamples bounds the history: five minutes, the span of the graphs, with a sample a second.
const maxSamples = 300

// sample is a point of the graphs.
type sample struct {
	At time.Time `json:"at"`
	// Read and Write are requests per second.
	Read  float64 `json:"read"`
	Write float64 `json:"write"`
	// P50 and P99 are durations of writes in milliseconds. They are nil if there were no writes.
	P50 *float64 `json:"p50"`
	P99 *float64 `json:"p99"`
	// Lag is how many entries the slowest follower lacks. It is nil if none has been in sync yet.
	Lag *uint64 `json:"lag"`
}

// history has the samples of the last minutes, so that the graphs of a page do not begin empty. The
// history of a leader ends with it; an open page keeps what it has.
type history struct {
	mu      sync.Mutex
	samples []sample
}

// record takes a sample at every interval, until ctx ends.
func (h *history) record(ctx context.Context, interval time.Duration, load func() (meter.Load, *uint64, bool)) {
	tick := time.NewTicker(interval)
	defer tick.Stop()
	var before meter.Load
	var at time.Time
	for {
		if now, lag, ok := load(); ok {
			taken := time.Now()
			if !at.IsZero() {
				h.add(newSample(taken, now.Sub(before), taken.Sub(at).Seconds(), lag))
			}
			before, at = now, taken
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// newSample returns the sample of an interval with this load.
func newSample(at time.Time, load meter.Load, seconds float64, lag *uint64) sample {
	s := sample{At: at.UTC(), Read: float64(load.Read.Count) / seconds, Write: float64(load.Write.Count) / seconds, Lag: lag}
	if load.Write.Count > 0 {
		p50, p99 := 1000*load.Write.Quantile(0.5), 1000*load.Write.Quantile(0.99)
		s.P50, s.P99 = &p50, &p99
	}
	return s
}

func (h *history) add(s sample) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.samples = append(h.samples[max(0, len(h.samples)-maxSamples+1):], s)
}

// since returns a copy of the samples that are newer than a time.
func (h *history) since(at time.Time) []sample {
	h.mu.Lock()
	defer h.mu.Unlock()
	n := len(h.samples)
	for n > 0 && h.samples[n-1].At.After(at) {
		n--
	}
	return append([]sample(nil), h.samples[n:]...)
}
