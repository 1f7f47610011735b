package meter

import (
	"math"
	"math/bits"
	"sync/atomic"
	"time"
)

// The buckets of a histogram: each power of two of microseconds from 16 µs to
// 16.8 s is cut into four of the same width, so that a quantile is known to
// about a tenth. What is shorter is in the first, what is longer in the last.
const (
	firstPower = 4  // 2^4 µs
	lastPower  = 24 // 2^24 µs = 16.8 s
	perPower   = 4
	buckets    = (lastPower-firstPower)*perPower + 2
)

// Histogram counts durations. The zero value is empty; safe for concurrent use.
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

// bucket is the index of the bucket for d. Upper bounds belong to their bucket.
func bucket(d time.Duration) int {
	us := uint64((d + time.Microsecond - 1) / time.Microsecond)
	if us <= 1<<firstPower {
		return 0
	}
	us-- // so that a bound is the last of its bucket
	power := bits.Len64(us) - 1
	if power >= lastPower {
		return buckets - 1
	}
	return 1 + (power-firstPower)*perPower + int((us-1<<power)>>(power-2))
}

// bound is the upper bound of a bucket in seconds.
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

// Bucket is a part of a Counts: N durations of at most LE seconds, and more
// than the LE of the bucket before. LE is 0 for the last one, which has no bound.
type Bucket struct {
	LE float64 `json:"le"`
	N  uint64  `json:"n"`
}

// Counts is a histogram at one moment. Empty buckets are left out.
type Counts struct {
	Count   uint64   `json:"count"`
	Seconds float64  `json:"seconds"` // of all together
	Buckets []Bucket `json:"buckets"`
}

// Snapshot reads the histogram.
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

// Sub returns what came after an earlier snapshot of the same histogram. A
// snapshot of another process, which has counted less, is taken for nothing.
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

// Quantile is a duration in seconds that the part q of all does not exceed; 0
// when there are none. It is the upper bound of a bucket.
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

// Cumulative returns counts as Prometheus wants them: how many are at most
// each bound, for the powers of two.
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
