package top

import (
	"cmp"
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/operator/term"
)

const (
	// pace is the interval between two requests to the cluster.
	pace = time.Second
	// patience bounds one request to the cluster.
	patience = 10 * time.Second
	// history is the number of samples that are kept. A graph is at most this wide.
	history = 600
	// silence is the age of the last answer from which on it is old. Usually it is at most pace old.
	silence = 2500 * time.Millisecond
	// keptEvents is the number of events that are kept.
	keptEvents = 500
	// keptLines is the number of lines of output that are kept.
	keptLines = 1000
	// page is how far the keys for pages move.
	page = 10
)

// Cluster is the cluster that the dashboard shows and changes.
type Cluster interface {
	// State returns the current state of the members and of the services. The services may be nil.
	State(ctx context.Context) (*tree.Tree, *ps.Report, error)
	// Hosts returns the hosts of the cluster, or nil if this is a single host.
	Hosts(ctx context.Context) (*hosts.List, error)
	// Events returns the events since the last call. The first call returns all past events.
	Events() ([]events.Event, error)
	// Promote, Scale and Kill change the cluster and return a message about the result.
	Promote(ctx context.Context, address string) (string, error)
	Scale(ctx context.Context, by int) (string, error)
	Kill(ctx context.Context, address string) (string, error)
	// Act carries out an action on an instance of a service and returns a message about the result.
	Act(ctx context.Context, action member.Action, instance string) (string, error)
	// Output returns the last lines of an instance's output, as the program wrote them, or of the log
	// of a member.
	Output(ctx context.Context, name string, lines int) ([]string, error)
}

// sample is one second of the graphs. An unknown value is NaN.
type sample struct {
	reads, writes float64 // per second
	p50, p99      float64 // seconds, of writes
	lag           float64 // entries; the maximum of all members
	takeover      bool
	deaths        int
}

// Model is the state of the screen. It is a tea.Model.
type Model struct {
	cluster Cluster
	style   term.Style
	clock   func() time.Time // used only outside of the model, for its messages

	width, height int
	now           time.Time   // when the last message about the time came
	answered      time.Time   // when tree came
	asking        bool        // a request to the cluster is under way
	tree          *tree.Tree  // the last known tree
	services      *ps.Report  // as old as tree; nil: no services
	hosts         *hosts.List // nil: a single host
	hostsProblem  error       // why hosts is old
	problem       error       // why there is no newer tree
	samples       []sample
	events        []events.Event
	eventsProblem error // why events is old
	seenEvents    bool
	deaths        int // since the last sample

	selected string // the address of a member, or an instance
	sorted   int    // the index in orders
	help     bool   // the help is shown
	output   *pane  // nil: not shown
	question *question
	said     string
	saidBad  bool
}

// question is a change that waits for the confirmation of the user.
type question struct {
	text string
	do   func(context.Context) (string, error)
}

// pane shows the output of the selected instance, or the log of the selected member.
type pane struct {
	title, name string
	lines       []string
	back        int   // how many of the newest lines are below the screen
	problem     error // why there are no newer lines
}

// The messages of the model.
type (
	tick   struct{ at time.Time }
	looked struct {
		at        time.Time
		tree      *tree.Tree // nil: err says why
		services  *ps.Report
		err       error
		hosts     *hosts.List
		hostsErr  error
		events    []events.Event
		eventsErr error
	}
	// readAgain says that a pane needs newer lines, and linesRead brings them. Both are ignored if
	// the pane is no longer shown.
	readAgain struct{ pane *pane }
	linesRead struct {
		pane  *pane
		lines []string
		err   error
	}
	done struct {
		text string
		err  error
	}
)

// New returns the model of a cluster.
func New(c Cluster, s term.Style) *Model {
	return &Model{cluster: c, style: s, clock: time.Now, width: 80, height: 24}
}

// Init asks the cluster for the first time.
func (m *Model) Init() tea.Cmd {
	m.asking = true
	return tea.Batch(m.look, nextTick())
}

func nextTick() tea.Cmd { return tea.Tick(pace, func(at time.Time) tea.Msg { return tick{at} }) }

