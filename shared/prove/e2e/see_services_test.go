package e2e

import (
	"encoding/json"
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
