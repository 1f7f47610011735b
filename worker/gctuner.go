package worker

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// defaultGCPercent is Go's default for GOGC: the heap may grow by as much as is in use
	// before the garbage collector runs. A leader with a small heap gets leaderGCPercent.
	// It allocates several times as much for a write as a follower does, and with more
	// room the collector takes 6 % less of all processes' time.
	defaultGCPercent, leaderGCPercent = 100, 200
	// leaderExtraBytes bounds the cost of that: a leader with a large database gets at most
	// this much more memory than the default would give it.
	leaderExtraBytes = 64 << 20
	// gcPercentStep is the smallest change that is worth stopping all goroutines for a moment.
	gcPercentStep = 10
)

// gcTuner adapts GOGC to the size of the heap. Only housekeeping uses it.
type gcTuner struct {
	percent int
	sample  [1]metrics.Sample
}

// newGCTuner returns nil if the operator has set GOGC or GOMEMLIMIT.
func newGCTuner() *gcTuner {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	return &gcTuner{percent: defaultGCPercent, sample: [1]metrics.Sample{{Name: "/gc/heap/live:bytes"}}}
}

// adjust is called regularly in a leader.
func (c *gcTuner) adjust() {
	if c == nil {
		return
	}
	metrics.Read(c.sample[:])
	if c.sample[0].Value.Kind() != metrics.KindUint64 {
		return // this Go version does not have the metric
	}
	percent := gcPercentFor(c.sample[0].Value.Uint64())
	if percent >= c.percent+gcPercentStep || percent <= c.percent-gcPercentStep {
		c.percent = percent
		debug.SetGCPercent(percent)
	}
}

// gcPercentFor returns the GOGC value for a heap with this many live bytes.
func gcPercentFor(live uint64) int {
	if live <= leaderExtraBytes {
		return leaderGCPercent
	}
	return defaultGCPercent + int((leaderGCPercent-defaultGCPercent)*leaderExtraBytes/live)
}
