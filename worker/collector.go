package worker

import (
	"os"
	"runtime/debug"
	"runtime/metrics"
)

const (
	// usualRoom is Go's GOGC: as much as is in use may be added before the garbage
	// collector runs. leaderRoom is what a leader is given while little is in use: it
	// allocates several times as much for a write as a follower does, and the collector
	// takes 6 % of all processes' time less for it.
	usualRoom, leaderRoom = 100, 200
	// leaderRoomBytes bounds what that costs: a leader with a large database has as much
	// room as anybody, and this.
	leaderRoomBytes = 64 << 20
	// roomStep is the least change that is worth stopping all goroutines for a moment.
	roomStep = 10
)

// collector adapts the room of the garbage collector to the heap. Only housekeeping
// uses it.
type collector struct {
	room   int // percent of what is in use
	sample [1]metrics.Sample
}

// newCollector returns nil where the operator has set GOGC or GOMEMLIMIT.
func newCollector() *collector {
	if os.Getenv("GOGC") != "" || os.Getenv("GOMEMLIMIT") != "" {
		return nil
	}
	return &collector{room: usualRoom, sample: [1]metrics.Sample{{Name: "/gc/heap/live:bytes"}}}
}

// lead is called now and then by a leader.
func (c *collector) lead() {
	if c == nil {
		return
	}
	metrics.Read(c.sample[:])
	if c.sample[0].Value.Kind() != metrics.KindUint64 {
		return // a Go without this metric
	}
	room := roomFor(c.sample[0].Value.Uint64())
	if room >= c.room+roomStep || room <= c.room-roomStep {
		c.room = room
		debug.SetGCPercent(room)
	}
}

// roomFor is the room in percent when so many bytes are in use.
func roomFor(live uint64) int {
	if live <= leaderRoomBytes {
		return leaderRoom
	}
	return usualRoom + int((leaderRoom-usualRoom)*leaderRoomBytes/live)
}