// look asks the cluster. It runs concurrently with the model.
func (m *Model) look() tea.Msg {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	var l looked
	l.tree, l.services, l.err = m.cluster.State(ctx)
	l.hosts, l.hostsErr = m.cluster.Hosts(ctx)
	l.events, l.eventsErr = m.cluster.Events()
	l.at = m.clock()
	return l
}

// Update handles a message.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case looked:
		m.take(msg)
	case tick:
		m.now = msg.at
		if m.asking { // the cluster is silent
			m.add(gap())
			return m, nextTick()
		}
		m.asking = true
		return m, tea.Batch(m.look, nextTick())
	case readAgain:
		if msg.pane == m.output {
			return m, m.read(msg.pane)
		}
	case linesRead:
		if msg.pane != m.output {
			return m, nil
		}
		if msg.pane.problem = msg.err; msg.err == nil {
			msg.pane.lines = msg.lines
		}
		return m, tea.Tick(pace, func(time.Time) tea.Msg { return readAgain{msg.pane} })
	case done:
		m.said, m.saidBad = msg.text, msg.err != nil
		if msg.err != nil {
			m.said = msg.err.Error()
		}
	case tea.KeyPressMsg:
		return m, m.key(msg.String())
	}
	return m, nil
}

// read reads the output for a pane, concurrently with the model.
func (m *Model) read(p *pane) tea.Cmd {
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		lines, err := m.cluster.Output(ctx, p.name, keptLines)
		return linesRead{pane: p, lines: lines, err: err}
	}
}

// take adds an answer of the cluster to the graphs.
func (m *Model) take(l looked) {
	if !m.seenEvents {
		m.seenEvents = true // past events are listed, but not drawn in the graphs
	} else {
		for _, e := range l.events {
			if e.Kind == "member_died" || e.Kind == "leader_lost" {
				m.deaths++
			}
		}
	}
	m.events = append(m.events, l.events...)
	m.events = m.events[max(0, len(m.events)-keptEvents):]
	m.asking, m.now, m.problem, m.eventsProblem = false, l.at, l.err, l.eventsErr
	if m.hostsProblem = l.hostsErr; l.hostsErr == nil {
		m.hosts = l.hosts
	}
	s := gap()
	s.deaths, m.deaths = m.deaths, 0
	if l.tree != nil {
		m.measure(&s, l.tree)
		m.tree, m.services, m.answered = l.tree, l.services, l.at
		if m.said == noChange { // this is no longer so
			m.say("")
		}
		if !slices.Contains(m.rows(), m.selected) {
			m.selected, m.output = l.tree.Leader, nil
		}
	}
	m.add(s)
}

// gap is a second of which nothing is known.
func gap() sample {
	nan := math.NaN()
	return sample{reads: nan, writes: nan, p50: nan, p99: nan, lag: nan}
}

func (m *Model) add(s sample) {
	m.samples = append(m.samples, s)
	m.samples = m.samples[max(0, len(m.samples)-history):]
}

// outdated reports whether what is shown is old, because no leader answers.
func (m *Model) outdated() bool {
	return m.tree != nil && (m.problem != nil || m.now.Sub(m.answered) > silence)
}

// measure compares a tree with the previous one. After a takeover, the rates of the second are
// unknown, because the counts of the new leader started at zero.
func (m *Model) measure(s *sample, now *tree.Tree) {
	s.lag = 0
	for _, x := range now.Members {
		s.lag = max(s.lag, float64(x.Lag))
	}
	if m.tree == nil {
		return
	}
	if now.Epoch != m.tree.Epoch {
		s.takeover = true
		return
	}
	span := now.At.Sub(m.tree.At).Seconds()
	if span <= 0 {
		return
	}
	d := now.Load.Sub(m.tree.Load)
	s.reads, s.writes = float64(d.Read.Count)/span, float64(d.Write.Count)/span
	if d.Write.Count > 0 {
		s.p50, s.p99 = d.Write.Quantile(.5), d.Write.Quantile(.99)
	}
}

// order says by what the lists are sorted, the largest value first.
type order struct {
	name     string
	heads    []string // the heads of the columns
	member   func(tree.Member) float64
	instance func(ps.Instance) float64
}

