// Package hostsview shows the hosts of a cluster as text.
package hostsview

import (
	"fmt"
	"io"
	"strconv"
	"time"

	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/operator/term"
)

// Write prints one row for each host, and below what an operator has to know. It counts ages from now.
// No line is wider than the style's width.
func Write(out io.Writer, l *hosts.List, now time.Time, s term.Style) error {
	text := term.Table(s, term.Fit(Rows(l, now), s.Columns(), Columns())) + "\n" + term.Wrap(l.Verdict, s.Columns()) + "\n"
	for _, h := range l.Hosts {
		text += term.Wrap(fmt.Sprintf("If %s is lost now: %s.", h.Name, h.IfLost), s.Columns()) + "\n"
	}
	_, err := io.WriteString(out, text)
	return err
}

// Columns says how the columns of Rows give way.
func Columns() []term.Column {
	return []term.Column{{Least: 14}, {Least: 16}, {}, {}, {}, {Optional: 1, Least: 8}}
}

// Rows returns the table, with its head.
func Rows(l *hosts.List, now time.Time) [][]term.Cell {
	head := []term.Cell{{Text: "HOST"}, {Text: "ADDRESS"}, {Text: "ROLE"}, {Text: "LAG", Right: true}, {Text: "LAST HEARD", Right: true}, {Text: "VERSION"}}
	for i := range head {
		head[i].Colour = term.Dim
	}
	out := [][]term.Cell{head}
	for _, h := range l.Hosts {
		name, role, colour := h.Name, h.Role, term.Plain
		if h.Name == l.Self {
			name += " (this)"
		}
		if !h.Reachable {
			role, colour = h.Role+", no answer", term.Red
		}
		lag, version := "?", "?"
		if h.Lag >= 0 {
			lag = strconv.FormatInt(h.Lag, 10)
		}
		if h.Status != nil {
			version = h.Status.Version
		}
		out = append(out, []term.Cell{{Text: name}, {Text: h.Address}, {Text: role, Colour: colour}, {Text: lag, Right: true}, {Text: heard(h, l, now), Right: true}, {Text: version}})
	}
	return out
}

func heard(h hosts.Host, l *hosts.List, now time.Time) string {
	switch {
	case h.Name == l.Self || h.Reachable:
		return "now"
	case h.LastContact.IsZero():
		return "never"
	}
	return now.Sub(h.LastContact).Round(time.Second).String() + " ago"
}

// WriteTokens prints the tokens of a host.
func WriteTokens(out io.Writer, all []hosts.Issued, now time.Time, s term.Style) error {
	if len(all) == 0 {
		_, err := io.WriteString(out, "this host has no valid tokens; 'dynast hosts token' makes one\n")
		return err
	}
	head := []term.Cell{{Text: "TOKEN", Colour: term.Dim}, {Text: "VALID FOR", Right: true, Colour: term.Dim}, {Text: "ADMITS", Colour: term.Dim}, {Text: "USED BY", Colour: term.Dim}}
	rows := [][]term.Cell{head}
	for _, t := range all {
		admits := "any number"
		if t.Once {
			admits = "one host"
		}
		rows = append(rows, []term.Cell{{Text: t.ID}, {Text: t.Expires.Sub(now).Round(time.Second).String(), Right: true}, {Text: admits}, {Text: t.UsedBy}})
	}
	_, err := io.WriteString(out, term.Table(s, rows))
	return err
}
