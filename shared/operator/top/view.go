package top

import (
	"fmt"
	"slices"
	"strings"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/operator/hostsview"
	"github.com/dynast-io/dynast/shared/operator/psview"
	"github.com/dynast-io/dynast/shared/operator/term"
	"github.com/dynast-io/dynast/shared/rules/plural"
)

const (
	graphHeight = 4
	// minWidth and minHeight are the size of the smallest useful screen.
	minWidth, minHeight = 60, 14
	// minRows is the number of lines that the lists need at least beside the graphs.
	minRows = 6
)

// View draws the screen.
func (m *Model) View() tea.View {
	v := tea.NewView(m.render())
	v.AltScreen = true
	v.WindowTitle = "dynast top"
	return v
}

// render returns the lines of the screen. They fit into its width and height.
func (m *Model) render() string {
	if m.width < minWidth || m.height < minHeight {
		return fmt.Sprintf("terminal too small: %dx%d, needs %dx%d", m.width, m.height, minWidth, minHeight)
	}
	if m.tree == nil {
		if m.problem != nil {
			return m.style.Paint(term.Red, fit(m.problem.Error(), m.width)) + "\n\nq: quit"
		}
		return "waiting for the leader ..."
	}
	lines, foot := []string{m.headline(), ""}, m.footer()
	room := m.height - len(lines) - len(foot)
	if m.output != nil {
		lines = append(lines, m.outputLines(room)...)
	} else {
		lines = append(lines, m.overview(room)...)
	}
	for len(lines) < m.height-len(foot) {
		lines = append(lines, "")
	}
	lines = append(lines, foot...)
	for i, l := range lines {
		lines[i] = ansi.Truncate(l, m.width, "…")
	}
	return strings.Join(lines, "\n")
}

// overview returns at most room lines with the graphs, the lists and the last events. If the lists
// are too long, the part with the selected row is shown. On a low screen, services are more
// important than graphs.
func (m *Model) overview(room int) []string {
	lists, selected := m.lists()
	var lines []string
	graphs := append(m.graphs(), "")
	if len(lists) <= room-len(graphs) || room-len(graphs) >= minRows || len(m.instances()) == 0 {
		lines, room = graphs, room-len(graphs)
	}
	from := min(max(selected-room+1, 0), max(len(lists)-room, 0))
	lists = lists[from:min(from+room, len(lists))]
	lines, room = append(lines, lists...), room-len(lists)
	if room > 3 {
		lines = append(lines, "", m.style.Paint(term.Dim, "LAST EVENTS"))
		lines = append(lines, m.lastEvents(room-3)...)
	}
	return lines
}

// lists returns the lines of the members and of the services, and the number of the selected one.
func (m *Model) lists() (lines []string, selected int) {
	lines = m.members()
	selected = 1 + slices.IndexFunc(m.order(), func(x tree.Member) bool { return x.Address == m.selected })
	lines = append(lines, m.hostLines()...)
	if m.services == nil || len(m.services.Services) == 0 {
		return lines, selected
	}
	lines = append(lines, "")
	table := psview.Rows(m.services, m.services.At)
	table[0][0].Text = "  " + table[0][0].Text
	for i, row := range table[1:] {
		cursor := "  "
		if row[0].Text == m.selected {
			cursor, selected = "> ", len(lines)+1+i
		}
		row[0].Text = cursor + row[0].Text
	}
	return append(lines, m.table(table)...), selected
}

// hostLines returns the hosts of the cluster and how it is.
func (m *Model) hostLines() []string {
	if m.hosts == nil && m.hostsProblem == nil {
		return nil
	}
	lines := []string{""}
	if m.hosts != nil {
		table := hostsview.Rows(m.hosts, m.hosts.At)
		for _, row := range table {
			row[0].Text = "  " + row[0].Text
		}
		lines = append(lines, m.table(table)...)
		lines = append(lines, "  "+m.hosts.Verdict)
	}
	if m.hostsProblem != nil {
		lines = append(lines, "  "+m.style.Paint(term.Red, "the hosts cannot be shown: "+m.hostsProblem.Error()))
	}
	return lines
}

