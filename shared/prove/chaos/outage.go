package chaos

import (
	"cmp"
	"slices"
	"time"
)

// Injected is one fault and its effect.
type Injected struct {
	AtMS     int64   `json:"at_ms"` // since the start of the run
	Kind     string  `json:"kind"`
	Label    string  `json:"label"` // the kind and its variant
	What     string  `json:"what"`
	OutageMS float64 `json:"outage_ms"` // the longest time without an acknowledged change before the next fault

	at int64 // see History.Now
}

// longestGap returns the longest time between two acknowledged changes, of which the later one is
// after from and the earlier one before to. Time after to is not counted, because it belongs to
// the next fault. acks must be in order.
func longestGap(acks []ack, from, to int64) time.Duration {
	i, _ := slices.BinarySearchFunc(acks, from, func(a ack, t int64) int { return cmp.Compare(a.at, t) })
	longest := int64(0)
	for i = max(i, 1); i < len(acks) && acks[i-1].at < to; i++ {
		longest = max(longest, min(acks[i].at, to)-acks[i-1].at)
	}
	return time.Duration(longest)
}

// Stall returns the longest time between two acknowledged changes of a history.
func (h *History) Stall() time.Duration { return longestGap(inOrder(h.acked()), 0, 1<<63-1) }

// inOrder sorts acknowledgements by their time.
func inOrder(acks []ack) []ack {
	acks = slices.Clone(acks)
	slices.SortFunc(acks, func(a, b ack) int { return cmp.Compare(a.at, b.at) })
	return acks
}

// outages computes the outage of each fault of a history. until is the time when the clients were
// told to stop.
func outages(faults []Injected, acks []ack, until int64) {
	acks = inOrder(acks)
	for i := range faults {
		end := until
		if i+1 < len(faults) {
			end = faults[i+1].at
		}
		faults[i].OutageMS = float64(longestGap(acks, faults[i].at, end)) / 1e6
	}
}

// silence returns the total time in a span during which no change was acknowledged for more than
// half a second.
func silence(acks []ack, from, to int64) time.Duration {
	var sum int64
	last := from
	for _, a := range append(inOrder(acks), ack{at: to}) {
		at := min(max(a.at, from), to)
		if at-last > int64(500*time.Millisecond) {
			sum += at - last
		}
		last = max(last, at)
	}
	return time.Duration(sum)
}

// Bucket is a span of the timeline.
type Bucket struct {
	AtMS         int64   `json:"at_ms"`
	Acknowledged int     `json:"acknowledged"` // number of changes
	WorstMS      float64 `json:"worst_ms"`     // latency of the slowest change
	MedianMS     float64 `json:"median_ms"`
}

// bucketMS is the length of a span.
const bucketMS = 250

// timeline summarizes a history, which began at the given offset in the run.
func timeline(acks []ack, offset int64) []Bucket {
	by := map[int64][]float64{}
	for _, a := range acks {
		at := (offset + a.at) / 1e6 / bucketMS
		by[at] = append(by[at], float64(a.at-a.call)/1e6)
	}
	var out []Bucket
	for at, ms := range by {
		slices.Sort(ms)
		out = append(out, Bucket{AtMS: at * bucketMS, Acknowledged: len(ms), WorstMS: ms[len(ms)-1], MedianMS: ms[len(ms)/2]})
	}
	slices.SortFunc(out, func(a, b Bucket) int { return cmp.Compare(a.AtMS, b.AtMS) })
	return out
}
