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

// Schema is the version of the report's JSON form. With the same version, fields are only added,
// never changed or removed.
const Schema = 1

// Names of checks.
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

	// These are about services.
	CheckInstances = "instances"
	CheckExits     = "exits"
	CheckOutput    = "output"
	CheckSockets   = "sockets"
)

// checks lists what each check proves if it passes.
var checks = []struct{ name, meaning string }{
	{CheckLinearizable, "porcupine found an order of all operations on each key"},
	{CheckRevision, "revisions grow with real time, and no two changes have the same revision"},
	{CheckWatch, "each watch reported each change exactly once, in order"},
	{CheckLease, "no renewed lease ended, and each lease without renewals ended in time"},
	{CheckReplicas, "all replicas have the same HashKV at the same revision"},
	{CheckProcesses, "no process, socket or slot was left behind"},
	{CheckGrowth, "descriptors and memory do not grow"},
	{CheckProgress, "after each fault clients got answers, and all followers were in sync again"},
	{CheckFault, "each fault worked as planned, for example each stop stopped and each start started"},
	{CheckLogs, "no member logged a loss, a panic or an unexplained exit"},
}

// serviceChecks are the checks of a run with services.
var serviceChecks = []struct{ name, meaning string }{
	{CheckInstances, "no instance had two processes, was lost, or was restarted without a reason"},
	{CheckExits, "each exit status is right, or unknown because all members were dead or the leader died in the start"},
	{CheckOutput, "the output of each program is complete and in order"},
	{CheckSockets, "no connection was refused while a member or the program with the socket was alive"},
}

// checks returns what the run has checked.
func (r *Report) checks() []struct{ name, meaning string } {
	if r.Services == nil {
		return checks
	}
	return slices.Concat(checks, serviceChecks)
}

// ServiceStats counts what was checked about services. Times are in milliseconds.
type ServiceStats struct {
	Instances int `json:"instances"`
	Runs      int `json:"runs"` // of main processes
	Doubled   int `json:"doubled"`
	// Unexplained is the number of restarts without a reason.
	Unexplained int `json:"unexplained_restarts"`
	// Processes and Lines are those whose output was compared. LinesWrong are missing, repeated or
	// cut.
	Processes  int `json:"processes"`
	Lines      int `json:"lines"`
	LinesWrong int `json:"lines_wrong"`
	ExitsKnown int `json:"exits_known"`
	// ExitsOverTakeovers of them are of runs with a takeover.
	ExitsOverTakeovers int `json:"exits_over_takeovers"`
	// ExitsNotNoted are unknown or those of the run before, because the leader died in a start.
	ExitsNotNoted int `json:"exits_not_noted"`
	// ExitsUnknown may only be of runs that ended while all members were dead, or that are in
	// ExitsNotNoted. Others are in ExitsWrong too.
	ExitsUnknown int `json:"exits_unknown"`
	ExitsWrong   int `json:"exits_wrong"`
	Connections  int `json:"connections"`
	Answered     int `json:"answered"`
	Refused      int `json:"refused"`
	// RefusedWhileDead is the number of connections that were refused while all members and the
	// program with the socket were dead.
	RefusedWhileDead int `json:"refused_while_dead"`
	// Restarts are the restarts of killed programs while there was a leader. The times are from the
	// kill to the first line of the next process.
	Restarts                int     `json:"restarts"`
	RestartMedianMS         float64 `json:"restart_median_ms"`
	RestartWorstMS          float64 `json:"restart_worst_ms"`
	TakeoverRestarts        int     `json:"takeover_restarts"`
	TakeoverRestartMedianMS float64 `json:"takeover_restart_median_ms"`
	TakeoverRestartWorstMS  float64 `json:"takeover_restart_worst_ms"`
}

// text returns the counts as lines.
func (s *ServiceStats) text() string {
	return fmt.Sprintf(`services: %d instances with %d runs, of which %d doubled and %d restarted without a reason
restarts of killed programs: %d with a leader, median %.1fms, worst %.1fms; %d during a takeover, median %.1fms, worst %.1fms
output: %d lines of %d processes, of which %d lines are missing, repeated or cut
exit statuses: %d known, of which %d over a takeover; %d unknown; %d not noted, because the leader died in a start; %d wrong
connections: %d, of which %d refused, and %d more while all members and the program were dead; %d answered
`, s.Instances, s.Runs, s.Doubled, s.Unexplained, s.Restarts, s.RestartMedianMS, s.RestartWorstMS, s.TakeoverRestarts, s.TakeoverRestartMedianMS, s.TakeoverRestartWorstMS,
		s.Lines, s.Processes, s.LinesWrong, s.ExitsKnown, s.ExitsOverTakeovers, s.ExitsUnknown, s.ExitsNotNoted, s.ExitsWrong, s.Connections, s.Refused, s.RefusedWhileDead, s.Answered)
}

