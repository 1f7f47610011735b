package services

import (
	"os"
	"strconv"
	"testing"
)

// TestSeeds runs some seeds. `dynast sim --services` runs many.
func TestSeeds(t *testing.T) {
	first, count := uint64(1), uint64(1500)
	if text := os.Getenv("SERVICES_SEED"); text != "" {
		seed, err := strconv.ParseUint(text, 10, 64)
		if err != nil {
			t.Fatal(err)
		}
		first, count = seed, 1
	}
	for seed := first; seed < first+count; seed++ {
		if r := Run(seed); r.Err != nil {
			t.Fatalf("%v\nrepeat with SERVICES_SEED=%d\n%s", r.Err, seed, r.Explain(60))
		}
	}
}

// The same seed gives the same run.
func TestDeterministic(t *testing.T) {
	for seed := range uint64(20) {
		a, b := Run(seed), Run(seed)
		if a.Explain(5000) != b.Explain(5000) || a.Steps != b.Steps {
			for i := range min(len(a.Trace), len(b.Trace)) {
				if a.Trace[i] != b.Trace[i] {
					t.Fatalf("seed %d differs from itself:\n%s\n%s", seed, a.Trace[i], b.Trace[i])
				}
			}
			t.Fatalf("seed %d differs from itself: %d and %d lines", seed, len(a.Trace), len(b.Trace))
		}
	}
}
