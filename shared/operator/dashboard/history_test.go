package dashboard

import (
	"context"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/observe/meter"
	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// The history is bounded and has the latest samples.
func TestHistoryIsBounded(t *testing.T) {
	var h history
	start := time.Unix(1000, 0)
	for i := range 3 * maxSamples {
		h.add(sample{At: start.Add(time.Duration(i) * time.Second)})
	}
	all := h.since(time.Time{})
	if last := all[len(all)-1].At; len(all) != maxSamples || cap(h.samples) > 3*maxSamples || last != start.Add((3*maxSamples-1)*time.Second) {
		t.Fatalf("%d samples, room for %d, the last at %s", len(all), cap(h.samples), last)
	}
	if n := len(h.since(all[maxSamples-3].At)); n != 2 {
		t.Errorf("%d samples are newer than the last but two", n)
	}
}

// A sample has the load of its interval only, and nothing in place of what is not known.
func TestHistoryMeasuresIntervals(t *testing.T) {
	var requests meter.Requests
	requests.Done(meter.Write, time.Second, false) // before the first sample
	var h history
	ctx, cancel := context.WithCancel(context.Background())
	done, calls := make(chan struct{}), 0
	go func() {
		defer close(done)
		h.record(ctx, time.Millisecond, func() (meter.Load, *uint64, bool) {
			calls++
			switch calls {
			case 3: // this process is ending, or busy
				return meter.Load{}, nil, false
			case 4:
				for range 10 {
					requests.Done(meter.Write, time.Millisecond, false)
				}
				lag := uint64(7)
				return requests.Snapshot(), &lag, true
			}
			return requests.Snapshot(), nil, true
		})
	}()
	testkit.Eventually(t, "four samples", func() bool { return len(h.since(time.Time{})) >= 4 })
	cancel()
	<-done
	all := h.since(time.Time{})
	if s := all[0]; s.Write != 0 || s.P50 != nil || s.P99 != nil || s.Lag != nil {
		t.Errorf("an idle interval: %+v", s)
	}
	if s := all[1]; s.Write <= 0 || s.Read != 0 || s.P99 == nil || *s.P99 < 0.9 || *s.P99 > 1.3 || s.Lag == nil || *s.Lag != 7 {
		t.Errorf("an interval with writes of a millisecond: %+v", s)
	}
	if s := all[2]; s.Write != 0 {
		t.Errorf("the interval after it: %+v", s)
	}
}
