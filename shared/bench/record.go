package bench

import (
	"context"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// histogramMax is the longest latency that is told apart from longer ones.
	histogramMax = 2 * time.Minute
	// histogramDigits is the precision, two digits of every value: some 30 KiB for each client.
	histogramDigits = 2
)

// recorder holds what one client saw; merged in the end, so that clients share nothing.
type recorder struct {
	latency *hdrhistogram.Histogram // in nanoseconds
	errors  int
	failure error // the first
}

func newRecorders(n int) []*recorder {
	out := make([]*recorder, n)
	for i := range out {
		out[i] = &recorder{latency: newHistogram()}
	}
	return out
}

func newHistogram() *hdrhistogram.Histogram {
	return hdrhistogram.New(int64(time.Microsecond), int64(histogramMax), histogramDigits)
}

func (r *recorder) success(d time.Duration) {
	// The only error is a value out of range.
	_ = r.latency.RecordValue(min(int64(d), int64(histogramMax)))
}

func (r *recorder) fail(err error) {
	r.errors++
	if r.failure == nil {
		r.failure = err
	}
}

// loop asks until there is no more to ask for, or the server only fails.
func (r *recorder) loop(ctx context.Context, op seeded, c *clientv3.Client, more func() bool) {
	for inRow := 0; inRow < maxErrors && ctx.Err() == nil && more(); {
		began := time.Now()
		if err := op.run(ctx, c); err != nil {
			r.fail(err)
			inRow++
			continue
		}
		inRow = 0
		r.success(time.Since(began))
	}
}
