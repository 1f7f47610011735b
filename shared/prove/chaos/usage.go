package chaos

import (
	"cmp"
	"fmt"
	"math"
	"slices"
)

// Sample is the usage of a cluster's processes while all followers are in sync.
type Sample struct {
	AtMS int64 `json:"at_ms"`
	// LeaderFDs and LeaderRSSBytes are those of the leader.
	LeaderFDs      int    `json:"leader_fds"`
	LeaderRSSBytes uint64 `json:"leader_rss_bytes"`
	// FollowerFDs and FollowerRSSBytes are the largest values of any follower.
	FollowerFDs      int    `json:"follower_fds"`
	FollowerRSSBytes uint64 `json:"follower_rss_bytes"`
}

const (
	// minSamples is the number of samples below which a trend cannot be told from chance.
	minSamples = 30
	// significant is the number of standard deviations above which growth is not chance.
	significant = 3.5
	// fdSlack and rssSlackBytes are growth that is no leak. Clients come and go, and a garbage
	// collector frees memory late.
	fdSlack       = 16
	rssSlackBytes = 96 << 20
)

// Trend describes the growth of a series of samples.
type Trend struct {
	// PerSample is the median slope of all pairs (Theil-Sen). A few outliers do not change it.
	PerSample float64
	// Z is the significance of the growth in standard deviations (Mann-Kendall). It depends only
	// on how many pairs grow, not on how much they grow.
	Z float64
}

// TrendOf computes the trend of samples at about equal distances.
func TrendOf(samples []float64) Trend {
	samples = thin(samples, 400)
	n := len(samples)
	if n < 2 {
		return Trend{}
	}
	var slopes []float64
	s := 0
	for i := range samples {
		for j := i + 1; j < n; j++ {
			s += cmp.Compare(samples[j], samples[i])
			slopes = append(slopes, (samples[j]-samples[i])/float64(j-i))
		}
	}
	slices.Sort(slopes)
	ties := map[float64]int{}
	for _, v := range samples {
		ties[v]++
	}
	variance := spread(n)
	for _, t := range ties {
		variance -= spread(t)
	}
	t := Trend{PerSample: slopes[len(slopes)/2]}
	if variance > 0 {
		t.Z = float64(s-cmp.Compare(s, 0)) / math.Sqrt(variance)
	}
	return t
}

// spread is the variance of the Mann-Kendall statistic S over n samples without a trend.
func spread(n int) float64 { return float64(n*(n-1)*(2*n+5)) / 18 }

// thin keeps at most n samples at even distances.
func thin(samples []float64, n int) []float64 {
	if len(samples) <= n {
		return samples
	}
	out := make([]float64, n)
	for i := range out {
		out[i] = samples[i*len(samples)/n]
	}
	return out
}

// Grows reports whether samples grow significantly, and in total by more than slack and a third
// of their median. It ignores the first fifth, during which caches fill.
func Grows(samples []float64, slack float64) (total float64, grows bool) {
	if len(samples) < minSamples {
		return 0, false
	}
	samples = thin(samples[len(samples)/5:], 400)
	t := TrendOf(samples)
	total = t.PerSample * float64(len(samples)-1)
	sorted := slices.Sorted(slices.Values(samples))
	median := sorted[len(sorted)/2]
	return total, t.Z > significant && total > max(slack, median/3)
}

// CheckUsage returns what grows, and a summary of how many samples there were.
func CheckUsage(samples []Sample) (wrong []string, summary string) {
	series := func(f func(Sample) float64) []float64 {
		var out []float64
		for _, s := range samples {
			out = append(out, f(s))
		}
		return out
	}
	for _, c := range []struct {
		name, unit string
		values     []float64
		slack      float64
		scale      float64
	}{
		{"the leader's descriptors", "", series(func(s Sample) float64 { return float64(s.LeaderFDs) }), fdSlack, 1},
		{"a follower's descriptors", "", series(func(s Sample) float64 { return float64(s.FollowerFDs) }), fdSlack, 1},
		{"the leader's memory", " MiB", series(func(s Sample) float64 { return float64(s.LeaderRSSBytes) }), rssSlackBytes, 1 << 20},
		{"a follower's memory", " MiB", series(func(s Sample) float64 { return float64(s.FollowerRSSBytes) }), rssSlackBytes, 1 << 20},
	} {
		if total, grows := Grows(c.values, c.slack); grows {
			wrong = append(wrong, fmt.Sprintf("%s grew by %.0f%s over %d samples", c.name, total/c.scale, c.unit, len(c.values)))
		}
	}
	if len(samples) < minSamples {
		return wrong, fmt.Sprintf("%d samples, too few to tell growth from chance", len(samples))
	}
	return wrong, fmt.Sprintf("%d samples", len(samples))
}