// outputLines returns the last lines of the output that is shown, below a title.
func (m *Model) outputLines(room int) []string {
	p := m.output
	lines := []string{m.style.Paint(term.Dim, "OUTPUT OF ") + m.style.Paint(term.Bold, p.instance)}
	if p.problem != nil {
		lines = append(lines, m.style.Paint(term.Red, fit(p.problem.Error(), m.width)))
	}
	for _, l := range p.lines[max(len(p.lines)-(room-len(lines)), 0):] {
		lines = append(lines, strings.ReplaceAll(m.style.Output(l), "\t", "    "))
	}
	return lines
}

func (m *Model) headline() string {
	t := m.tree
	state := m.style.Paint(term.Green, "live")
	switch {
	case m.problem != nil:
		state = m.style.Paint(term.Red, "NO LEADER")
	case t.Degraded:
		state = m.style.Paint(term.Red, "DEGRADED")
	}
	return fmt.Sprintf("%s  %s  epoch %d  %d of %d in sync  clients %s  %s  %s", m.style.Paint(term.Bold, "dynast"), state, t.Epoch,
		t.InSync(), t.Followers, t.Client, plural.Count(t.Takeovers, "takeover"), plural.Count(t.Restarts, "restart"))
}

// graphs draws three graphs side by side.
func (m *Model) graphs() []string {
	pick := func(f func(sample) float64) []float64 {
		out := make([]float64, len(m.samples))
		for i, s := range m.samples {
			out[i] = f(s)
		}
		return out
	}
	last := m.samples[len(m.samples)-1]
	requests := pick(func(s sample) float64 { return s.reads + s.writes })
	latency := pick(func(s sample) float64 { return s.p99 })
	lag := pick(func(s sample) float64 { return s.lag })
	const gap = "   "
	width := (m.width - 2*len(gap)) / 3
	columns := [][]string{
		m.graph("REQUESTS/S", fmt.Sprintf("r %s w %s", number(last.reads), number(last.writes)), requests, width, 1, number),
		m.graph("WRITES p99", fmt.Sprintf("p50 %s p99 %s", millis(last.p50), millis(last.p99)), latency, width, .001, millis),
		m.graph("LAG", number(last.lag)+" entries", lag, width, 1, number),
	}
	lines := make([]string, len(columns[0]))
	for i := range lines {
		lines[i] = columns[0][i] + gap + columns[1][i] + gap + columns[2][i]
	}
	return lines
}

// graph draws a headline, bars with the top of the scale beside them, and an axis.
func (m *Model) graph(name, now string, values []float64, width int, least float64, show func(float64) string) []string {
	label := 8
	plot := width - label
	visible := values[max(0, len(values)-plot):]
	top := ceiling(visible, least)
	head := name
	if room := width - utf8.RuneCountInString(name) - 1; room >= utf8.RuneCountInString(now) {
		head = name + strings.Repeat(" ", room+1-utf8.RuneCountInString(now)) + now
	} else {
		head, name = fit(now, width), ""
		head += strings.Repeat(" ", width-utf8.RuneCountInString(head))
	}
	lines := []string{strings.Replace(head, name, m.style.Paint(term.Dim, name), 1)}
	for i, row := range bars(visible, plot, graphHeight, top) {
		mark := ""
		if i == 0 {
			mark = show(top)
		}
		lines = append(lines, m.style.Paint(term.Dim, fmt.Sprintf("%*s", label-1, mark))+" "+m.style.Paint(term.Cyan, row))
	}
	return append(lines, strings.Repeat(" ", label)+axis(m.samples, plot, m.style))
}

func (m *Model) members() []string {
	head := []term.Cell{{Text: "  PROCESS"}, {Text: "STATE"}}
	for _, h := range []string{"PID", "UP", "LAG", "HEARD", "CPU", "MEM", "DIED"} {
		head = append(head, term.Cell{Text: h, Right: true})
	}
	for i := range head {
		head[i].Colour = term.Dim
	}
	rows := [][]term.Cell{head}
	for _, x := range m.order() {
		rows = append(rows, m.member(x))
	}
	return m.table(rows)
}

