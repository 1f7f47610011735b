package psview

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/operator/term"
	"github.com/dynast-io/dynast/shared/rules/plural"
	"github.com/dynast-io/dynast/shared/rules/services"
)

// Write prints one row for each instance. It counts ages from now.
func Write(out io.Writer, r *ps.Report, now time.Time, s term.Style) error {
	if len(r.Services) == 0 {
		_, err := io.WriteString(out, "no services: add a service block to the configuration, or use 'dynast run'\n")
		return err
	}
	_, err := io.WriteString(out, term.Table(s, Rows(r, now)))
	return err
}

// Rows returns the table, with its head.
func Rows(r *ps.Report, now time.Time) [][]term.Cell {
	head := []term.Cell{{Text: "SERVICE"}, {Text: "STATE"}, {Text: "PID", Right: true}, {Text: "UP", Right: true},
		{Text: "RESTARTS", Right: true}, {Text: "CPU", Right: true}, {Text: "MEM", Right: true}, {Text: "NOTE"}}
	for i := range head {
		head[i].Colour = term.Dim
	}
	rows := [][]term.Cell{head}
	for _, service := range r.Services {
		for _, i := range service.Instances {
			rows = append(rows, row(service, i, now))
		}
		switch {
		case len(service.Instances) > 0:
		case service.Elsewhere != "":
			rows = append(rows, []term.Cell{{Text: service.Name}, {Text: "elsewhere", Colour: term.Dim}, {}, {}, {}, {}, {},
				{Text: term.Cut(term.Printable(service.Elsewhere), maxNote)}})
		default:
			rows = append(rows, []term.Cell{{Text: service.Name}, {Text: "no instances", Colour: term.Dim}, {}, {}, {}, {}, {}, {}})
		}
	}
	return rows
}

// Columns says how the columns of Rows give way. `dynast ps` shows all of them in full.
func Columns() []term.Column {
	return []term.Column{{Least: 14}, {}, {Optional: 2}, {}, {Optional: 3}, {Optional: 1}, {}, {Least: 12, Cut: true}}
}

func row(service ps.Service, i ps.Instance, now time.Time) []term.Cell {
	pid, up, cpu, mem := "-", "-", "-", "-"
	if i.PID != 0 {
		pid, up = fmt.Sprint(i.PID), term.Span(time.Duration(i.UptimeMS)*time.Millisecond)
		cpu, mem = fmt.Sprintf("%.1f%%", i.CPU), fmt.Sprintf("%.0fMiB", float64(i.RSSBytes)/(1<<20))
	}
	return []term.Cell{{Text: i.ID}, {Text: i.State, Colour: Colour(i.State)}, {Text: pid, Right: true}, {Text: up, Right: true},
		{Text: fmt.Sprint(i.Restarts), Right: true}, {Text: cpu, Right: true}, {Text: mem, Right: true}, {Text: note(service, i, now)}}
}

// maxNote bounds the last column, so that a row fits on a terminal of 80 columns in most cases.
const maxNote = 60

// note says the most important thing that the other columns do not say.
func note(service ps.Service, i ps.Instance, now time.Time) string {
	var parts []string
	if i.Reason != "" {
		parts = append(parts, i.Reason)
	}
	if i.Status != "" {
		parts = append(parts, i.Status)
	}
	if e := i.LastExit; e != nil && i.Reason != e.Reason {
		parts = append(parts, fmt.Sprintf("%s %s ago", e.Reason, term.Span(now.Sub(e.At))))
	}
	if service.NextRun != nil {
		parts = append(parts, "next run in "+term.Span(service.NextRun.Sub(now)))
	}
	if i.Skipped > 0 {
		parts = append(parts, plural.Count(i.Skipped, "run")+" skipped")
	}
	for _, l := range i.Limits {
		parts = append(parts, "limit not applied: "+l)
	}
	return term.Cut(term.Printable(strings.Join(parts, "; ")), maxNote)
}

// Colour returns the colour of a state.
func Colour(state string) term.Colour {
	switch services.State(state) {
	case services.StateReady, services.StateDone:
		return term.Green
	case services.StateFailed, services.StateBackoff:
		return term.Red
	case services.StateStopped:
		return term.Dim
	}
	return term.Yellow
}
