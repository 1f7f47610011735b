package chaos

import (
	"cmp"
	"slices"
	"time"
)

// Injected is one fault and what came of it.
type Injected struct {
	AtMS     int64   `json:"at_ms"` // since the run began
	Kind     string  `json:"kind"`
	Label    string  `json:"label"` // the kind, with its variant
	What     string  `json:"what"`
	OutageMS float64 `json:"outage_ms"` // longest time without an acknowledged change until the next fault

	at int64 // as History.Now
}

// longestGap is the longest time between two acknowledged changes of which the
// later is after from and the earlier before to, less what is after to: that is the
// next one's. acks are in order.
func longestGap(acks []ack, from, to int64) time.Duration {
	i, _ := slices.BinarySearchFunc(acks, from, func(a ack, t int64) int { return cmp.Compare(a.at, t) })
	longest := int64(0)
	for i = max(i, 1); i < len(acks) && acks[i-1].at < to; i++ {
		longest = max(longest, min(acks[i].at, to)-acks[i-1].at)
	}
	return time.Duration(longest)
}

// Stall is the longest time between two acknowledged changes of a history.
func (h *History) Stall() time.Duration { return longestGap(inOrder(h.acked()), 0, 1<<63-1) }

// inOrder sorts acknowledgements by their time.
func inOrder(acks []ack) []ack {
	acks = slices.Clone(acks)
	slices.SortFunc(acks, func(a, b ack) int { return cmp.Compare(a.at, b.at) })
	return acks
}

// outages fills in what each fault of a history caused, up to the time at which
// the clients were told to stop.
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

// silence is the time within a span in which nothing was acknowledged for half
// a second or longer.
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
	Acknowledged int     `json:"acknowledged"` // changes
	WorstMS      float64 `json:"worst_ms"`     // latency of one
	MedianMS     float64 `json:"median_ms"`
}

// bucketMS is the length of a span.
const bucketMS = 250

// timeline sums a history up, which began at an offset of the run.
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
