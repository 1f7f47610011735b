package treeview

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/operator/psview"
	"github.com/dynast-io/dynast/shared/operator/term"
	"github.com/dynast-io/dynast/shared/rules/plural"
)

// Write prints the leader, its followers with the heir marked, the services if there are any, and
// the last deaths. It counts ages from now. services may be nil.
func Write(out io.Writer, tr *tree.Tree, services *ps.Report, now time.Time, s term.Style) error {
	t := view{tr}
	text := t.headline(s) + "\n\n" + term.Table(s, t.rows()) + renderServices(services, now, s) + t.renderDeaths(now, s)
	_, err := io.WriteString(out, text)
	return err
}

// view is a tree to print.
type view struct{ *tree.Tree }

func (t view) headline(s term.Style) string {
	parts := []string{s.Paint(term.Bold, fmt.Sprintf("epoch %d", t.Epoch)), "clients at " + t.Client}
	if v, same := t.version(); same && v != "" {
		parts = append(parts, "version "+v)
	}
	parts = append(parts, plural.Count(t.Restarts, "death"), plural.Count(t.Takeovers, "takeover"))
	text := strings.Join(parts, ", ")
	if t.Degraded {
		text += s.Paint(term.Yellow, "\nDEGRADED: fewer followers are in sync than replication.min_sync requires")
	}
	return text
}

// version returns the version of the members, and whether all members have the same one.
func (t view) version() (string, bool) {
	for _, m := range t.Members {
		if m.Version != t.Members[0].Version {
			return "", false
		}
	}
	if len(t.Members) == 0 {
		return "", true
	}
	return t.Members[0].Version, true
}

func (t view) rows() [][]term.Cell {
	_, same := t.version()
	rows := [][]term.Cell{}
	head := []term.Cell{{Text: "PROCESS"}, {Text: "STATE"}}
	for _, h := range []string{"PID", "UP", "INDEX", "LAG", "HEARD", "CPU", "MEM", "SLOT", "RESTARTS"} {
		head = append(head, term.Cell{Text: h, Right: true})
	}
	if !same {
		head = append(head, term.Cell{Text: "VERSION"})
	}
	for i := range head {
		head[i].Colour = term.Dim
	}
	rows = append(rows, head)
	if m, ok := t.MemberAt(t.Leader); ok {
		rows = append(rows, t.row(m, "", same))
	}
	others := t.FollowerMembers()
	for i, m := range others {
		branch := "├─ "
		if i == len(others)-1 {
			branch = "└─ "
		}
		rows = append(rows, t.row(m, branch, same))
	}
	return rows
}

func (t view) row(m tree.Member, branch string, sameVersion bool) []term.Cell {
	name := term.Cell{Text: branch + m.Address + " " + m.Role}
	switch m.Address {
	case t.Heir:
		name.Text += " (heir)"
		name.Colour = term.Cyan
	case t.Leader:
		name.Colour = term.Bold
	}
	heard := "-"
	if m.Address != t.Leader {
		heard = fmt.Sprintf("%dms", m.HeartbeatAgeMS)
	}
	lag := fmt.Sprint(m.Lag)
	if m.State == "starting" {
		lag = "syncing" // it has the whole log before it
	}
	row := []term.Cell{name, {Text: m.State, Colour: stateColour(m.State)}}
	for _, text := range []string{
		fmt.Sprint(m.PID), term.Span(time.Duration(m.UptimeMS) * time.Millisecond), fmt.Sprint(m.Index), lag, heard,
		fmt.Sprintf("%.1f%%", m.CPUPercent), size(m.RSSBytes), fmt.Sprint(m.Slot), fmt.Sprint(m.Restarts),
	} {
		row = append(row, term.Cell{Text: text, Right: true})
	}
	if !sameVersion {
		row = append(row, term.Cell{Text: m.Version})
	}
	return row
}

func stateColour(state string) term.Colour {
	switch state {
	case "serving", "in_sync":
		return term.Green
	}
	return term.Yellow
}

// servicesWidth is the width of the usual terminal.
const servicesWidth = 80

func renderServices(r *ps.Report, now time.Time, s term.Style) string {
	if r == nil || len(r.Services) == 0 {
		return ""
	}
	rows := psview.Rows(r, now)
	psview.Fit(rows, servicesWidth)
	return "\n" + term.Table(s, rows)
}

// shownDeaths is the number of deaths that are printed. The JSON output has all.
const shownDeaths = 8

func (t view) renderDeaths(now time.Time, s term.Style) string {
	if len(t.Deaths) == 0 {
		return ""
	}
	last := t.Deaths[max(0, len(t.Deaths)-shownDeaths):]
	rows := [][]term.Cell{}
	for i := len(last) - 1; i >= 0; i-- {
		d := last[i]
		by := term.Cell{Text: "replaced by " + d.ReplacedBy}
		if d.ReplacedBy == "" {
			by = term.Cell{Text: "not replaced yet", Colour: term.Yellow}
		}
		rows = append(rows, []term.Cell{
			{Text: "  " + term.Span(now.Sub(d.At)) + " ago"}, {Text: d.Address}, {Text: fmt.Sprintf("pid %d", d.PID)},
			{Text: term.Printable(d.Reason), Colour: term.Red}, by,
		})
	}
	return fmt.Sprintf("\n%s\n", s.Paint(term.Dim, fmt.Sprintf("last deaths (%d of %d)", len(last), len(t.Deaths)))) + term.Table(s, rows)
}

// size formats a number of bytes in MiB.
func size(n uint64) string {
	const mib = 1 << 20
	return fmt.Sprintf("%.0fMiB", float64(n)/mib)
}
