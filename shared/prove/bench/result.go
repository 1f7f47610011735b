package bench

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/HdrHistogram/hdrhistogram-go"
)

// Schema is the version of the JSON of all results. It grows when the meaning of a field changes
// or a field is removed.
const Schema = 1

// Latency is the distribution of the times between request and answer.
type Latency struct {
	Min  time.Duration `json:"min_ns"`
	Mean time.Duration `json:"mean_ns"`
	P50  time.Duration `json:"p50_ns"`
	P90  time.Duration `json:"p90_ns"`
	P99  time.Duration `json:"p99_ns"`
	P999 time.Duration `json:"p999_ns"`
	Max  time.Duration `json:"max_ns"`
}

// Bucket counts the requests that took at most UpTo and longer than the previous bucket's UpTo.
type Bucket struct {
	UpTo  time.Duration `json:"up_to_ns"`
	Count int64         `json:"count"`
}

// Result is the result of a load.
type Result struct {
	Schema      int     `json:"schema"`
	Workload    string  `json:"workload"`
	Clients     int     `json:"clients"`
	Connections int     `json:"connections"`
	KeyBytes    int     `json:"key_bytes"`
	ValueBytes  int     `json:"value_bytes"`
	Keys        int     `json:"keys"`
	Seed        uint64  `json:"seed"`
	Operations  int64   `json:"operations"` // only successful ones
	Errors      int     `json:"errors"`
	FirstError  string  `json:"first_error,omitempty"`
	Seconds     float64 `json:"seconds"`
	PerSecond   float64 `json:"operations_per_second"`
	Latency     Latency `json:"latency"`
	// Histogram has a bucket for each doubling of the latency, without empty buckets at the start
	// and at the end.
	Histogram []Bucket `json:"histogram"`
	// Servers is nil if no server processes were named.
	Servers *Servers `json:"servers,omitempty"`
}

func newResult(l *Load, took time.Duration, clients []*recorder, servers *Servers) (*Result, error) {
	h := newHistogram()
	r := &Result{Schema: Schema, Workload: l.Workload, Clients: l.Clients, Connections: l.Connections,
		KeyBytes: l.KeyBytes, ValueBytes: l.ValueBytes, Keys: l.Keys, Seed: l.Seed, Seconds: took.Seconds(), Servers: servers}
	var failure error
	for _, c := range clients {
		h.Merge(c.latency)
		r.Errors += c.errors
		if failure == nil {
			failure = c.failure
		}
	}
	r.Operations = h.TotalCount()
	if failure != nil {
		r.FirstError = failure.Error()
	}
	if r.Operations == 0 {
		return nil, fmt.Errorf("%w: %w", ErrNothing, failure)
	}
	r.PerSecond = float64(r.Operations) / took.Seconds()
	r.Latency, r.Histogram = distribution(h), buckets(h)
	servers.perOperation(r.Operations)
	return r, nil
}

func distribution(h *hdrhistogram.Histogram) Latency {
	at := func(q float64) time.Duration { return time.Duration(h.ValueAtQuantile(q)) }
	return Latency{Min: time.Duration(h.Min()), Mean: time.Duration(h.Mean()), P50: at(50), P90: at(90),
		P99: at(99), P999: at(99.9), Max: time.Duration(h.Max())}
}

// buckets makes a readable histogram from the fine one: each bucket reaches twice as far as the
// previous one.
func buckets(h *hdrhistogram.Histogram) []Bucket {
	var out []Bucket
	limit := int64(time.Microsecond)
	var count int64
	flush := func() {
		if count > 0 || len(out) > 0 {
			out = append(out, Bucket{UpTo: time.Duration(limit), Count: count})
		}
		count = 0
		limit *= 2
	}
	for _, b := range h.Distribution() {
		if b.Count == 0 {
			continue
		}
		for b.From > limit {
			flush()
		}
		count += b.Count
	}
	if count > 0 {
		flush()
	}
	return out
}

// Render prints the result as text.
func (r *Result) Render(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "%s: %d clients, %d connections, keys of %d bytes, values of %d bytes\n", r.Workload, r.Clients, r.Connections, r.KeyBytes, r.ValueBytes)
	fmt.Fprintf(&b, "%d operations in %.2f s: %.0f/s", r.Operations, r.Seconds, r.PerSecond)
	if r.Errors > 0 {
		fmt.Fprintf(&b, ", %d failed, first error: %s", r.Errors, r.FirstError)
	}
	t := func(d time.Duration) string { return round(d).String() }
	l := r.Latency
	fmt.Fprintf(&b, "\nlatency: min %s  p50 %s  p90 %s  p99 %s  p99.9 %s  max %s\n", t(l.Min), t(l.P50), t(l.P90), t(l.P99), t(l.P999), t(l.Max))
	var most int64
	for _, bu := range r.Histogram {
		most = max(most, bu.Count)
	}
	for _, bu := range r.Histogram {
		fmt.Fprintf(&b, "  up to %9s %9d %s\n", t(bu.UpTo), bu.Count, strings.Repeat("#", int(bu.Count*50/most)))
	}
	if r.Servers != nil {
		r.Servers.render(&b)
	}
	_, err := io.WriteString(w, b.String())
	return err
}

// round keeps about three digits.
func round(d time.Duration) time.Duration {
	switch {
	case d < 10*time.Millisecond:
		return d.Round(time.Microsecond)
	case d < time.Second:
		return d.Round(100 * time.Microsecond)
	default:
		return d.Round(time.Millisecond)
	}
}