func (m *Model) table(rows [][]term.Cell) []string {
	return strings.Split(strings.TrimSuffix(term.Table(m.style, rows), "\n"), "\n")
}

func (m *Model) member(x tree.Member) []term.Cell {
	cursor := "  "
	if x.Address == m.selected {
		cursor = "> "
	}
	name, heard := term.Cell{Text: cursor + x.Address}, fmt.Sprintf("%dms", x.HeartbeatAgeMS)
	switch x.Address {
	case m.tree.Heir:
		name.Text, name.Colour = name.Text+" heir", term.Cyan
	case m.tree.Leader:
		name.Text, name.Colour, heard = name.Text+" leader", term.Bold, "-"
	}
	state := term.Cell{Text: x.State, Colour: term.Yellow}
	if x.State == "serving" || x.State == "in_sync" {
		state.Colour = term.Green
	}
	row := []term.Cell{name, state}
	for _, text := range []string{
		fmt.Sprint(x.PID), age(time.Duration(x.UptimeMS) * time.Millisecond), fmt.Sprint(x.Lag), heard,
		fmt.Sprintf("%.1f%%", x.CPUPercent), fmt.Sprintf("%dM", x.RSSBytes>>20), fmt.Sprint(x.Restarts),
	} {
		row = append(row, term.Cell{Text: text, Right: true})
	}
	return row
}

// age formats a duration with its two largest units.
func age(d time.Duration) string {
	switch {
	case d < time.Minute:
		return fmt.Sprintf("%ds", int(d.Seconds()))
	case d < time.Hour:
		return fmt.Sprintf("%dm%ds", int(d.Minutes()), int(d.Seconds())%60)
	case d < 48*time.Hour:
		return fmt.Sprintf("%dh%dm", int(d.Hours()), int(d.Minutes())%60)
	}
	return fmt.Sprintf("%dd", int(d.Hours()/24))
}

func (m *Model) lastEvents(room int) []string {
	var lines []string
	for i := len(m.events) - 1; i >= 0 && len(lines) < room; i-- {
		lines = append(lines, m.event(m.events[i]))
	}
	return lines
}

func (m *Model) event(e events.Event) string {
	text := e.Detail
	if e.Seconds > 0 {
		text += fmt.Sprintf(" (%.1f ms without a leader)", e.Seconds*1000)
	}
	line := fit(fmt.Sprintf("%s  %-16s %-16s %s", e.At.Local().Format("15:04:05.000"), e.Kind, e.Member, term.Printable(text)), m.width)
	switch e.Kind {
	case "leader_lost", "leader_silent", "member_died", "member_silent", "spawn_error", "loss_possible", "disk_full", "memory_tight":
		return m.style.Paint(term.Red, line)
	case "took_over", "serving":
		return m.style.Paint(term.Yellow, line)
	}
	return line
}

// footer shows the last message, and below it the keys or a question.
func (m *Model) footer() []string {
	said := m.style.Paint(term.Green, fit(m.said, m.width))
	if m.saidBad {
		said = m.style.Paint(term.Red, fit(m.said, m.width))
	}
	if m.problem != nil {
		said = m.style.Paint(term.Red, fit(m.problem.Error(), m.width))
	}
	keys := m.style.Paint(term.Dim, fit(m.keys(), m.width))
	if m.asking != nil {
		keys = m.style.Paint(term.Yellow, fit(m.asking.text+"  y: yes   any other key: no", m.width))
	}
	return []string{said, keys}
}

// keys names the keys that do something now.
func (m *Model) keys() string {
	_, ok := m.instance()
	switch {
	case m.output != nil:
		return "l back   s start   x stop   r restart   k kill   q quit"
	case ok:
		return "↑↓ select   s start   x stop   r restart   k kill   l output   q quit"
	}
	return "↑↓ select   p hand over   k kill   + add follower   - remove follower   q quit"
}

// fit cuts a text to a width. The text must not contain colours.
func fit(text string, width int) string {
	text = term.Printable(text)
	if utf8.RuneCountInString(text) <= width {
		return text
	}
	return string([]rune(text)[:max(width-1, 0)]) + "…"
}
