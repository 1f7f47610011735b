package worker

import (
	"math"

	replog "github.com/dynast-io/dynast/shared/log"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
)

// kept is how far back the log is kept for others. The leader knows, and tells its
// followers: each of them may have to lead before those others have caught up. Only
// housekeeping uses it.
type kept struct {
	m *Member
	// ends are the indices with which the logs of those end that have not joined yet.
	ends map[opening]uint64
}

// opening is a follower that opens the copy in a slot.
type opening struct {
	roster.ID
	slot int
}

func newKept(m *Member) *kept { return &kept{m: m, ends: map[opening]uint64{}} }

// from is the first index that has to stay for others.
func (k *kept) from() uint64 {
	if k.m.leading.Load() {
		k.m.keptFrom.Store(k.needed())
	}
	if from := k.m.keptFrom.Load(); from != 0 {
		return from
	}
	return math.MaxUint64 // no leader has said anything yet
}

// needed is the index after which somebody needs the leader's log, but no less than 1.
// The entry itself is kept as well: it tells whether the other's log is the same up to it.
func (k *kept) needed() uint64 {
	m := k.m
	r, present, after := m.roster(), 0, m.replica.last().Index
	ends := map[opening]uint64{}
	for _, f := range r.Members {
		if f.Address == m.address || f.State == roster.Leaving {
			continue
		}
		present++
		if s := m.downstream.find(f.ID); s != nil {
			after = min(after, s.needed())
		} else if end, ok := k.end(f); ok {
			ends[opening{f.ID, f.Slot}] = end
			after = min(after, end)
		}
	}
	k.ends = ends
	if present < r.Followers {
		return 1 // it will be seen whose copy the next one opens
	}
	return max(after, 1)
}

// end is where the log of a follower ends that is opening its copy.
func (k *kept) end(f roster.Member) (uint64, bool) {
	if end, ok := k.ends[opening{f.ID, f.Slot}]; ok {
		return end, true
	}
	o := k.m.replica.logOptions(k.m.dir.Slot(f.Slot))
	last, err := replog.LastPosition(o.Dir, o)
	return last.Index, err == nil && !last.IsZero()
}

// spare is how many bytes of the disk may be taken for it: writes are not to be
// refused because of that.
func (k *kept) spare() int64 {
	free, err := proc.FreeBytes(k.m.cfg.DataDir)
	if err != nil {
		return 0
	}
	return int64(min(free, math.MaxInt64)) - int64(k.m.config().Store.DiskReserve)
}
