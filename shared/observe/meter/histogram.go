package meter

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// The buckets of a histogram. Each power of two of microseconds from 16 µs to 16.8 s is divided
// into four buckets of the same width, so a quantile is accurate to about a tenth. The first
// bucket also has all shorter durations, the last one all longer ones.
const (
	firstPower = 4  // 2^4 µs
	lastPower  = 24 // 2^24 µs = 16.8 s
	perPower   = 4
	buckets    = (lastPower-firstPower)*perPower + 2
)

// Histogram counts durations. The zero value is empty. It is safe for concurrent use.
type Histogram struct {
	counts [buckets]atomic.Uint64
	nanos  atomic.Int64
}

// Observe adds a duration.
func (h *Histogram) Observe(d time.Duration) {
	d = max(d, 0)
	h.counts[bucket(d)].Add(1)
	h.nanos.Add(int64(d))
}

// bucket returns the index of the bucket for d. A bucket includes its upper bound.
func bucket(d time.Duration) int {
	us := uint64((d + time.Microsecond - 1) / time.Microsecond)
	if us <= 1<<firstPower {
		return 0
	}
	us-- // so that a bound is in the bucket below it
	power := bits.Len64(us) - 1
	if power >= lastPower {
		return buckets - 1
	}
	return 1 + (power-firstPower)*perPower + int((us-1<<power)>>(power-2))
}

// bound returns the upper bound of a bucket in seconds.
func bound(i int) float64 {
	if i == buckets-1 {
		return math.Inf(1)
	}
	if i == 0 {
		return (1 << firstPower) * 1e-6
	}
	power, part := firstPower+(i-1)/perPower, (i-1)%perPower
	return float64(int(1)<<power+(part+1)<<(power-2)) * 1e-6
}

// Bucket is a part of a Counts: N durations of at most LE seconds and longer than the LE of the
// bucket before. The last bucket has no bound, and its LE is 0.
type Bucket struct {
	LE float64 `json:"le"`
	N  uint64  `json:"n"`
}

// Counts is a histogram at one moment. It has no empty buckets.
type Counts struct {
	Count   uint64   `json:"count"`
	Seconds float64  `json:"seconds"` // the sum of all durations
	Buckets []Bucket `json:"buckets"`
}

// Snapshot returns the current content of the histogram.
func (h *Histogram) Snapshot() Counts {
	c := Counts{Seconds: time.Duration(h.nanos.Load()).Seconds(), Buckets: []Bucket{}}
	for i := range h.counts {
		if n := h.counts[i].Load(); n > 0 {
			le := bound(i)
			if i == buckets-1 {
				le = 0 // JSON has no infinity
			}
			c.Count += n
			c.Buckets = append(c.Buckets, Bucket{LE: le, N: n})
		}
	}
	return c
}

// Sub returns what was added since an earlier snapshot of the same histogram. If before has
// counted more, it is from another process and is ignored.
func (c Counts) Sub(before Counts) Counts {
	if before.Count > c.Count {
		return c
	}
	was := map[float64]uint64{}
	for _, b := range before.Buckets {
		was[b.LE] = b.N
	}
	out := Counts{Seconds: max(c.Seconds-before.Seconds, 0)}
	for _, b := range c.Buckets {
		if n := b.N - min(was[b.LE], b.N); n > 0 {
			out.Count += n
			out.Buckets = append(out.Buckets, Bucket{LE: b.LE, N: n})
		}
	}
	return out
}

// Quantile returns a duration in seconds that the fraction q of all durations does not exceed.
// It is the upper bound of a bucket, or 0 if there are no durations.
func (c Counts) Quantile(q float64) float64 {
	if c.Count == 0 {
		return 0
	}
	rank := max(uint64(math.Ceil(q*float64(c.Count))), 1)
	var n uint64
	for _, b := range c.Buckets {
		if n += b.N; n >= rank {
			if b.LE == 0 {
				return (1 << lastPower) * 1e-6
			}
			return b.LE
		}
	}
	return 0
}

// Cumulative returns the counts in Prometheus' form: how many durations are at most each bound,
// for the powers of two.
func (c Counts) Cumulative() map[float64]uint64 {
	out := make(map[float64]uint64, lastPower-firstPower+1)
	for power := firstPower; power <= lastPower; power++ {
		le := float64(int(1)<<power) * 1e-6
		var n uint64
		for _, b := range c.Buckets {
			if b.LE > 0 && b.LE <= le {
				n += b.N
			}
		}
		out[le] = n
	}
	return out
}
