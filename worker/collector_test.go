package worker

import (
	"math"
	"runtime"
	"runtime/debug"
	"testing"
)

func TestRoomOfTheCollector(t *testing.T) {
	for live, want := range map[uint64]int{
		0: 200, leaderRoomBytes: 200, 2 * leaderRoomBytes: 150, 10 * leaderRoomBytes: 110, 1 << 40: 100, math.MaxUint64: 100,
	} {
		if got := roomFor(live); got != want {
			t.Errorf("%d bytes in use: %d %%, want %d", live, got, want)
		}
	}
	for live := uint64(1); live < 1<<40; live = live*9/8 + 1 {
		if extra := live * uint64(roomFor(live)-usualRoom) / 100; extra > leaderRoomBytes {
			t.Fatalf("%d bytes in use, %d more than usual", live, extra)
		}
	}
}

func TestCollectorSetsTheRoom(t *testing.T) {
	before := debug.SetGCPercent(usualRoom)
	defer debug.SetGCPercent(before)
	set := func() int {
		percent := debug.SetGCPercent(usualRoom)
		debug.SetGCPercent(percent)
		return percent
	}
	t.Setenv("GOGC", "")
	t.Setenv("GOMEMLIMIT", "")
	c := newCollector()
	runtime.GC()
	if c.lead(); set() != leaderRoom {
		t.Errorf("a small heap: %d", set())
	}
	big := make([]byte, 4*leaderRoomBytes)
	runtime.GC()
	if c.lead(); set() > 125 {
		t.Errorf("a large heap: %d", set())
	}
	runtime.KeepAlive(big)
	t.Setenv("GOGC", "70")
	debug.SetGCPercent(70)
	if newCollector().lead(); set() != 70 {
		t.Errorf("an operator's choice: %d", set())
	}
}
