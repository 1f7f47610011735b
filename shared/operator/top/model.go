package top

import (
	"context"
	"fmt"
	"math"
	"slices"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/dynast-io/dynast/shared/observe/events"
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
)

// Cluster is the cluster that the dashboard shows and changes.
type Cluster interface {
	// Tree returns the current state of the cluster.
	Tree(ctx context.Context) (*tree.Tree, error)
	// Events returns the events since the last call. The first call returns all past events.
	Events() ([]events.Event, error)
	// Promote, Scale and Kill change the cluster and return a message about the result.
	Promote(ctx context.Context, address string) (string, error)
	Scale(ctx context.Context, by int) (string, error)
	Kill(ctx context.Context, address string) (string, error)
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
	tree          *tree.Tree // the last known tree
	problem       error      // why there is no newer tree
	samples       []sample
	events        []events.Event
	seenEvents    bool
	deaths        int // since the last sample

	selected string // address
	asking   *question
	said     string
	saidBad  bool
}

// question is a change that waits for the confirmation of the user.
type question struct {
	text string
	do   func(context.Context) (string, error)
}

// The messages of the model.
type (
	tick   struct{}
	looked struct {
		tree   *tree.Tree
		events []events.Event
		err    error
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
	t, err := m.cluster.Tree(ctx)
	es, eventsErr := m.cluster.Events()
	if err == nil {
		err = eventsErr
	}
	return looked{tree: t, events: es, err: err}
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
	s := sample{reads: math.NaN(), writes: math.NaN(), p50: math.NaN(), p99: math.NaN(), lag: math.NaN(), deaths: m.deaths}
	m.deaths = 0
	if l.tree != nil {
		m.measure(&s, l.tree)
		m.tree = l.tree
		if !slices.ContainsFunc(m.order(), func(x tree.Member) bool { return x.Address == m.selected }) {
			m.selected = l.tree.Leader
		}
	}
	m.samples = append(m.samples, s)
	m.samples = m.samples[max(0, len(m.samples)-history):]
}

// measure compares a tree with the previous one. After a takeover, the rates of the second are
// unknown, because the counts of the new leader started at zero.
func (m *Model) measure(s *sample, now *tree.Tree) {
	s.lag = 0
	for _, member := range now.Members {
		s.lag = max(s.lag, float64(member.Lag))
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
	default:
		m.offer(k)
	}
	return nil
}

func (m *Model) move(up bool) {
	all := m.order()
	at := slices.IndexFunc(all, func(x tree.Member) bool { return x.Address == m.selected })
	if len(all) == 0 {
		return
	}
	if up {
		at += len(all) - 1
	} else {
		at++
	}
	m.selected = all[at%len(all)].Address
}

// offer asks for confirmation of the change that belongs to a key.
func (m *Model) offer(k string) {
	all := m.order()
	at := slices.IndexFunc(all, func(x tree.Member) bool { return x.Address == m.selected })
	if at < 0 {
		return
	}
	victim, c := all[at], m.cluster
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
