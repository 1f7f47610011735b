package tree

import (
	"fmt"
	"io"
	"strings"
	"time"

	"github.com/dynast-io/dynast/shared/term"
)

// Render prints the tree for people: the leader, below it its followers, the
// heir marked, then the last deaths.
func (t *Tree) Render(out io.Writer, now time.Time, s term.Style) error {
	text := t.headline(s) + "\n\n" + term.Table(s, t.rows()) + t.renderDeaths(now, s)
	_, err := io.WriteString(out, text)
	return err
}

func (t *Tree) headline(s term.Style) string {
	parts := []string{s.Paint(term.Bold, fmt.Sprintf("epoch %d", t.Epoch)), "clients at " + t.Client}
	if v, same := t.version(); same && v != "" {
		parts = append(parts, "version "+v)
	}
	parts = append(parts, count(t.Restarts, "restart"), count(t.Takeovers, "takeover"))
	text := strings.Join(parts, ", ")
	if t.Degraded {
		text += s.Paint(term.Red, "\nDEGRADED: fewer followers in sync than min_sync asks for")
	}
	return text
}

func count(n uint64, what string) string {
	if n == 1 {
		return "1 " + what
	}
	return fmt.Sprintf("%d %ss", n, what)
}

// version is that of the members, and whether all have the same.
func (t *Tree) version() (string, bool) {
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

func (t *Tree) rows() [][]term.Cell {
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
	for _, m := range t.Members {
		if m.Address == t.Leader {
			rows = append(rows, t.row(m, "", same))
		}
	}
	rest := len(t.Members) - (len(rows) - 1)
	for _, m := range t.Members {
		if m.Address != t.Leader {
			rest--
			branch := "├─ "
			if rest <= 0 {
				branch = "└─ "
			}
			rows = append(rows, t.row(m, branch, same))
		}
	}
	return rows
}

func (t *Tree) row(m Member, branch string, sameVersion bool) []term.Cell {
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
	row := []term.Cell{name, {Text: m.State, Colour: stateColour(m.State)}}
	for _, text := range []string{
		fmt.Sprint(m.PID), Span(time.Duration(m.UptimeMS) * time.Millisecond), fmt.Sprint(m.Index), fmt.Sprint(m.Lag), heard,
		fmt.Sprintf("%.1f%%", m.CPUPercent), Size(m.RSSBytes), fmt.Sprint(m.Slot), fmt.Sprint(m.Restarts),
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
	case "lagging":
		return term.Red
	}
	return term.Yellow
}

// shownDeaths is how many deaths people are shown; the JSON has all.
const shownDeaths = 8

func (t *Tree) renderDeaths(now time.Time, s term.Style) string {
	if len(t.Deaths) == 0 {
		return ""
	}
	last := t.Deaths[max(0, len(t.Deaths)-shownDeaths):]
	rows := [][]term.Cell{}
	for i := len(last) - 1; i >= 0; i-- {
		d := last[i]
		by := term.Cell{Text: "replaced by " + d.ReplacedBy}
		if d.ReplacedBy == "" {
			by = term.Cell{Text: "replaced by nobody yet", Colour: term.Yellow}
		}
		rows = append(rows, []term.Cell{
			{Text: "  " + Span(now.Sub(d.At)) + " ago"}, {Text: d.Address}, {Text: fmt.Sprintf("pid %d", d.PID)},
			{Text: term.Printable(d.Reason), Colour: term.Red}, by,
		})
	}
	return fmt.Sprintf("\n%s\n", s.Paint(term.Dim, fmt.Sprintf("last deaths (%d of %d)", len(last), len(t.Deaths)))) + term.Table(s, rows)
}

// Span shows a duration with as much detail as people read.
func Span(d time.Duration) string {
	switch {
	case d < 0:
		return "0s"
	case d < 10*time.Second:
		return d.Round(100 * time.Millisecond).String()
	case d < 48*time.Hour:
		return d.Round(time.Second).String()
	default:
		return fmt.Sprintf("%dd", int(d.Hours()/24))
	}
}

// Size shows a number of bytes in MiB.
func Size(n uint64) string {
	const mib = 1 << 20
	return fmt.Sprintf("%.0fMiB", float64(n)/mib)
}