// orders are the orders that a key cycles through. The first one keeps the order of the cluster.
var orders = []order{
	{name: "name"},
	{"CPU", []string{"CPU"}, func(x tree.Member) float64 { return x.CPUPercent }, func(i ps.Instance) float64 { return i.CPU }},
	{"memory", []string{"MEM"}, func(x tree.Member) float64 { return float64(x.RSSBytes) }, func(i ps.Instance) float64 { return float64(i.RSSBytes) }},
	{"uptime", []string{"UP"}, func(x tree.Member) float64 { return float64(x.UptimeMS) }, func(i ps.Instance) float64 { return float64(i.UptimeMS) }},
	{"restarts", []string{"RESTARTS"}, func(x tree.Member) float64 { return float64(x.Restarts) }, func(i ps.Instance) float64 { return float64(i.Restarts) }},
}

// members returns the members in the order of the list. Without another order, the leader is first.
func (m *Model) members() []tree.Member {
	if m.tree == nil {
		return nil
	}
	value := orders[m.sorted].member
	if value == nil {
		value = func(x tree.Member) float64 { return map[bool]float64{true: 1}[x.Address == m.tree.Leader] }
	}
	out := slices.Clone(m.tree.Members)
	slices.SortStableFunc(out, func(a, b tree.Member) int { return cmp.Compare(value(b), value(a)) })
	return out
}

// instances returns the instances of all services, in the order of the list.
func (m *Model) instances() []ps.Instance {
	if m.services == nil {
		return nil
	}
	var out []ps.Instance
	for _, s := range m.services.Services {
		out = append(out, s.Instances...)
	}
	if value := orders[m.sorted].instance; value != nil {
		slices.SortStableFunc(out, func(a, b ps.Instance) int { return cmp.Compare(value(b), value(a)) })
	}
	return out
}

// rows returns what can be selected, in the order of the screen.
func (m *Model) rows() []string {
	var out []string
	for _, x := range m.members() {
		out = append(out, x.Address)
	}
	for _, i := range m.instances() {
		out = append(out, i.ID)
	}
	return out
}

// instance returns the selected instance, if it is one.
func (m *Model) instance() (ps.Instance, bool) {
	all := m.instances()
	at := slices.IndexFunc(all, func(i ps.Instance) bool { return i.ID == m.selected })
	if at < 0 {
		return ps.Instance{}, false
	}
	return all[at], true
}

// key handles a key. A key that changes the cluster asks for confirmation first.
func (m *Model) key(k string) tea.Cmd {
	if m.question != nil {
		return m.answer(k)
	}
	if k == "q" || k == "ctrl+c" {
		return tea.Quit
	}
	if m.help { // any key closes the help
		m.help = false
		return nil
	}
	switch k {
	case "esc":
		if m.output == nil {
			return tea.Quit
		}
		m.output = nil
	case "?":
		m.help = true
	case "o":
		m.sorted = (m.sorted + 1) % len(orders)
		m.say("sorted by " + orders[m.sorted].name)
	case "l":
		return m.togglePane()
	default:
		if by, ok := moves[k]; ok {
			m.move(by)
		} else {
			m.offer(k)
		}
	}
	return nil
}

// answer handles the answer to a question.
func (m *Model) answer(k string) tea.Cmd {
	q := m.question
	m.question = nil
	switch {
	case k != "y":
		m.say("cancelled")
		return nil
	case m.outdated():
		m.refuse(noChange)
		return nil
	}
	m.say("...")
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(context.Background(), patience)
		defer cancel()
		text, err := q.do(ctx)
		return done{text: text, err: err}
	}
}

func (m *Model) say(text string)    { m.said, m.saidBad = text, false }
func (m *Model) refuse(text string) { m.said, m.saidBad = text, true }

// moves are the keys that move, and how far. They are those of vi and less, too.
var moves = map[string]int{
	"up": -1, "k": -1, "down": 1, "j": 1, "tab": 1, "pgup": -page, "ctrl+b": -page, "pgdown": page, "ctrl+f": page,
	"home": -math.MaxInt32, "g": -math.MaxInt32, "end": math.MaxInt32, "G": math.MaxInt32,
}