// Finding is a violation that a check found.
type Finding struct {
	Check string `json:"check"`
	AtMS  int64  `json:"at_ms"`
	Text  string `json:"text"`
}

// FaultStats summarizes the faults with one label.
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
	// Ended is the number of leases without renewals that were seen to end.
	Ended int `json:"ended"`
}

// WatchStats counts the compared watches and events.
type WatchStats struct {
	Observers int `json:"observers"`
	Events    int `json:"events"`
}

// Report is the result of a run.
type Report struct {
	Schema       int                `json:"schema"`
	Verdict      string             `json:"verdict"` // passed, failed
	Seed         uint64             `json:"seed"`
	Hosts        int                `json:"hosts,omitempty"` // of a cluster of several
	Began        time.Time          `json:"began"`
	DurationMS   int64              `json:"duration_ms"`
	Weights      Weights            `json:"weights"`
	LeftOut      []string           `json:"left_out"` // faults that cannot be injected here, and why
	FaultStats   []FaultStats       `json:"fault_stats"`
	Operations   map[Kind]*Outcomes `json:"operations"`
	Watches      WatchStats         `json:"watches"`
	Leases       LeaseStats         `json:"leases"`
	Services     *ServiceStats      `json:"services,omitempty"` // missing if the run had no services
	Replicas     []Replica          `json:"replicas"`           // from the last comparison
	Compared     int                `json:"compared"`           // number of comparisons of replicas
	UsageSummary string             `json:"usage_told"`
	Findings     []Finding          `json:"findings"`
	Kept         string             `json:"kept,omitempty"` // directory with data and logs of a failed run
	Faults       []Injected         `json:"faults"`
	Timeline     []Bucket           `json:"timeline"`
	Usage        []Sample           `json:"usage"`

	outages map[string][]float64 // outages of all faults, by label
}

func newReport(cfg Config, began time.Time) *Report {
	return &Report{
		Schema: Schema, Seed: cfg.Seed, Hosts: cfg.Hosts, Began: began.UTC(), Operations: map[Kind]*Outcomes{},
		outages: map[string][]float64{}, LeftOut: []string{}, Findings: []Finding{}, Faults: []Injected{}, Timeline: []Bucket{}, Usage: []Sample{}, Replicas: []Replica{},
	}
}

// Passed reports whether all checks passed.
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

// maxRetained bounds what a soak retains. Samples and the timeline become coarser. Of faults only
// the last ones are retained, and the outages of all.
const maxRetained = 50_000

func (r *Report) addSample(s Sample) {
	if len(r.Usage) >= maxRetained {
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
	r.Faults = slices.Delete(r.Faults, 0, max(len(r.Faults)-maxRetained, 0))
}

func (r *Report) addTimeline(buckets []Bucket) {
	r.Timeline = append(r.Timeline, buckets...)
	if len(r.Timeline) > maxRetained {
		r.Timeline = coarser(r.Timeline)
	}
}

// close sets the verdict and the summaries.
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

// failed returns the number of findings of a check.
func (r *Report) failed(check string) int {
	n := 0
	for _, f := range r.Findings {
		if f.Check == check {
			n++
		}
	}
	return n
}

// Print writes the report as text.
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
	_ = w.Flush() // writes into memory, and cannot fail
	fmt.Fprintf(&b, "\n%d watches compared over %d events; %d leases renewed; %d leases not renewed, of which %d were seen to end\n", r.Watches.Observers, r.Watches.Events, r.Leases.Kept, r.Leases.LetGo, r.Leases.Ended)
	fmt.Fprintf(&b, "replicas compared %d times; descriptors and memory: %s\n\n", r.Compared, r.UsageSummary)
	if r.Services != nil {
		fmt.Fprintf(&b, "%s\n", r.Services.text())
	}
	for _, c := range r.checks() {
		if n := r.failed(c.name); n > 0 {
			fmt.Fprintf(&b, "FAILED  %s: %d findings\n", c.name, n)
		} else {
			fmt.Fprintf(&b, "ok      %s: %s\n", c.name, c.meaning)
		}
	}
	for _, f := range r.Findings {
		fmt.Fprintf(&b, "\n%s, found %.1fs after the start:\n%s\n", f.Check, float64(f.AtMS)/1000, f.Text)
	}
	if r.Kept != "" {
		fmt.Fprintf(&b, "\ndata and logs are in %s; repeat the choices of this run with --seed %d\n", r.Kept, r.Seed)
	}
	fmt.Fprintf(&b, "\nverdict: %s\n", r.Verdict)
	_, err := io.WriteString(out, b.String())
	return err
}
