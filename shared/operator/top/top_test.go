package top

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	tea "charm.land/bubbletea/v2"
	"github.com/charmbracelet/x/ansi"

	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/observe/meter"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/operator/term"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// fake is a cluster that records the requests and answers as the test sets it up.
type fake struct {
	tree     *tree.Tree
	services *ps.Report
	hosts    *hosts.List
	hostsErr error
	output   []string
	err      error
	events   []events.Event
	did      []string
}

func (f *fake) State(context.Context) (*tree.Tree, *ps.Report, error) {
	if f.err != nil {
		return nil, nil, f.err
	}
	t := *f.tree
	return &t, f.services, nil
}
func (f *fake) Hosts(context.Context) (*hosts.List, error) { return f.hosts, f.hostsErr }
func (f *fake) Events() ([]events.Event, error)            { es := f.events; f.events = nil; return es, nil }
func (f *fake) do(what string) (string, error) {
	f.did = append(f.did, what)
	return "did " + what, f.err
}
func (f *fake) Promote(_ context.Context, a string) (string, error) { return f.do("promote " + a) }
func (f *fake) Scale(_ context.Context, by int) (string, error) {
	return f.do(fmt.Sprint("scale ", by))
}
func (f *fake) Kill(_ context.Context, a string) (string, error) { return f.do("kill " + a) }
func (f *fake) Act(_ context.Context, action member.Action, instance string) (string, error) {
	return f.do(string(action) + " " + instance)
}
func (f *fake) Output(_ context.Context, instance string, lines int) ([]string, error) {
	if f.err != nil {
		return nil, f.err
	}
	return append([]string{"output of " + instance}, f.output[max(len(f.output)-lines, 0):]...), nil
}

var start = time.Date(2026, 1, 2, 3, 4, 5, 0, time.Local)

func cluster() *fake {
	return &fake{tree: &tree.Tree{Epoch: 2, Leader: "127.0.0.1:7401", Heir: "127.0.0.1:7402", Client: "127.0.0.1:2379", Followers: 2,
		Takeovers: 1, Restarts: 3, At: start,
		Store: &tree.Store{Keys: 123456, Revision: 234567, UsedBytes: 34 << 20, FileBytes: 40 << 20, QuotaBytes: 2 << 30, DiskFreeBytes: 12 << 30, Connections: 3, Watchers: 15},
		Members: []tree.Member{
			{Address: "127.0.0.1:7401", PID: 101, Role: "leader", State: "serving", UptimeMS: 65000, RSSBytes: 34 << 20, CPUPercent: 12.34},
			{Address: "127.0.0.1:7402", PID: 102, Role: "follower", State: "in_sync", UptimeMS: 3600000, RSSBytes: 32 << 20, HeartbeatAgeMS: 120, Restarts: 1},
			{Address: "127.0.0.1:7403", PID: 103, Role: "follower", State: "starting", UptimeMS: 800, Lag: 17, RSSBytes: 30 << 20},
		}}}
}

// run runs a command and the commands that follow from it, but does not wait for the next second.
func run(m *Model, cmd tea.Cmd) {
	for cmd != nil {
		msg := cmd()
		if _, isTick := msg.(tick); isTick {
			return
		}
		_, next := m.Update(msg)
		switch msg.(type) {
		case looked, linesRead: // what follows waits for the next second
			return
		}
		cmd = next
	}
}

func press(t *testing.T, m *Model, keys ...string) {
	t.Helper()
	for _, k := range keys {
		msg := tea.KeyPressMsg{Text: k, Code: []rune(k)[0]}
		switch k {
		case "up":
			msg = tea.KeyPressMsg{Code: tea.KeyUp}
		case "esc":
			msg = tea.KeyPressMsg{Code: tea.KeyEscape}
		case "pgup":
			msg = tea.KeyPressMsg{Code: tea.KeyPgUp}
		case "down":
			msg = tea.KeyPressMsg{Code: tea.KeyDown}
		}
		if msg.String() != k {
			t.Fatalf("the message for key %q is %q", k, msg.String())
		}
		_, cmd := m.Update(msg)
		run(m, cmd)
	}
}

// newModel returns a model whose clock is that of the cluster.
func newModel(f *fake) *Model {
	m := New(f, term.Style{})
	m.clock = func() time.Time { return f.tree.At }
	return m
}

