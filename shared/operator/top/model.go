package top

import (
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
	// keptEvents is the number of events that are kept.
	keptEvents = 100
	// keptLines is the number of lines of output that are kept. A pane is at most this high.
	keptLines = 200
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
	// Output returns the last lines of an instance's output, as the program wrote them.
	Output(ctx context.Context, instance string, lines int) ([]string, error)
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

	width, height int
	tree          *tree.Tree  // the last known tree
	services      *ps.Report  // as old as tree; nil: no services
	hosts         *hosts.List // nil: a single host
	hostsProblem  error       // why hosts is old
	problem       error       // why there is no newer tree
	samples       []sample
	events        []events.Event
	seenEvents    bool
	deaths        int // since the last sample

	selected string // the address of a member, or an instance
	output   *pane  // nil: not shown
	asking   *question
	said     string
	saidBad  bool
}

// question is a change that waits for the confirmation of the user.
type question struct {
	text string
	do   func(context.Context) (string, error)
}

// pane shows the output of the selected instance.
type pane struct {
	instance string
	lines    []string
	problem  error // why there are no newer lines
}

// The messages of the model.
type (
	tick   struct{}
	looked struct {
		tree     *tree.Tree
		services *ps.Report
		hosts    *hosts.List
		hostsErr error
		events   []events.Event
		err      error
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
func New(c Cluster, s term.Style) *Model { return &Model{cluster: c, style: s, width: 80, height: 24} }

// Init asks the cluster for the first time.
func (m *Model) Init() tea.Cmd { return m.look }

// look asks the cluster. It runs concurrently with the model.
func (m *Model) look() tea.Msg {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	t, services, err := m.cluster.State(ctx)
	l, hostsErr := m.cluster.Hosts(ctx)
	es, eventsErr := m.cluster.Events()
	if err == nil {
		err = eventsErr
	}
	return looked{tree: t, services: services, hosts: l, hostsErr: hostsErr, events: es, err: err}
}

// Update handles a message.
func (m *Model) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch msg := msg.(type) {
	case tea.WindowSizeMsg:
		m.width, m.height = msg.Width, msg.Height
	case looked:
		m.take(msg)
		return m, tea.Tick(pace, func(time.Time) tea.Msg { return tick{} })
	case tick:
		return m, m.look
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
		lines, err := m.cluster.Output(ctx, p.instance, keptLines)
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
	m.problem = l.err
	if m.hostsProblem = l.hostsErr; l.hostsErr == nil {
		m.hosts = l.hosts
	}
	s := sample{reads: math.NaN(), writes: math.NaN(), p50: math.NaN(), p99: math.NaN(), lag: math.NaN(), deaths: m.deaths}
	m.deaths = 0
	if l.tree != nil {
		m.measure(&s, l.tree)
		m.tree, m.services = l.tree, l.services
		if !slices.Contains(m.rows(), m.selected) {
			m.selected, m.output = l.tree.Leader, nil
		}
	}
	m.samples = append(m.samples, s)
	m.samples = m.samples[max(0, len(m.samples)-history):]
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

// order returns the members in the order of the list, with the leader first.
func (m *Model) order() []tree.Member {
	if m.tree == nil {
		return nil
	}
	out := slices.Clone(m.tree.Members)
	slices.SortStableFunc(out, func(a, b tree.Member) int {
		switch m.tree.Leader {
		case a.Address:
			return -1
		case b.Address:
			return 1
		}
		return 0
	})
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
	return out
}

// rows returns what can be selected, in the order of the screen.
func (m *Model) rows() []string {
	var out []string
	for _, x := range m.order() {
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
	if m.asking != nil {
		q := m.asking
		m.asking = nil
		if k != "y" {
			m.said, m.saidBad = "cancelled", false
			return nil
		}
		m.said, m.saidBad = "...", false
		return func() tea.Msg {
			ctx, cancel := context.WithTimeout(context.Background(), patience)
			defer cancel()
			text, err := q.do(ctx)
			return done{text: text, err: err}
		}
	}
	switch k {
	case "q", "esc", "ctrl+c":
		return tea.Quit
	case "up", "down", "tab":
		m.move(k == "up")
	case "l":
		return m.togglePane()
	default:
		m.offer(k)
	}
	return nil
}

// move selects another row. While output is shown, the rows are not, so the selection stays.
func (m *Model) move(up bool) {
	all := m.rows()
	if len(all) == 0 || m.output != nil {
		return
	}
	at := slices.Index(all, m.selected)
	if up {
		at += len(all) - 1
	} else {
		at++
	}
	m.selected = all[at%len(all)]
}

// togglePane shows the output of the selected instance, or the lists again.
func (m *Model) togglePane() tea.Cmd {
	i, ok := m.instance()
	switch {
	case m.output != nil:
		m.output = nil
	case ok:
		m.output = &pane{instance: i.ID}
		return m.read(m.output)
	case m.tree != nil:
		m.said, m.saidBad = "select an instance of a service to see its output", true
	}
	return nil
}

// offer asks for confirmation of the change that belongs to a key.
func (m *Model) offer(k string) {
	if m.tree == nil {
		return
	}
	switch k {
	case "+", "=", "-":
		m.offerScale(k)
		return
	}
	if i, ok := m.instance(); ok {
		m.offerInstance(k, i)
		return
	}
	all := m.order()
	if at := slices.IndexFunc(all, func(x tree.Member) bool { return x.Address == m.selected }); at >= 0 {
		m.offerMember(k, all[at])
	}
}

func (m *Model) offerInstance(k string, i ps.Instance) {
	c, id, what := m.cluster, i.ID, i.ID
	if i.PID != 0 {
		what = fmt.Sprintf("%s (pid %d)", i.ID, i.PID)
	}
	ask := func(text string, action member.Action) {
		m.asking = &question{text, func(ctx context.Context) (string, error) { return c.Act(ctx, action, id) }}
	}
	switch k {
	case "s":
		ask(fmt.Sprintf("Start %s?", what), member.ActionStart)
	case "x":
		ask(fmt.Sprintf("Stop %s?", what), member.ActionStop)
	case "r":
		ask(fmt.Sprintf("Restart %s?", what), member.ActionRestart)
	case "k":
		ask(fmt.Sprintf("Kill all processes of %s with SIGKILL?", what), member.ActionKill)
	case "p":
		m.said, m.saidBad = "select a member to hand the leadership over to", true
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
			m.said, m.saidBad = "cannot hand over: no follower is in sync", true
			return
		}
		m.asking = &question{fmt.Sprintf("Hand the leadership over to %s?", to),
			func(ctx context.Context) (string, error) { return c.Promote(ctx, to) }}
	case "k":
		m.asking = &question{fmt.Sprintf("Kill %s (%s, pid %d) with SIGKILL?", victim.Address, victim.Role, victim.PID),
			func(ctx context.Context) (string, error) { return c.Kill(ctx, victim.Address) }}
	case "s", "x", "r":
		m.said, m.saidBad = "select an instance of a service to start, stop or restart it", true
	}
}

func (m *Model) offerScale(k string) {
	c := m.cluster
	switch k {
	case "+", "=":
		m.asking = &question{fmt.Sprintf("Add a follower (%d -> %d)?", m.tree.Followers, m.tree.Followers+1),
			func(ctx context.Context) (string, error) { return c.Scale(ctx, 1) }}
	case "-":
		if m.tree.Followers == 0 {
			m.said, m.saidBad = "cannot remove a follower: there is none", true
			return
		}
		m.asking = &question{fmt.Sprintf("Remove a follower (%d -> %d)?", m.tree.Followers, m.tree.Followers-1),
			func(ctx context.Context) (string, error) { return c.Scale(ctx, -1) }}
	}
}
