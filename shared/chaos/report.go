package chaos

import (
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"text/tabwriter"
	"time"
)

// Schema is the version of the report's JSON form. While it stays the same,
// fields are added, never changed or removed.
const Schema = 1

// The checks.
const (
	CheckLinearizable = "linearizable"
	CheckRevision     = "revisions"
	CheckWatch        = "watches"
	CheckLease        = "leases"
	CheckReplicas     = "replicas"
	CheckProcesses    = "processes"
	CheckGrowth       = "growth"
	CheckProgress     = "progress"
	CheckFault        = "faults"
	CheckLogs         = "logs"
)

// checks say what each proved when it passed.
var checks = []struct{ name, meaning string }{
	{CheckLinearizable, "porcupine found an order of all operations on each key"},
	{CheckRevision, "revisions grow with real time, and none was given twice"},
	{CheckWatch, "each watch was told each change exactly once, in order"},
	{CheckLease, "no kept lease ended, and those let go ended within their bound"},
	{CheckReplicas, "all replicas have the same HashKV at the same revision"},
	{CheckProcesses, "no process, socket or slot was left behind"},
	{CheckGrowth, "descriptors and memory do not grow"},
	{CheckProgress, "after each fault clients were served, and full strength came back"},
	{CheckFault, "each fault could be done as meant: a stop stopped, a start started"},
	{CheckLogs, "no member logged a loss, a panic or an end that it could not account for"},
}

// Finding is something that a check found wrong.
type Finding struct {
	Check string `json:"check"`
	AtMS  int64  `json:"at_ms"`
	Text  string `json:"text"`
}

// FaultStats is what the faults of one label caused.
type FaultStats struct {
	Label          string  `json:"label"`
	Count          int     `json:"count"`
	MedianOutageMS float64 `json:"median_outage_ms"`
	WorstOutageMS  float64 `json:"worst_outage_ms"`
}

// LeaseStats counts leases.
type LeaseStats struct {
	Kept  int `json:"kept"`
	LetGo int `json:"let_go"`
	// Ended is how many of those let go were seen to end.
	Ended int `json:"ended"`
}

// WatchStats counts what watches were compared with.
type WatchStats struct {
	Observers int `json:"observers"`
	Events    int `json:"events"`
}

// Report is what a run did and found.
type Report struct {
	Schema     int                `json:"schema"`
	Verdict    string             `json:"verdict"` // passed, failed
	Seed       uint64             `json:"seed"`
	Began      time.Time          `json:"began"`
	DurationMS int64              `json:"duration_ms"`
	Weights    Weights            `json:"weights"`
	LeftOut    []string           `json:"left_out"` // faults that could not be injected here, and why
	FaultStats []FaultStats       `json:"fault_stats"`
	Operations map[Kind]*Outcomes `json:"operations"`
	Watches    WatchStats         `json:"watches"`
	Leases     LeaseStats         `json:"leases"`
	Replicas   []Replica          `json:"replicas"` // of the last comparison
	Compared   int                `json:"compared"` // how often replicas were compared
	UsageTold  string             `json:"usage_told"`
	Findings   []Finding          `json:"findings"`
	Kept       string             `json:"kept,omitempty"` // where data and logs of a failed run are
	Faults     []Injected         `json:"faults"`
	Timeline   []Bucket           `json:"timeline"`
	Usage      []Sample           `json:"usage"`

	outages map[string][]float64 // of all faults, by label
}

func newReport(cfg Config, began time.Time) *Report {
	return &Report{
		Schema: Schema, Seed: cfg.Seed, Began: began.UTC(), Operations: map[Kind]*Outcomes{},
		outages: map[string][]float64{}, LeftOut: []string{}, Findings: []Finding{}, Faults: []Injected{}, Timeline: []Bucket{}, Usage: []Sample{}, Replicas: []Replica{},
	}
}

// Passed reports whether all checks did.
func (r *Report) Passed() bool { return r.Verdict == "passed" }

func (r *Report) addOperations(h *History) {
	h.mu.Lock()
	defer h.mu.Unlock()
	for k, n := range h.counts {
		if r.Operations[k] == nil {
			r.Operations[k] = &Outcomes{}
		}
		o := r.Operations[k]
		o.OK, o.Refused, o.Failed, o.Unknown = o.OK+n.OK, o.Refused+n.Refused, o.Failed+n.Failed, o.Unknown+n.Unknown
	}
}

