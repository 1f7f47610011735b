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

// Write prints the facts of the cluster and of its store, the leader, its followers with the heir
// marked, the services if there are any, and the last deaths. It counts ages from now. services may be
// nil. No line is wider than the style's width.
func Write(out io.Writer, tr *tree.Tree, services *ps.Report, now time.Time, s term.Style) error {
	t := view{tr}
	text := t.headlines(s) + "\n" + t.renderMembers(s) + renderServices(services, now, s) + t.renderDeaths(now, s)
	_, err := io.WriteString(out, text)
	return err
}

// view is a tree to print.
type view struct{ *tree.Tree }

func (t view) headlines(s term.Style) string {
	parts := []term.Cell{{Text: fmt.Sprintf("epoch %d", t.Epoch), Colour: term.Bold}, {Text: "clients at " + t.Client}}
	if v, same := Version(t.Tree); same && v != "" {
		parts = append(parts, term.Cell{Text: "version " + v})
	}
	parts = append(parts, term.Cell{Text: plural.Count(t.Restarts, "death")}, term.Cell{Text: plural.Count(t.Takeovers, "takeover")})
	lines := term.Flow(s, parts, s.Columns())
	lines = append(lines, term.Flow(s, Store(t.Store), s.Columns())...)
	if t.Degraded {
		lines = append(lines, s.Paint(term.Yellow, "DEGRADED: fewer followers are in sync than replication.min_sync requires"))
	}
	return strings.Join(lines, "\n") + "\n"
}

// nearlyFull is the part of the quota above which the use is marked.
const nearlyFull = 0.8

// Store returns the facts of the store as short texts, the most important first. There are none if st
// is nil.
func Store(st *tree.Store) []term.Cell {
	if st == nil {
		return nil
	}
	var parts []term.Cell
	for _, a := range st.Alarms {
		parts = append(parts, term.Cell{Text: "ALARM " + term.Printable(a), Colour: term.Red})
	}
	used := term.Cell{Text: size(st.UsedBytes) + " in use, no quota"}
	if st.QuotaBytes >= 0 {
		used.Text = fmt.Sprintf("%s of %s in use", size(st.UsedBytes), size(st.QuotaBytes))
		if float64(st.UsedBytes) >= nearlyFull*float64(st.QuotaBytes) {
			used.Colour = term.Yellow
		}
	}
	return append(parts, term.Cell{Text: plural.Count(st.Keys, "key")}, used, term.Cell{Text: size(st.FileBytes) + " on disk"},
		term.Cell{Text: term.Bytes(st.DiskFreeBytes) + " disk free"}, term.Cell{Text: fmt.Sprintf("revision %d", st.Revision)},
		term.Cell{Text: plural.Count(st.Connections, "client")}, term.Cell{Text: plural.Count(st.Watchers, "watcher")})
}

func size(bytes int64) string { return term.Bytes(uint64(max(bytes, 0))) }

// Version returns the version of the members, and whether all members have the same one.
func Version(t *tree.Tree) (string, bool) {
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

// Columns says how the columns of the members give way. Different versions are more important than the
// rest; equal ones are in the headline.
func Columns(t *tree.Tree) []term.Column {
	version := term.Column{Optional: 8, Least: 10}
	if _, same := Version(t); !same {
		version.Optional = 0
	}
	return []term.Column{{Least: 26}, {}, {Optional: 4}, {}, {Optional: 6}, {}, {Optional: 3}, {Optional: 1}, {Optional: 2}, {Optional: 7}, {Optional: 5}, version}
}

// Head returns the head of the table of members.
func Head() []term.Cell {
	head := []term.Cell{{Text: "PROCESS"}, {Text: "STATE"}}
	for _, h := range []string{"PID", "UP", "INDEX", "LAG", "HEARD", "CPU", "MEM", "SLOT", "RESTARTS"} {
		head = append(head, term.Cell{Text: h, Right: true})
	}
	head = append(head, term.Cell{Text: "VERSION"})
	for i := range head {
		head[i].Colour = term.Dim
	}
	return head
}

// Row returns the row of a member. prefix stands before its address.
func Row(t *tree.Tree, m tree.Member, prefix string) []term.Cell {
	name, heard := term.Cell{Text: prefix + m.Address}, fmt.Sprintf("%dms", m.HeartbeatAgeMS)
	switch m.Address {
	case t.Leader:
		name.Text, name.Colour, heard = name.Text+" leader", term.Bold, "-"
	case t.Heir:
		name.Text, name.Colour = name.Text+" heir", term.Cyan
	}
	lag := fmt.Sprint(m.Lag)
	if m.State == "starting" {
		lag = "-" // it has the whole log before it
	}
	row := []term.Cell{name, {Text: m.State, Colour: stateColour(m.State)}}
	for _, text := range []string{
		fmt.Sprint(m.PID), term.Age(time.Duration(m.UptimeMS) * time.Millisecond), fmt.Sprint(m.Index), lag, heard,
		fmt.Sprintf("%.1f%%", m.CPUPercent), term.Bytes(m.RSSBytes), fmt.Sprint(m.Slot), fmt.Sprint(m.Restarts),
	} {
		row = append(row, term.Cell{Text: text, Right: true})
	}
	return append(row, term.Cell{Text: m.Version})
}

func (t view) renderMembers(s term.Style) string {
	rows := [][]term.Cell{Head()}
	if m, ok := t.MemberAt(t.Leader); ok {
		rows = append(rows, Row(t.Tree, m, ""))
	}
	others := t.FollowerMembers()
	for i, m := range others {
		branch := "├─ "
		if i == len(others)-1 {
			branch = "└─ "
		}
		rows = append(rows, Row(t.Tree, m, branch))
	}
	return term.Table(s, term.Fit(rows, s.Columns(), Columns(t.Tree)))
}

func stateColour(state string) term.Colour {
	switch state {
	case "serving", "in_sync":
		return term.Green
	}
	return term.Yellow
}

func renderServices(r *ps.Report, now time.Time, s term.Style) string {
	if r == nil || len(r.Services) == 0 {
		return ""
	}
	return "\n" + term.Table(s, term.Fit(psview.Rows(r, now), s.Columns(), psview.Columns()))
}

// shownDeaths is the number of deaths that are printed. The JSON output has all.
const shownDeaths = 8

func (t view) renderDeaths(now time.Time, s term.Style) string {
	if len(t.Deaths) == 0 {
		return ""
	}
	last := t.Deaths[max(0, len(t.Deaths)-shownDeaths):]
	head := []term.Cell{{Text: "LAST DEATHS"}, {Text: "PROCESS"}, {Text: "PID", Right: true}, {Text: "REASON"}, {Text: "REPLACED BY"}}
	for i := range head {
		head[i].Colour = term.Dim
	}
	rows := [][]term.Cell{head}
	for i := len(last) - 1; i >= 0; i-- {
		d := last[i]
		by := term.Cell{Text: d.ReplacedBy}
		if d.ReplacedBy == "" {
			by = term.Cell{Text: "none yet", Colour: term.Yellow}
		}
		rows = append(rows, []term.Cell{
			{Text: term.Span(now.Sub(d.At)) + " ago"}, {Text: d.Address}, {Text: fmt.Sprint(d.PID), Right: true},
			{Text: term.Printable(d.Reason), Colour: term.Red}, by,
		})
	}
	columns := []term.Column{{}, {Least: 16}, {Optional: 1}, {Least: 14, Cut: true}, {Least: 16}}
	return "\n" + term.Table(s, term.Fit(rows, s.Columns(), columns))
}
