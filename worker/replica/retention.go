package replica

import (
	"math"

	"github.com/dynast-io/dynast/shared/host/proc"
	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state"
)

// retention decides how far back the log is kept for other members. The leader decides and
// tells its followers, because each of them may have to lead before the others have caught up.
// Only housekeeping uses it.
type retention struct {
	*state.Shared
	copies *holder
	links  func() Links
	// ends holds the last log index of each follower that has not joined yet.
	ends map[opening]uint64
}

// opening identifies a follower that is opening the copy in a slot.
type opening struct {
	roster.ID
	slot int
}

// from returns the first index that must be kept for other members.
func (k *retention) from() uint64 {
	if k.Leading.Load() {
		k.RetainFrom.Store(k.needed())
	}
	if from := k.RetainFrom.Load(); from != 0 {
		return from
	}
	return math.MaxUint64 // no leader has said anything yet
}

// needed returns the lowest index after which a member needs the leader's log, but at least 1.
// The entry at that index is kept too: it shows whether the follower's log is the same up to it.
func (k *retention) needed() uint64 {
	r, present, after := k.Roster(), 0, k.copies.Last().Index
	ends := map[opening]uint64{}
	for _, f := range r.Members {
		if f.Address == k.Self.Address || f.State == roster.Leaving {
			continue
		}
		present++
		if needed, ok := k.links().Needed(f.ID); ok {
			after = min(after, needed)
		} else if end, ok := k.end(f); ok {
			ends[opening{f.ID, f.Slot}] = end
			after = min(after, end)
		}
	}
	k.ends = ends
	if present < r.Followers {
		return 1 // the next follower may open any of the copies
	}
	return max(after, 1)
}

// end returns the last log index of a follower that is opening its copy.
func (k *retention) end(f roster.Member) (uint64, bool) {
	if end, ok := k.ends[opening{f.ID, f.Slot}]; ok {
		return end, true
	}
	o := k.copies.logOptions(k.Dir.Slot(f.Slot))
	last, err := replog.LastPosition(o.Dir, o)
	return last.Index, err == nil && !last.IsZero()
}

// spareBytes returns how many bytes on disk the kept log may take. The disk reserve stays free, so
// that no write is refused because of the kept log.
func (k *retention) spareBytes() int64 {
	free, err := proc.FreeBytes(k.Settings.Start.DataDir)
	if err != nil {
		return 0
	}
	return int64(min(free, math.MaxInt64)) - int64(k.Settings.Now().Store.DiskReserve)
}
