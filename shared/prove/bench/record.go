package bench

import (
	"context"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
	clientv3 "go.etcd.io/etcd/client/v3"
)

const (
	// histogramMax is the longest latency that the histogram can hold. A longer one is recorded
	// as this value.
	histogramMax = 2 * time.Minute
	// histogramDigits is the precision of every value. With two digits, a client's histogram
	// takes about 30 KiB.
	histogramDigits = 2
)

// recorder holds the observations of one client. They are merged at the end, so that clients
// share no state.
type recorder struct {
	latency *hdrhistogram.Histogram // in nanoseconds
	errors  int
	failure error // the first error
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
	// RecordValue fails only for a value out of range.
	_ = r.latency.RecordValue(min(int64(d), int64(histogramMax)))
}

func (r *recorder) fail(err error) {
	r.errors++
	if r.failure == nil {
		r.failure = err
	}
}

// loop sends requests until the load ends or maxErrors requests in a row have failed.
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
