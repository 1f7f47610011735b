package top

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	tea "charm.land/bubbletea/v2"

	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/operator/term"
)

// withServices adds three services to a cluster.
func withServices(f *fake) *fake {
	f.services = &ps.Report{At: start, Services: []ps.Service{
		{Name: "web", Instances: []ps.Instance{
			{ID: "web/1", PID: 201, State: "ready", UptimeMS: 65000, CPU: 3.21, RSSBytes: 50 << 20, Status: "serving"},
			{ID: "web/2", State: "backoff", Restarts: 7, LastExit: &ps.Exit{Reason: "exited with status 1", At: start.Add(-2 * time.Second)}},
		}},
		{Name: "idle"},
		{Name: "worker", Instances: []ps.Instance{{ID: "worker/1", State: "stopped"}}},
	}}
	return f
}

func TestScreensWithServices(t *testing.T) {
	for _, size := range sizes[1:] {
		m := lived(withServices(cluster()))
		press(t, m, "down", "down", "down", "down") // web/2
		checkScreen(t, m, size, fmt.Sprintf("services-%dx%d.txt", size[0], size[1]))
	}
}

// TestInstanceKeys: the selection moves over members and instances, and keys change the selected
// instance after a question.
func TestInstanceKeys(t *testing.T) {
	f := withServices(cluster())
	m := lived(f)
	for _, c := range []struct {
		keys          []string
		question, did string
	}{
		{[]string{"down", "down", "down", "x"}, "Stop web/1 (pid 201)?", "stop web/1"},
		{[]string{"r"}, "Restart web/1 (pid 201)?", "restart web/1"},
		{[]string{"K"}, "Kill all processes of web/1 (pid 201) with SIGKILL?", "kill web/1"},
		{[]string{"down", "s"}, "Start web/2?", "start web/2"},
		{[]string{"down", "s"}, "Start worker/1?", "start worker/1"},
		{[]string{"+"}, "Add a follower (2 -> 3)?", "scale 1"},
		{[]string{"j", "K"}, "Kill 127.0.0.1:7401", "kill 127.0.0.1:7401"},
		{[]string{"up", "x"}, "Stop worker/1?", "stop worker/1"},
	} {
		before := len(f.did)
		press(t, m, c.keys...)
		if !strings.Contains(m.render(), c.question) {
			t.Fatalf("%v does not ask %q:\n%s", c.keys, c.question, m.render())
		}
		press(t, m, "n")
		if len(f.did) != before {
			t.Fatalf("%v and no: did %v", c.keys, f.did[before:])
		}
		press(t, m, c.keys[len(c.keys)-1], "y")
		if got := f.did[len(f.did)-1]; got != c.did || !strings.Contains(m.render(), "did "+c.did) {
			t.Errorf("%v did %q, want %q\n%s", c.keys, got, c.did, m.render())
		}
	}
	press(t, m, "p")
	if m.question != nil || !strings.Contains(m.render(), "select a member") {
		t.Errorf("p on an instance\n%s", m.render())
	}
	// An instance that is gone is no longer selected.
	f.services = nil
	second(m, f, 0, 0, 0)
	if m.selected != m.tree.Leader || strings.Contains(m.render(), "worker/1  stopped") {
		t.Errorf("without services, %s is selected\n%s", m.selected, m.render())
	}
	for _, k := range []string{"s", "x", "r"} {
		press(t, m, k)
		if m.question != nil || m.output != nil || !strings.Contains(m.render(), "select an instance") {
			t.Errorf("%s on a member\n%s", k, m.render())
		}
	}
}