func (r *Report) addLeases(leases []*Lease) {
	for _, l := range leases {
		switch {
		case l.Kept:
			r.Leases.Kept++
		case l.Gone > 0:
			r.Leases.Ended++
			r.Leases.LetGo++
		default:
			r.Leases.LetGo++
		}
	}
}

func (r *Report) addReplicas(replicas []Replica) {
	if replicas != nil {
		r.Replicas = replicas
		r.Compared++
	}
}

// maxKept bounds what a soak keeps of its past: samples and the timeline become
// coarser, and of faults only the last are kept besides their outages.
const maxKept = 50_000

func (r *Report) addSample(s Sample) {
	if len(r.Usage) >= maxKept {
		half := r.Usage[:0]
		for i := 0; i < len(r.Usage); i += 2 {
			half = append(half, r.Usage[i])
		}
		r.Usage = half
	}
	r.Usage = append(r.Usage, s)
}

func (r *Report) addFaults(faults []Injected) {
	for _, f := range faults {
		r.outages[f.Label] = append(r.outages[f.Label], f.OutageMS)
	}
	r.Faults = append(r.Faults, faults...)
	r.Faults = slices.Delete(r.Faults, 0, max(len(r.Faults)-maxKept, 0))
}

func (r *Report) addTimeline(buckets []Bucket) {
	r.Timeline = append(r.Timeline, buckets...)
	if len(r.Timeline) > maxKept {
		r.Timeline = coarser(r.Timeline)
	}
}

// close judges, and sums up.
func (r *Report) close(took time.Duration) {
	r.DurationMS = took.Milliseconds()
	r.Verdict = "passed"
	if len(r.Findings) > 0 {
		r.Verdict = "failed"
	}
	for _, label := range slices.Sorted(maps.Keys(r.outages)) {
		ms := slices.Sorted(slices.Values(r.outages[label]))
		r.FaultStats = append(r.FaultStats, FaultStats{Label: label, Count: len(ms), MedianOutageMS: ms[len(ms)/2], WorstOutageMS: ms[len(ms)-1]})
	}
}

// failed is how many findings a check has.
func (r *Report) failed(check string) int {
	n := 0
	for _, f := range r.Findings {
		if f.Check == check {
			n++
		}
	}
	return n
}

// Print writes the report for people.
func (r *Report) Print(out io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "seed %d, %s, faults %s\n", r.Seed, (time.Duration(r.DurationMS) * time.Millisecond).Round(100*time.Millisecond), r.Weights)
	for _, l := range r.LeftOut {
		fmt.Fprintf(&b, "left out: %s\n", l)
	}
	b.WriteString("\n")
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "FAULT\tCOUNT\tMEDIAN OUTAGE\tWORST OUTAGE")
	for _, f := range r.FaultStats {
		fmt.Fprintf(w, "%s\t%d\t%.1fms\t%.1fms\n", f.Label, f.Count, f.MedianOutageMS, f.WorstOutageMS)
	}
	fmt.Fprintln(w, "\t\t\t")
	fmt.Fprintln(w, "OPERATION\tANSWERED\tREFUSED\tFAILED\tUNKNOWN")
	for _, k := range slices.SortedFunc(maps.Keys(r.Operations), cmp.Compare[Kind]) {
		o := r.Operations[k]
		fmt.Fprintf(w, "%s\t%d\t%d\t%d\t%d\n", k, o.OK, o.Refused, o.Failed, o.Unknown)
	}
	_ = w.Flush() // into memory
	fmt.Fprintf(&b, "\n%d watches compared over %d events; %d leases kept, %d let go, %d of them seen to end\n", r.Watches.Observers, r.Watches.Events, r.Leases.Kept, r.Leases.LetGo, r.Leases.Ended)
	fmt.Fprintf(&b, "replicas compared %d times; descriptors and memory: %s\n\n", r.Compared, r.UsageTold)
	for _, c := range checks {
		if n := r.failed(c.name); n > 0 {
			fmt.Fprintf(&b, "FAILED  %s: %d findings\n", c.name, n)
		} else {
			fmt.Fprintf(&b, "ok      %s: %s\n", c.name, c.meaning)
		}
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "\n%s, %.1fs after the start:\n%s\n", f.Check, float64(f.AtMS)/1000, f.Text)
	}
	if r.Kept != "" {
		fmt.Fprintf(&b, "\nkept, with the logs: %s; --seed %d makes the same choices again\n", r.Kept, r.Seed)
	}
	fmt.Fprintf(&b, "\nverdict: %s\n", r.Verdict)
	_, err := io.WriteString(out, b.String())
	return err
}
