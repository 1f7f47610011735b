package worker

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestGCPercentFor(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 200, leaderExtraBytes: 200, 2 * leaderExtraBytes: 150, 10 * leaderExtraBytes: 110, 1 << 40: 100, math.MaxUint64: 100,
	} {
		if got := gcPercentFor(live); got != want {
			t.Errorf("%d bytes in use: %d %%, want %d", live, got, want)
		}
	}
	for live := uint64(1); live < 1<<40; live = live*9/8 + 1 {
		if extra := live * uint64(gcPercentFor(live)-defaultGCPercent) / 100; extra > leaderExtraBytes {
			t.Fatalf("%d bytes in use, %d more than by default", live, extra)
		}
	}
}

func TestGCTunerSetsGOGC(t *testing.T) {
	before := debug.SetGCPercent(defaultGCPercent)
	defer debug.SetGCPercent(before)
	set := func() int {
		percent := debug.SetGCPercent(defaultGCPercent)
		debug.SetGCPercent(percent)
		return percent
	}
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "")
	c := newGCTuner()
	runtime.GC()
	if c.adjust(); set() != leaderGCPercent {
		t.Errorf("a small heap: %d", set())
	}
	big := make([]byte, 4*leaderExtraBytes)
	runtime.GC()
	if c.adjust(); set() > 125 {
		t.Errorf("a large heap: %d", set())
	}
	runtime.KeepAlive(big)
	t.Setenv("GOGC", "70")
	debug.SetGCPercent(70)
	if newGCTuner().adjust(); set() != 70 {
		t.Errorf("GOGC set by the operator was changed: %d", set())
	}
}
