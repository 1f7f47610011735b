package e2e

import (
	"encoding/json"
	"fmt"
	"strings"
	"testing"

	"github.com/chromedp/chromedp"
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

// The page's actions on services need the token and the present epoch, and a service that exists.
func TestPageChangesServices(t *testing.T) {
	address, token := freeAddress(t), "0123456789abcdef"
	c := newCluster(t, withDashboard(address), withServices(t, "service \"web\" { "+sleeper+" }\n"))
	c.up("--dashboard-token-file", writeToken(t, token))
	c.full()
	c.awaitState("ready", "web/1")
	before := c.instance("web/1").PID
	for _, r := range []struct {
		token, body string
		code        int
		want        string
	}{
		{"", `{"epoch":1,"name":"web/1"}`, 401, "token"},
		{token, `{"epoch":2,"name":"web/1"}`, 409, "epoch 1"},
		{token, `{"epoch":1,"name":"nope"}`, 409, "there is no service"},
		{token, `{"epoch":1}`, 409, "there is no service"},
	} {
		for _, action := range []string{"start", "stop", "restart"} {
			if code, text := post(t, address, "/api/services/"+action, r.token, r.body); code != r.code || !strings.Contains(text, r.want) {
				t.Errorf("%s %s: %d %s", action, r.body, code, text)
			}
		}
	}
	if i := c.instance("web/1"); i.PID != before || i.State != "ready" {
		t.Fatalf("a refused action changed the instance: %+v", i)
	}
	for _, step := range []struct{ action, state string }{{"restart", "ready"}, {"stop", "stopped"}, {"start", "ready"}} {
		if code, text := post(t, address, "/api/services/"+step.action, token, `{"epoch":1,"name":"web/1"}`); code != 200 || text != step.action+" web/1: accepted" {
			t.Errorf("%s: %d %s", step.action, code, text)
		}
		eventually(t, step.action, func() bool {
			i := c.instance("web/1")
			return i.State == step.state && i.PID != before
		})
	}
}

// The page shows the services through a takeover, and has buttons for them once the token is there.
func TestPageShowsServices(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a browser")
	}
	address := freeAddress(t)
	b := newBrowser(t, address)
	token := "a token that nobody guesses"
	c := newCluster(t, withDashboard(address), withServices(t, "service \"web\" { "+sleeper+" }\n"))
	c.up("--dashboard-token-file", writeToken(t, token))
	first := c.full()
	c.awaitState("ready", "web/1")
	b.run(chromedp.Navigate("http://" + address + "/"))
	const row = `tr[data-instance="web/1"]`
	shows := func(state string) {
		t.Helper()
		b.await(state+" on the page", fmt.Sprintf(`document.querySelector('%s')?.cells[1].textContent === %q`, row, state))
	}
	shows("ready")
	if b.eval(`document.querySelectorAll("#instances button").length + " " + document.getElementById("services").hidden`) != "0 false" {
		t.Error("there are buttons without the token, or the section is hidden")
	}
	c.kill(leaderOf(first))
	b.await("the next leader", `document.getElementById("epoch").textContent === "2"`)
	shows("ready")
	b.run(chromedp.SetValue(chromedp.CSS("#token"), token))
	b.click("#login button")
	press := func(button string) {
		t.Helper()
		b.await("the button "+button, fmt.Sprintf(`(document.querySelector('%s button.%s')?.click(), document.getElementById("ask").open)`, row, button))
		b.click("#yes")
	}
	press("stop")
	shows("stopped")
	b.shot("services")
	press("start")
	shows("ready")
	before := c.instance("web/1").PID
	press("restart")
	eventually(t, "another process", func() bool {
		i := c.instance("web/1")
		return i.State == "ready" && i.PID != before
	})
	b.sound()
}

// Without services, the page has no section for them.
func TestPageWithoutServices(t *testing.T) {
	if testing.Short() {
		t.Skip("takes a browser")
	}
	address := freeAddress(t)
	b := newBrowser(t, address)
	c := newCluster(t, withDashboard(address))
	c.up()
	c.full()
	b.run(chromedp.Navigate("http://" + address + "/"))
	b.await("the services", `state.services !== null`)
	if b.eval(`document.getElementById("services").hidden`) != "true" {
		t.Error("the section is shown")
	}
	b.sound()
}