// second lets one second pass, in which the given numbers of requests were answered.
func second(m *Model, f *fake, reads, writes int, took time.Duration) {
	var r meter.Requests
	for range reads {
		r.Done(meter.Read, took, false)
	}
	for range writes {
		r.Done(meter.Write, took, false)
	}
	d := r.Snapshot()
	was := &f.tree.Load
	for _, c := range []meter.Class{meter.Read, meter.Write} {
		a, b := was.Of(c), d.Of(c)
		sum := map[float64]uint64{}
		for _, x := range append(append([]meter.Bucket{}, a.Buckets...), b.Buckets...) {
			sum[x.LE] += x.N
		}
		a.Count += b.Count
		a.Buckets = nil
		for le, n := range sum {
			a.Buckets = append(a.Buckets, meter.Bucket{LE: le, N: n})
		}
	}
	f.tree.At = f.tree.At.Add(time.Second)
	run(m, m.look)
}

// lived returns a model that has seen one minute with a death and a takeover.
func lived(f *fake) *Model {
	m := newModel(f)
	f.events = []events.Event{{At: start, Epoch: 1, Kind: "started", Member: "127.0.0.1:7400", Detail: "version v1"}}
	run(m, m.look)
	for i := range 60 {
		f.tree.Members[2].Lag = uint64(i % 20)
		switch i {
		case 30:
			f.events = []events.Event{{At: start.Add(30 * time.Second), Epoch: 2, Kind: "member_died", Member: "127.0.0.1:7403", Detail: "signal: killed"}}
		case 40:
			f.tree.Epoch++
			f.tree.Load = meter.Load{}
			f.events = []events.Event{{At: start.Add(40 * time.Second), Epoch: 3, Kind: "serving", Member: "127.0.0.1:7401", Detail: "succeeds a leader that ended: signal: killed", Seconds: .0123}}
		}
		second(m, f, 100+i, 10*i, time.Duration(i+1)*100*time.Microsecond)
	}
	return m
}

// sizes are the sizes of the screens in testdata.
var sizes = [][2]int{{59, 40}, {60, 14}, {80, 24}, {80, 50}, {120, 40}, {200, 60}}

func TestScreens(t *testing.T) {
	for _, size := range sizes {
		m := lived(cluster())
		checkScreen(t, m, size, fmt.Sprintf("%dx%d.txt", size[0], size[1]))
	}
}

