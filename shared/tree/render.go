package tree

import (
	"fmt"
	"io"
	"strings"
	"text/tabwriter"
	"time"
)

// Render prints the tree for people: the leader, below it its followers, the
// heir marked, then the last deaths.
func (t *Tree) Render(out io.Writer, now time.Time) error {
	var b strings.Builder
	fmt.Fprintf(&b, "epoch %d, clients at %s", t.Epoch, t.Client)
	if t.Degraded {
		b.WriteString(", DEGRADED: fewer followers in sync than min_sync asks for")
	}
	b.WriteString("\n\n")
	w := tabwriter.NewWriter(&b, 0, 0, 2, ' ', 0)
	fmt.Fprintln(w, "PROCESS\tSTATE\tPID\tPPID\tSLOT\tINDEX\tLAG\tHEARD\tUP\tRSS\tVERSION")
	for _, m := range t.Members {
		if m.Address == t.Leader {
			t.row(w, m, "")
		}
	}
	rest := len(t.Members) - 1
	for _, m := range t.Members {
		if m.Address != t.Leader {
			rest--
			branch := "├─ "
			if rest <= 0 {
				branch = "└─ "
			}
			t.row(w, m, branch)
		}
	}
	if err := w.Flush(); err != nil {
		return err
	}
	t.renderDeaths(&b, now)
	_, err := io.WriteString(out, b.String())
	return err
}

func (t *Tree) row(w io.Writer, m Member, branch string) {
	name := branch + m.Address + " " + m.Role
	if m.Address == t.Heir {
		name += " (heir)"
	}
	heard := "-"
	if m.Address != t.Leader {
		heard = fmt.Sprintf("%dms", m.HeartbeatAgeMS)
	}
	fmt.Fprintf(w, "%s\t%s\t%d\t%d\t%d\t%d\t%d\t%s\t%s\t%s\t%s\n",
		name, m.State, m.PID, m.PPID, m.Slot, m.Index, m.Lag, heard,
		span(time.Duration(m.UptimeMS)*time.Millisecond), size(m.RSSBytes), m.Version)
}

// shownDeaths is how many deaths people are shown; the JSON has all.
const shownDeaths = 8

func (t *Tree) renderDeaths(b *strings.Builder, now time.Time) {
	if len(t.Deaths) == 0 {
		return
	}
	last := t.Deaths[max(0, len(t.Deaths)-shownDeaths):]
	fmt.Fprintf(b, "\nlast deaths (%d of %d)\n", len(last), len(t.Deaths))
	w := tabwriter.NewWriter(b, 0, 0, 2, ' ', 0)
	for i := len(last) - 1; i >= 0; i-- {
		d := last[i]
		by := d.ReplacedBy
		if by == "" {
			by = "nobody yet"
		}
		fmt.Fprintf(w, "  %s ago\t%s\tpid %d\t%s\treplaced by %s\n", span(now.Sub(d.At)), d.Address, d.PID, d.Reason, by)
	}
	_ = w.Flush() // into memory
}

// span shows a duration with as much detail as people read.
func span(d time.Duration) string {
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

func size(n uint64) string {
	const mib = 1 << 20
	return fmt.Sprintf("%.0fMiB", float64(n)/mib)
}
