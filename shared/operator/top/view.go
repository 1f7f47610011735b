package top

import (
	"cmp"
	"fmt"
	"slices"
	"strings"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/operator/hostsview"
	"github.com/dynast-io/dynast/shared/operator/psview"
	"github.com/dynast-io/dynast/shared/operator/term"
	"github.com/dynast-io/dynast/shared/operator/treeview"
	"github.com/dynast-io/dynast/shared/rules/plural"
)

const (
	// leastGraph is the height of a graph. On high terminals graphs are higher, by a line for each
	// tallerBy lines beyond tallFrom, up to mostGraph.
	leastGraph, mostGraph, tallFrom, tallerBy = 4, 8, 30, 7
	// minWidth and minHeight are the size of the smallest useful screen.
	minWidth, minHeight = 60, 14
	// minLists is the number of lines that the lists get before the graphs do.
	minLists = 10
	// fullHeight is the height from which on the header may have more than two lines.
	fullHeight = 20
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
			return m.style.Paint(term.Red, term.Wrap(term.Printable(m.problem.Error()), m.width)) + "\n\nq: quit"
		}
		return "waiting for the leader ..."
	}
	lines, foot := append(m.header(), ""), m.footer()
	room := m.height - len(lines) - len(foot)
	switch {
	case m.help:
		lines = append(lines, m.helpLines(room)...)
	case m.output != nil:
		lines = append(lines, m.outputLines(room)...)
	default:
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

// header says how the cluster and its store are. While no leader answers, it says since when, and what
// to do.
func (m *Model) header() []string {
	t := m.tree
	most := 1
	if m.height >= fullHeight {
		most = 2
	}
	flow := func(parts []term.Cell) []string {
		lines := term.Flow(m.style, parts, m.width)
		return lines[:min(len(lines), most)]
	}
	parts := []term.Cell{{Text: "dynast", Colour: term.Bold}, {Text: "live", Colour: term.Green}}
	switch {
	case m.outdated():
		parts[1] = term.Cell{Text: fmt.Sprintf("NO LEADER ANSWERS since %s (%s)", m.answered.Local().Format("15:04:05"), term.Age(m.now.Sub(m.answered))), Colour: term.Red}
		lines := flow(append(parts, term.Cell{Text: fmt.Sprintf("it was epoch %d, clients at %s", t.Epoch, t.Client)}))
		advice := strings.Split(term.Wrap(m.advice(), m.width), "\n")
		for _, l := range advice[:min(len(advice), 2+2*most)] {
			lines = append(lines, m.style.Paint(term.Yellow, l))
		}
		return lines
	case t.Degraded:
		parts[1] = term.Cell{Text: "DEGRADED", Colour: term.Red}
	}
	lines := flow(append(parts, term.Cell{Text: fmt.Sprintf("epoch %d", t.Epoch)}, term.Cell{Text: fmt.Sprintf("%d of %d in sync", t.InSync(), t.Followers)},
		term.Cell{Text: t.Client}, term.Cell{Text: plural.Count(t.Takeovers, "takeover")}, term.Cell{Text: plural.Count(t.Restarts, "death")}))
	return append(lines, flow(treeview.Store(t.Store))...)
}

// advice says why no leader answers, as far as that is known, and what to do.
func (m *Model) advice() string {
	const wait = "The grey values are old. If a follower lives, it takes over within seconds. Otherwise 'dynast logs' says why, " +
		"and 'dynast stop' and 'dynast up' start everything again."
	if m.problem == nil {
		return wait
	}
	why := term.Printable(m.problem.Error())
	if strings.Contains(why, "'dynast up'") { // it says what to do
		return "The grey values are old: " + why + "."
	}
	return why + ". " + wait
}

// overview returns at most room lines with the graphs, the lists and the last events. On a low screen,
// lists are more important than graphs. If the lists are too long, their heads stay on the screen, and
// their rows are scrolled to the selected one.
func (m *Model) overview(room int) []string {
	tall := min(max((m.height-tallFrom)/tallerBy, 0), mostGraph-leastGraph)
	members, hosts, services := m.memberTable(), m.hostLines(), m.serviceTable()
	var lines []string
	graphs := append(m.graphs(leastGraph+tall), "")
	if room-len(graphs) >= min(members.height()+len(hosts)+services.height(), minLists+len(hosts)) {
		lines, room = graphs, room-len(graphs)
	}
	spare := room - members.fixed() - len(hosts) - services.fixed() // for rows
	forMembers := min(len(members.rows), max(spare-len(services.rows), spare/3, min(spare/2, 3), 1))
	lists := append(members.window(forMembers), hosts...)
	lists = append(lists, services.window(max(spare-forMembers, 1))...)
	lists = lists[:min(len(lists), room)]
	if m.outdated() {
		for i, l := range lists {
			lists[i] = m.style.Paint(term.Dim, ansi.Strip(l))
		}
		for i, l := range lines {
			lines[i] = m.style.Paint(term.Dim, ansi.Strip(l))
		}
	}
	lines, room = append(lines, lists...), room-len(lists)
	if room < 2 {
		return lines
	}
	lines = append(lines, m.style.Paint(term.Dim, "LAST EVENTS"))
	if m.eventsProblem != nil {
		return append(lines, m.style.Paint(term.Red, fit("the events cannot be read: "+m.eventsProblem.Error(), m.width)))
	}
	return append(lines, m.lastEvents(room-1)...)
}

// list is a table whose rows can be scrolled.
type list struct {
	head     string
	rows     []string
	selected int // -1: none
	dim      func(string) string
}

// fixed is the number of lines besides the rows: the head, and a line below.
func (l list) fixed() int {
	if len(l.rows) == 0 {
		return 0
	}
	return 2
}

func (l list) height() int { return l.fixed() + len(l.rows) }

// window returns the head, at most n rows, and a line below, which says how many rows are not shown.
func (l list) window(n int) []string {
	if len(l.rows) == 0 {
		return nil
	}
	from := min(max(l.selected-n+1, 0), max(len(l.rows)-n, 0))
	shown := l.rows[from:min(from+n, len(l.rows))]
	below := ""
	if above, under := from, len(l.rows)-from-len(shown); above+under > 0 {
		below = l.dim(fmt.Sprintf("  ↑ %d above   ↓ %d below", above, under))
	}
	return append(append([]string{l.head}, shown...), below)
}

// list makes a list of a table with a head. names are those that the rows are selected by.
func (m *Model) list(table [][]term.Cell, names []string, columns []term.Column) list {
	for i, c := range table[0] {
		if slices.Contains(orders[m.sorted].heads, c.Text) {
			table[0][i].Text = c.Text + "▼"
		}
	}
	l := list{selected: -1, dim: func(text string) string { return m.style.Paint(term.Dim, text) }}
	for i, row := range table {
		cursor := "  "
		if i > 0 && names[i-1] == m.selected {
			cursor, l.selected = "> ", i-1
		}
		if i > 0 && m.outdated() {
			row[1].Text += "?" // nobody knows whether it is still so
		}
		row[0].Text = cursor + row[0].Text
	}
	lines := m.table(term.Fit(table, m.width, columns))
	l.head, l.rows = lines[0], lines[1:]
	return l
}

// memberTable returns the members.
func (m *Model) memberTable() list {
	table, names := [][]term.Cell{treeview.Head()}, []string{}
	for _, x := range m.members() {
		table, names = append(table, treeview.Row(m.tree, x, "")), append(names, x.Address)
	}
	return m.list(table, names, treeview.Columns(m.tree))
}

// serviceTable returns the services.
func (m *Model) serviceTable() list {
	if m.services == nil || len(m.services.Services) == 0 {
		return list{}
	}
	table := psview.Rows(m.services, m.services.At)
	if orders[m.sorted].instance != nil { // what has no instance comes last
		place := map[string]int{}
		for i, x := range m.instances() {
			place[x.ID] = i - len(table)
		}
		slices.SortStableFunc(table[1:], func(a, b []term.Cell) int { return cmp.Compare(place[a[0].Text], place[b[0].Text]) })
	}
	var names []string
	for _, row := range table[1:] {
		names = append(names, row[0].Text)
	}
	return m.list(table, names, psview.Columns())
}

// hostLines returns the hosts of the cluster and how it is, with an empty line below.
func (m *Model) hostLines() []string {
	if m.hosts == nil && m.hostsProblem == nil {
		return nil
	}
	var lines []string
	if m.hosts != nil {
		table := hostsview.Rows(m.hosts, m.hosts.At)
		for _, row := range table {
			row[0].Text = "  " + row[0].Text
		}
		lines = append(lines, m.table(term.Fit(table, m.width, hostsview.Columns()))...)
		for _, l := range strings.Split(term.Wrap(m.hosts.Verdict, m.width-2), "\n") {
			lines = append(lines, "  "+l)
		}
	}
	if m.hostsProblem != nil {
		lines = append(lines, "  "+m.style.Paint(term.Red, fit("the hosts cannot be shown: "+m.hostsProblem.Error(), m.width-2)))
	}
	return append(lines, "")
}

// outputLines returns the part of the output that is shown, below a title.
func (m *Model) outputLines(room int) []string {
	p := m.output
	title := m.style.Paint(term.Dim, p.title) + m.style.Paint(term.Bold, p.name)
	if p.back > 0 {
		title += m.style.Paint(term.Yellow, fmt.Sprintf("  %s below", plural.Count(p.back, "line")))
	}
	lines := []string{title}
	if p.problem != nil {
		lines = append(lines, m.style.Paint(term.Red, fit(p.problem.Error(), m.width)))
	}
	room -= len(lines)
	end := max(len(p.lines)-p.back, min(room, len(p.lines)))
	for _, l := range p.lines[max(end-room, 0):end] {
		lines = append(lines, strings.ReplaceAll(m.style.Output(l), "\t", "    "))
	}
	return lines
}

// help explains the keys and the screen.
var help = [][2]string{
	{"↑ ↓ k j", "select a process or an instance; scroll a log"},
	{"PgUp PgDn g G", "ten rows up or down, the first row, the last row"},
	{"o", "sort by CPU, memory, uptime or restarts; ▼ marks the column"},
	{"l", "show the log of a member or the output of an instance, and back"},
	{"p", "hand the leadership over to the selected member"},
	{"K", "kill the selected member, or all processes of the instance"},
	{"s x r", "start, stop or restart the selected instance"},
	{"+ -", "add or remove a follower"},
	{"q", "quit"},
	{"", "Before anything is changed, you are asked: y means yes."},
	{"", "Graphs: ▲ marks a change of leader, × the death of a process."},
	{"", "RESTARTS counts the new processes that replaced one in this slot."},
}

// helpKeys is the width of the column of the keys.
const helpKeys = 15

// helpLines returns the help.
func (m *Model) helpLines(room int) []string {
	lines := []string{m.style.Paint(term.Dim, "KEYS")}
	for _, h := range help[:min(len(help), room-1)] {
		lines = append(lines, fmt.Sprintf("  %s%*s%s", m.style.Paint(term.Bold, h[0]), helpKeys-utf8.RuneCountInString(h[0]), "", h[1]))
	}
	return lines
}

// graphs draws three graphs side by side.
func (m *Model) graphs(height int) []string {
	pick := func(f func(sample) float64) []float64 {
		out := make([]float64, len(m.samples))
		for i, s := range m.samples {
			out[i] = f(s)
		}
		return out
	}
	last := gap()
	if len(m.samples) > 0 {
		last = m.samples[len(m.samples)-1]
	}
	requests := pick(func(s sample) float64 { return s.reads + s.writes })
	latency := pick(func(s sample) float64 { return s.p99 })
	lag := pick(func(s sample) float64 { return s.lag })
	const space = "   "
	width := (m.width - 2*len(space)) / 3
	columns := [][]string{
		m.graph("REQUESTS/S", fmt.Sprintf("r %s w %s", number(last.reads), number(last.writes)), requests, width, height, 1, number),
		m.graph("WRITES p99", fmt.Sprintf("p50 %s p99 %s", millis(last.p50), millis(last.p99)), latency, width, height, .001, millis),
		m.graph("LAG", number(last.lag)+" entries", lag, width, height, 1, number),
	}
	lines := make([]string, len(columns[0]))
	for i := range lines {
		lines[i] = columns[0][i] + space + columns[1][i] + space + columns[2][i]
	}
	return lines
}

// graph draws a headline, bars with the top of the scale beside them, and an axis.
func (m *Model) graph(name, now string, values []float64, width, height int, least float64, show func(float64) string) []string {
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
	for i, row := range bars(visible, plot, height, top) {
		mark := ""
		if i == 0 {
			mark = show(top)
		}
		lines = append(lines, m.style.Paint(term.Dim, fmt.Sprintf("%*s", label-1, mark))+" "+m.style.Paint(term.Cyan, row))
	}
	return append(lines, strings.Repeat(" ", label)+axis(m.samples, plot, m.style))
}

func (m *Model) table(rows [][]term.Cell) []string {
	return strings.Split(strings.TrimSuffix(term.Table(m.style, rows), "\n"), "\n")
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
	if e.Member != "" { // an event of a service has none
		text = fmt.Sprintf("%-16s %s", e.Member, text)
	}
	line := fit(fmt.Sprintf("%s  %-16s %s", e.At.Local().Format("15:04:05.000"), e.Kind, text), m.width)
	return m.style.Paint(term.EventColour(e.Kind), line)
}

// footer shows the last message, and below it the keys or a question.
func (m *Model) footer() []string {
	said := m.style.Paint(term.Green, fit(m.said, m.width))
	if m.saidBad {
		said = m.style.Paint(term.Red, fit(m.said, m.width))
	}
	keys := m.style.Paint(term.Dim, m.keys())
	if m.question != nil {
		keys = m.style.Paint(term.Yellow, fit(m.question.text+"  y: yes   any other key: no", m.width))
	}
	return []string{said, keys}
}

// keys names the keys that do something now, as many as fit. The help has all of them.
func (m *Model) keys() string {
	const last = "? help  q quit"
	_, ok := m.instance()
	change := []string{"p hand over", "K kill", "+ - followers"}
	if ok {
		change = []string{"s start", "x stop", "r restart", "K kill"}
	}
	if m.outdated() {
		change = nil
	}
	keys := append([]string{"↑↓ select"}, change...)
	switch {
	case m.help:
		return "any key: back  q quit"
	case m.output != nil:
		keys = append([]string{"l back", "↑↓ scroll"}, change...)
	case ok:
		keys = append(keys, "l output", "o sort")
	default:
		keys = append(keys, "l log", "o sort")
	}
	text := ""
	for _, k := range keys {
		if utf8.RuneCountInString(text+k+"  "+last) <= m.width {
			text += k + "  "
		}
	}
	return text + last
}

// fit cuts a text to a width. The text must not contain colours.
func fit(text string, width int) string { return term.Cut(term.Printable(text), width) }
