package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"
)

// The tree shows the services below the members, but not as JSON.
func TestTreeShowsServices(t *testing.T) {
	c := newCluster(t, withServices(t, "service \"web\" { "+sleeper+" }\n"))
	c.up()
	c.awaitState("ready", "web/1")
	out := c.output("tree", "--config", c.config)
	_, table, found := strings.Cut(out, "\n\nSERVICE")
	if !found || !strings.Contains(table, "\nweb/1 ") || !strings.Contains(table, "  ready  ") {
		t.Errorf("got\n%s", out)
	}
	await(t, c.follow("tree", "--config", c.config, "--watch"), "web/1")
	var fields map[string]any
	if err := json.Unmarshal([]byte(c.output("tree", "--config", c.config, "--json")), &fields); err != nil || fields["services"] != nil || fields["epoch"] == nil {
		t.Errorf("as JSON: %v, %v", fields, err)
	}
}

// The terminal dashboard shows the output of an instance and restarts and stops it.
func TestTopChangesServices(t *testing.T) {
	c := newCluster(t, withServices(t, "service \"web\" { "+sleeper+" }\n"))
	c.up()
	c.full()
	c.awaitState("ready", "web/1")
	before := c.instance("web/1").PID
	s := c.terminal("top", "--config", c.config)
	shows := func(what string) {
		t.Helper()
		eventually(t, what+" on the screen", func() bool { return strings.Contains(s.text(), what) })
	}
	shows("web/1")
	s.press(t, "\x1b[A") // up, from the leader to the last row
	shows("x stop")
	s.press(t, "l")
	shows(fmt.Sprintf("pid %d", before))
	s.press(t, "l")
	s.press(t, "r")
	shows(fmt.Sprintf("Restart web/1 (pid %d)?", before))
	s.press(t, "y")
	eventually(t, "another process", func() bool {
		i := c.instance("web/1")
		return i.State == "ready" && i.PID != before
	})
	shows("restart web/1: accepted")
	s.press(t, "x")
	shows("Stop web/1")
	s.press(t, "y")
	c.awaitState("stopped", "web/1")
	s.press(t, "q")
	if err := <-s.ended; err != nil {
		t.Errorf("top: %v\n%s", err, tail(s.text(), 5000))
	}
}