// move selects another row, or scrolls the output. A step beyond an end of the list goes to the other
// end.
func (m *Model) move(by int) {
	all := m.rows()
	switch p := m.output; {
	case p != nil:
		p.back = min(max(p.back-by, 0), max(len(p.lines)-1, 0))
	case len(all) == 0:
	case by == 1 || by == -1:
		m.selected = all[(slices.Index(all, m.selected)+by+len(all))%len(all)]
	default:
		m.selected = all[min(max(slices.Index(all, m.selected)+by, 0), len(all)-1)]
	}
}

// togglePane shows the output of the selected instance or the log of the selected member, or the lists
// again.
func (m *Model) togglePane() tea.Cmd {
	if m.output != nil || m.selected == "" {
		m.output = nil
		return nil
	}
	m.output = &pane{title: "LOG OF ", name: m.selected}
	if _, ok := m.instance(); ok {
		m.output.title = "OUTPUT OF "
	}
	return m.read(m.output)
}

// noChange is the answer to a key that changes the cluster while no leader answers.
const noChange = "nothing can be changed while no leader answers"

// offer asks whether to make the change of a key.
func (m *Model) offer(k string) {
	if !slices.Contains([]string{"p", "K", "s", "x", "r", "+", "=", "-"}, k) || m.tree == nil {
		return
	}
	if m.outdated() {
		m.refuse(noChange)
		return
	}
	if i, ok := m.instance(); ok {
		m.offerInstance(k, i)
	} else if victim, ok := m.tree.MemberAt(m.selected); ok {
		m.offerMember(k, victim)
	}
	m.offerScale(k)
}

func (m *Model) offerInstance(k string, i ps.Instance) {
	c, id, what := m.cluster, i.ID, i.ID
	if i.PID != 0 {
		what = fmt.Sprintf("%s (pid %d)", i.ID, i.PID)
	}
	ask := func(text string, action member.Action) {
		m.question = &question{text, func(ctx context.Context) (string, error) { return c.Act(ctx, action, id) }}
	}
	switch k {
	case "s":
		ask(fmt.Sprintf("Start %s?", what), member.ActionStart)
	case "x":
		ask(fmt.Sprintf("Stop %s?", what), member.ActionStop)
	case "r":
		ask(fmt.Sprintf("Restart %s?", what), member.ActionRestart)
	case "K":
		ask(fmt.Sprintf("Kill all processes of %s with SIGKILL?", what), member.ActionKill)
	case "p":
		m.refuse("select a member to hand the leadership over to")
	}
}

func (m *Model) offerMember(k string, victim tree.Member) {
	c := m.cluster
	switch k {
	case "p":
		to := victim.Address
		if to == m.tree.Leader {
			to = m.tree.Heir
		}
		if to == "" {
			m.refuse("cannot hand over: no follower is in sync")
			return
		}
		m.question = &question{fmt.Sprintf("Hand the leadership over to %s?", to),
			func(ctx context.Context) (string, error) { return c.Promote(ctx, to) }}
	case "K":
		m.question = &question{fmt.Sprintf("Kill %s (%s, pid %d) with SIGKILL?", victim.Address, victim.Role, victim.PID),
			func(ctx context.Context) (string, error) { return c.Kill(ctx, victim.Address) }}
	case "s", "x", "r":
		m.refuse("select an instance of a service to start, stop or restart it")
	}
}

func (m *Model) offerScale(k string) {
	c := m.cluster
	switch k {
	case "+", "=":
		m.question = &question{fmt.Sprintf("Add a follower (%d -> %d)?", m.tree.Followers, m.tree.Followers+1),
			func(ctx context.Context) (string, error) { return c.Scale(ctx, 1) }}
	case "-":
		if m.tree.Followers == 0 {
			m.refuse("cannot remove a follower: there is none")
			return
		}
		m.question = &question{fmt.Sprintf("Remove a follower (%d -> %d)?", m.tree.Followers, m.tree.Followers-1),
			func(ctx context.Context) (string, error) { return c.Scale(ctx, -1) }}
	}
}