// checkScreen compares a screen with a golden file.
func checkScreen(t *testing.T, m *Model, size [2]int, file string) {
	t.Helper()
	m.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
	screen := m.render()
	for i, l := range strings.Split(screen, "\n") {
		if utf8.RuneCountInString(l) > size[0] || i >= size[1] {
			t.Errorf("%v: line %d does not fit: %q", size, i, l)
		}
	}
	golden := filepath.Join("testdata", file)
	if *update {
		if err := os.WriteFile(golden, []byte(screen+"\n"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	want, err := os.ReadFile(golden)
	if err != nil {
		t.Fatal(err)
	}
	if screen+"\n" != string(want) {
		t.Errorf("%v: got\n%s\nwant\n%s\n(rewrite it with -update)", size, screen, want)
	}
	// The text is the same with colours.
	m.style.Colour = true
	if got := ansi.Strip(m.render()); got != screen {
		t.Errorf("%v: in colour\n%s", size, got)
	}
	m.style.Colour = false
}

func TestMeasures(t *testing.T) {
	f := cluster()
	m := newModel(f)
	run(m, m.look)
	second(m, f, 50, 20, 2*time.Millisecond)
	s := m.samples[1]
	if s.reads != 50 || s.writes != 20 || s.p50 < .002 || s.p50 > .0025 || s.lag != 17 || s.takeover {
		t.Errorf("sample %+v", s)
	}
	second(m, f, 0, 0, 0)
	if s := m.samples[2]; s.reads != 0 || s.writes != 0 || !math.IsNaN(s.p50) {
		t.Errorf("idle: %+v", s)
	}
	// The counts of the next leader are lower, so the rates of that second are unknown.
	f.tree.Epoch, f.tree.Load = 3, meter.Load{}
	second(m, f, 7, 7, time.Millisecond)
	if s := m.samples[3]; !s.takeover || !math.IsNaN(s.reads) {
		t.Errorf("takeover: %+v", s)
	}
	f.err = errors.New("no leader answers")
	second(m, f, 1, 1, 0)
	if s := m.samples[4]; !math.IsNaN(s.lag) || !strings.Contains(m.render(), "NO LEADER ANSWERS") || !strings.Contains(m.render(), "no leader answers") {
		t.Errorf("without an answer: %+v\n%s", s, m.render())
	}
	f.err = nil
	second(m, f, 1, 1, 0)
	if strings.Contains(m.render(), "NO LEADER ANSWERS") {
		t.Errorf("a leader answers again\n%s", m.render())
	}
	for range 2 * history {
		second(m, f, 0, 0, 0)
	}
	if len(m.samples) != history {
		t.Errorf("%d samples are kept, want %d", len(m.samples), history)
	}
}

func TestKeys(t *testing.T) {
	f := cluster()
	m := lived(f)
	for _, c := range []struct {
		keys     []string
		question string
		did      string
	}{
		{[]string{"p"}, "Hand the leadership over to 127.0.0.1:7402?", "promote 127.0.0.1:7402"},
		{[]string{"down", "down", "p"}, "over to 127.0.0.1:7403?", "promote 127.0.0.1:7403"},
		{[]string{"K"}, "Kill 127.0.0.1:7403 (follower, pid 103) with SIGKILL?", "kill 127.0.0.1:7403"},
		{[]string{"down", "K"}, "Kill 127.0.0.1:7401 (leader, pid 101)", "kill 127.0.0.1:7401"},
		{[]string{"up", "k", "K"}, "Kill 127.0.0.1:7402", "kill 127.0.0.1:7402"},
		{[]string{"+"}, "Add a follower (2 -> 3)?", "scale 1"},
		{[]string{"-"}, "Remove a follower (2 -> 1)?", "scale -1"},
	} {
		for _, no := range []string{"n", "q", "x"} { // any other key, even the one that quits
			before := len(f.did)
			press(t, m, c.keys...)
			if !strings.Contains(m.render(), c.question) {
				t.Fatalf("%v does not ask %q:\n%s", c.keys, c.question, m.render())
			}
			press(t, m, no)
			if len(f.did) != before || strings.Contains(m.render(), c.question) {
				t.Fatalf("%v and %q: did %v", c.keys, no, f.did[before:])
			}
			c.keys = c.keys[len(c.keys)-1:] // keep only the last key: the member is selected now
		}
		press(t, m, c.keys[0], "y")
		if got := f.did[len(f.did)-1]; got != c.did || !strings.Contains(m.render(), "did "+c.did) {
			t.Errorf("%v did %q, want %q\n%s", c.keys, got, c.did, m.render())
		}
	}
	f.err = errors.New("refused: not now")
	press(t, m, "+", "y")
	if !strings.Contains(m.render(), "refused: not now") {
		t.Errorf("the refusal is not shown\n%s", m.render())
	}
	f.err = nil
	m.tree.Heir, m.selected = "", m.tree.Leader
	press(t, m, "p")
	if m.question != nil || !strings.Contains(m.render(), "cannot hand over: no follower is in sync") {
		t.Errorf("without an heir\n%s", m.render())
	}
	press(t, m, "x", "Y", "enter"[:1])
	if m.question != nil {
		t.Error("a key without a function asks a question")
	}
	_, cmd := m.Update(tea.KeyPressMsg{Text: "q", Code: 'q'})
	if cmd == nil {
		t.Fatal("q does nothing")
	}
	if _, quit := cmd().(tea.QuitMsg); !quit {
		t.Error("q does not quit")
	}
}

// TestHelp: a key shows all keys until the next one.
func TestHelp(t *testing.T) {
	m := lived(cluster())
	press(t, m, "?")
	for _, size := range [][2]int{{80, 24}, {60, 14}} {
		checkScreen(t, m, size, fmt.Sprintf("help-%dx%d.txt", size[0], size[1]))
	}
	press(t, m, "K")
	if m.help || m.question != nil {
		t.Errorf("after another key\n%s", m.render())
	}
}

// TestOutage: while no leader answers, the screen says since when, what it shows is marked as old, and
// nothing can be changed.
func TestOutage(t *testing.T) {
	f := withServices(cluster())
	m := lived(f)
	at := f.tree.At
	m.clock = func() time.Time { return at }
	f.did = nil
	press(t, m, "K") // the question is open when the outage begins
	f.err = errors.New("no leader answers in /data within 3s: connection refused")
	at = at.Add(3 * time.Second)
	run(m, m.look)
	press(t, m, "y")
	if len(f.did) > 0 || !strings.Contains(m.render(), noChange) {
		t.Errorf("a member was killed during an outage: %v\n%s", f.did, m.render())
	}
	for _, size := range sizes[1:] {
		checkScreen(t, m, size, fmt.Sprintf("outage-%dx%d.txt", size[0], size[1]))
	}
	for _, k := range []string{"K", "p", "+", "-", "s", "x", "r"} {
		m.say("")
		press(t, m, k)
		if m.question != nil || m.said != noChange {
			t.Errorf("%s asks %+v during an outage, and says %q", k, m.question, m.said)
		}
	}
	m.style.Colour = true
	if got := m.render(); strings.Contains(got, "\x1b[32mserving") || !strings.Contains(got, "\x1b[2m  127.0.0.1:7402 heir") {
		t.Errorf("the old values are not grey:\n%s", got)
	}
	m.style.Colour = false
	press(t, m, "K")
	f.err = errors.New("no leader answers: nothing runs in /data; 'dynast up' starts it")
	run(m, m.look)
	if got := m.render(); !strings.Contains(got, "The grey values are old: no leader answers: nothing runs in /data; 'dynast up' starts it.") {
		t.Errorf("when nothing runs\n%s", got)
	}
	f.err = nil
	run(m, m.look)
	if got := m.render(); strings.Contains(got, "NO LEADER") || strings.Contains(got, "?  ") || strings.Contains(got, "grey") || strings.Contains(got, noChange) {
		t.Errorf("a leader answers again\n%s", got)
	}
}

// TestSilence: a leader that is stopped keeps its connections open and answers nothing. The screen says
// so before the request fails, and the graphs have a gap.
func TestSilence(t *testing.T) {
	f := cluster()
	m := lived(f)
	before := len(m.samples)
	m.asking = true // a request is under way
	for i := range 3 {
		m.Update(tick{f.tree.At.Add(time.Duration(i+1) * time.Second)})
	}
	got := m.render()
	if !strings.Contains(got, "NO LEADER ANSWERS since 03:05:05 (3s)") || !strings.Contains(got, "serving?") || !strings.Contains(got, "'dynast logs'") {
		t.Errorf("got\n%s", got)
	}
	if len(m.samples) != before+3 || !math.IsNaN(m.samples[before].lag) {
		t.Errorf("%d samples, want %d: %+v", len(m.samples), before+3, m.samples[before:])
	}
	press(t, m, "K")
	if m.question != nil {
		t.Error("a change is offered")
	}
}

func TestBeforeTheFirstAnswer(t *testing.T) {
	f := cluster()
	f.err = errors.New("nothing runs")
	m := newModel(f)
	if got := m.render(); !strings.Contains(got, "waiting for the leader") {
		t.Errorf("%q", got)
	}
	press(t, m, "K", "p", "up", "down", "l", "o", "?", "x", "+") // there is no member yet, so these keys do nothing
	run(m, m.look)
	if got := m.render(); !strings.Contains(got, "nothing runs") {
		t.Errorf("%q", got)
	}
}

func TestBars(t *testing.T) {
	got := strings.Join(bars([]float64{math.NaN(), 0, 1, 8, 16}, 6, 2, 16), "\n")
	if want := "     █\n   ▁██"; got != want {
		t.Errorf("got\n%s\nwant\n%s", got, want)
	}
	for v, want := range map[float64]float64{0: 1, 1: 1, 1.1: 2, 3: 5, 6: 10, 99: 100, 101: 200} {
		if got := ceiling([]float64{v, math.NaN()}, 1); got != want {
			t.Errorf("ceiling of %g is %g, want %g", v, got, want)
		}
	}
	for v, want := range map[float64]string{0: "0", 12.34: "12.3", 123.4: "123", 12345: "12.3k", 1234567: "1.2M", math.NaN(): "-"} {
		if got := number(v); got != want {
			t.Errorf("%g is %s, want %s", v, got, want)
		}
	}
}