// TestOutput: the last lines of an instance replace the lists until the key is pressed again.
func TestOutput(t *testing.T) {
	f := withServices(cluster())
	for i := range 1000 {
		f.output = append(f.output, fmt.Sprintf("line %d\tof \x1b[31mred\x1b[0m \x1b[2Jtext", i))
	}
	m := lived(f)
	press(t, m, "up", "l")
	got := m.render()
	for _, want := range []string{"OUTPUT OF worker/1", "line 999    of red \ufffd[2Jtext", "l back"} {
		if !strings.Contains(got, want) {
			t.Errorf("%q is missing in\n%s", want, got)
		}
	}
	if lines := strings.Count(got, "line "); lines != 24-7 || strings.Contains(got, "PROCESS") || m.selected != "worker/1" {
		t.Errorf("%d lines, %s selected:\n%s", lines, m.selected, got)
	}
	m.style = term.Style{Colour: true}
	if !strings.Contains(m.render(), "\x1b[31mred") {
		t.Errorf("the colours of the program are lost\n%s", m.render())
	}
	m.style = term.Style{}

	// The pane scrolls, and the selection does not move.
	press(t, m, "k", "up", "pgup")
	if got := m.render(); !strings.Contains(got, "12 lines below") || !strings.Contains(got, "line 987") || strings.Contains(got, "line 988") || m.selected != "worker/1" {
		t.Errorf("after scrolling back:\n%s", got)
	}
	press(t, m, "g")
	if got := m.render(); !strings.Contains(got, "output of worker/1") {
		t.Errorf("at the top:\n%s", got)
	}
	press(t, m, "G")
	if got := m.render(); !strings.Contains(got, "line 999") || strings.Contains(got, "below") {
		t.Errorf("at the end:\n%s", got)
	}

	// The pane is read again every second, and keeps its lines if that fails.
	f.output = append(f.output, "newest")
	again := func() tea.Cmd { _, cmd := m.Update(readAgain{m.output}); return cmd }
	run(m, again())
	if !strings.Contains(m.render(), "newest") {
		t.Errorf("the new line is missing\n%s", m.render())
	}
	f.err = errors.New("cannot read the output")
	run(m, again())
	if got := m.render(); !strings.Contains(got, "cannot read the output") || !strings.Contains(got, "newest") {
		t.Errorf("after an error\n%s", got)
	}
	f.err = nil

	// Lines for a pane that is closed do not come back.
	closed := m.output
	press(t, m, "l")
	for _, msg := range []tea.Msg{readAgain{closed}, linesRead{pane: closed}} {
		if _, cmd := m.Update(msg); cmd != nil {
			t.Errorf("%T for a closed pane is followed by a request", msg)
		}
	}
	if got := m.render(); strings.Contains(got, "newest") || !strings.Contains(got, "PROCESS") {
		t.Errorf("after the second l\n%s", got)
	}
	press(t, m, "l")
	f.services = nil
	second(m, f, 0, 0, 0)
	if m.output != nil {
		t.Error("the output of an instance that is gone is shown")
	}
}

// TestLogOfAMember: the key for the output shows the log of a member.
func TestLogOfAMember(t *testing.T) {
	f := withServices(cluster())
	m := lived(f)
	press(t, m, "down", "l")
	if got := m.render(); !strings.Contains(got, "LOG OF 127.0.0.1:7402") || !strings.Contains(got, "output of 127.0.0.1:7402") {
		t.Errorf("got\n%s", got)
	}
	press(t, m, "esc")
	if got := m.render(); m.output != nil || !strings.Contains(got, "PROCESS") {
		t.Errorf("after esc\n%s", got)
	}
}

// TestSort: a key cycles through the orders, and the head of the column says which one it is.
func TestSort(t *testing.T) {
	f := withServices(cluster())
	f.tree.Members[2].CPUPercent = 50
	m := lived(f)
	for _, c := range []struct{ head, first, service string }{
		{"CPU▼", "127.0.0.1:7403", "web/1"}, {"MEM▼", "127.0.0.1:7401", "web/1"}, {"UP▼", "127.0.0.1:7402", "web/1"}, {"RESTARTS▼", "127.0.0.1:7402", "web/2"}, {"CPU ", "127.0.0.1:7401", "web/1"},
	} {
		press(t, m, "o")
		got := m.render()
		lines := strings.Split(got, "\n")
		after := func(head string) string {
			return lines[1+slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "  "+head) })]
		}
		if !strings.Contains(got, c.head) || !strings.Contains(after("PROCESS"), c.first) || !strings.Contains(after("SERVICE"), c.service) ||
			m.rows()[0] != c.first || m.rows()[3] != c.service {
			t.Errorf("sorted by %s:\n%s", c.head, got)
		}
	}
	if m.selected != m.tree.Leader {
		t.Errorf("%s is selected", m.selected)
	}
}

// TestLongLists: the heads and the selected row are on the screen, however many instances there are.
func TestLongLists(t *testing.T) {
	f := withServices(cluster())
	many := ps.Service{Name: "many"}
	for i := range 50 {
		many.Instances = append(many.Instances, ps.Instance{ID: fmt.Sprintf("many/%d", i+1), State: "ready"})
	}
	f.services.Services = append(f.services.Services, many)
	m := lived(f)
	for _, size := range sizes[1:] {
		m.Update(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		for range m.rows() {
			press(t, m, "down")
			got := m.render()
			if !strings.Contains(got, "\n> "+m.selected) || strings.Count(got, "\n") != size[1]-1 ||
				!strings.Contains(got, "\n  PROCESS  ") || !strings.Contains(got, "\n  SERVICE  ") || !strings.Contains(got, "dynast  live") {
				t.Fatalf("%v: %s is selected:\n%s", size, m.selected, got)
			}
		}
	}
}
