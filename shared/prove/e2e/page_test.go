package e2e

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/log"
	"github.com/chromedp/cdproto/network"
	"github.com/chromedp/cdproto/runtime"
	"github.com/chromedp/chromedp"

	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// browser is a page in a headless Chromium.
type browser struct {
	t   *testing.T
	ctx context.Context

	watching sync.WaitGroup
	mu       sync.Mutex
	// problems are errors in the page's console, and requests to other hosts.
	problems []string
	// findings are those of axe-core.
	findings []string
}

// newBrowser starts its own Chromium. Without Chromium the test is skipped.
func newBrowser(t *testing.T, host string) *browser {
	t.Helper()
	path := ""
	for _, name := range []string{"chromium", "chromium-browser", "google-chrome"} {
		if p, err := exec.LookPath(name); err == nil && path == "" {
			path = p
		}
	}
	if path == "" {
		t.Skip("needs Chromium: install it with 'apt-get install chromium'")
	}
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(path), chromedp.NoSandbox, chromedp.DisableGPU, chromedp.UserDataDir(t.TempDir()),
		chromedp.Flag("disable-background-networking", true), chromedp.Flag("disable-component-update", true),
		chromedp.Flag("disable-sync", true), chromedp.NoFirstRun, chromedp.WindowSize(1300, 1150))
	alloc, endAlloc := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, endTab := chromedp.NewContext(alloc)
	b := &browser{t: t, ctx: ctx}
	t.Cleanup(func() { endTab(); endAlloc(); b.watching.Wait() })
	// The first call starts the browser, and the end of its context stops the browser.
	if err := chromedp.Do(ctx); err != nil {
		t.Fatalf("start %s: %v", path, err)
	}
	watch(b, log.EntryAdded, func(e log.EventEntryAdded) string {
		// A connection that ended with its leader and a refused action are not errors of the
		// page.
		if e.Entry.Level == log.EntryLevelError && e.Entry.Source != log.EntrySourceNetwork {
			return "console: " + e.Entry.Text
		}
		return ""
	})
	watch(b, runtime.ExceptionThrown, func(e runtime.EventExceptionThrown) string {
		return "exception: " + e.ExceptionDetails.Text
	})
	watch(b, network.RequestWillBeSent, func(e network.EventRequestWillBeSent) string {
		if u := e.Request.URL; !strings.HasPrefix(u, "http://"+host+"/") && !strings.HasPrefix(u, "data:") {
			return "request to " + u
		}
		return ""
	})
	b.run(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, a := cdp.Call(ctx, t, network.Enable, network.EnableParams{})
		_, b := cdp.Call(ctx, t, log.Enable, cdp.Empty{})
		_, c := cdp.Call(ctx, t, runtime.Enable, cdp.Empty{})
		return errors.Join(a, b, c)
	}))
	return b
}

// watch calls judge for events of a kind, and records what it returns as a problem unless it is
// empty.
func watch[E any](b *browser, kind cdp.Event[E], judge func(E) string) {
	events := chromedp.Events(b.ctx, kind)
	b.watching.Go(func() {
		for e, err := range events {
			if err != nil {
				return // the browser has ended
			}
			if p := judge(e); p != "" {
				b.mu.Lock()
				b.problems = append(b.problems, p)
				b.mu.Unlock()
			}
		}
	})
}

func (b *browser) run(steps ...chromedp.Action[chromedp.Void]) {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	if err := chromedp.Do(ctx, steps...); err != nil {
		b.t.Fatalf("browser: %v", err)
	}
}

func (b *browser) click(css string) {
	b.t.Helper()
	b.run(chromedp.Click(chromedp.CSS(css)))
}

// eval evaluates an expression in the page.
func (b *browser) eval(expr string) string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.ctx, patience)
	defer cancel()
	out, err := chromedp.Run(ctx, chromedp.Evaluate[string]("String("+expr+")"))
	if err != nil {
		b.t.Fatalf("browser: %s: %v", expr, err)
	}
	return out
}

func (b *browser) await(what, expr string) {
	b.t.Helper()
	eventually(b.t, what, func() bool { return b.eval(expr) == "true" })
}

// shot saves a picture of the page, if a person wants to look at it.
func (b *browser) shot(name string) {
	dir := os.Getenv("DYNAST_SCREENSHOTS")
	if dir == "" {
		return
	}
	png, err := chromedp.Run(b.ctx, chromedp.FullScreenshot(100))
	if err == nil {
		err = os.WriteFile(filepath.Join(dir, name+".png"), png, 0o644)
	}
	if err != nil {
		b.t.Error(err)
	}
}

func (b *browser) sound() {
	b.t.Helper()
	b.mu.Lock()
	defer b.mu.Unlock()
	for _, p := range b.problems {
		b.t.Error(p)
	}
}

func writeToken(t *testing.T, token string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte(token+"\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	return path
}

func freeAddress(t *testing.T) string { return fmt.Sprintf("127.0.0.1:%d", freePort(t)) }

// traffic writes and reads until the test ends, so that the page has something to show. Errors
// are expected, because leaders die.
func (c *cluster) traffic() {
	cl := c.dial()
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() {
		defer close(done)
		tick := time.NewTicker(5 * time.Millisecond)
		defer tick.Stop()
		for i := 0; ctx.Err() == nil; i++ {
			_, _ = cl.Put(ctx, fmt.Sprint(i%100), "value")
			_, _ = cl.Get(ctx, fmt.Sprint(i%100))
			<-tick.C
		}
	}()
	c.t.Cleanup(func() { cancel(); <-done })
}

// TestPage: an open page continues with the next leader by itself when the leader is killed. With
// the token its buttons kill, hand over and scale.
func TestPage(t *testing.T) {
	if testing.Short() {
		t.Skip("-short skips this test, because it starts a browser")
	}
	address := freeAddress(t)
	b := newBrowser(t, address)
	token := "a token that is hard to guess"
	c := newCluster(t, withDashboard(address))
	c.up("--dashboard-token-file", writeToken(t, token))
	first := c.full()
	c.traffic()
	b.run(chromedp.Navigate("http://" + address + "/"))
	b.await("the leader on the page", fmt.Sprintf(`document.getElementById("leader").textContent === %q`, first.Leader))
	b.await("three processes", `document.querySelectorAll("#processes tbody tr").length === 3`)
	b.await("the heir's mark", fmt.Sprintf(`document.querySelector('tr[data-address=%q] .mark')?.textContent === "heir"`, first.Heir))
	b.await("the facts of the store", `/ keys? · .* of 2 GiB in use · .* disk free · revision /.test(document.getElementById("store").textContent)`)
	b.await("curves", `["requests", "latency", "lag"].every(g => document.querySelectorAll("#graph-" + g + ' path[d^="M"]').length > 0)`)
	if b.eval(`document.querySelectorAll("#processes button").length + " " + document.getElementById("controls").hidden`) != "0 true" {
		t.Error("the page has buttons without the token")
	}
	// The page is not loaded again when its leader dies.
	b.eval(`window.mark = "same page"`)
	c.signal(leaderOf(first), syscall.SIGKILL)
	next := c.wait("the next leader", func(t *tree.Tree) bool { return t.Epoch == 2 }) // on a busy host not always the heir
	b.await("the next leader on the page", fmt.Sprintf(`document.getElementById("leader").textContent === %q && document.getElementById("epoch").textContent === "2"`, next.Leader))
	b.await("the stream", `document.getElementById("link").textContent === "live"`)
	b.await("the death in the list", `document.querySelector('#events tr[data-kind="leader_lost"]') !== null`)
	b.await("the takeover in the timeline", `document.querySelectorAll("#timeline .mark-takeover").length === 1 && document.querySelectorAll("#timeline .mark-death").length >= 1`)
	b.await("the cut in the graphs", `document.querySelectorAll("#graph-requests .cut").length === 1`)
	second := c.wait("the dead member is replaced", func(t *tree.Tree) bool { return t.Epoch == 2 && count(t, "in_sync") == 2 })
	b.await("the replacement on the page", `document.querySelectorAll("#processes tbody tr").length === 3`)
	if b.eval("window.mark") != "same page" {
		t.Error("the page was loaded again after the takeover")
	}
	b.shot("takeover")
	b.actions(c, second, token)
	b.staysInPlace()
	b.judges()
	b.looks("well", "dark", "light")
	b.remembers(address)
	b.outage(c)
	b.sound()
	if logs := c.logText(); strings.Contains(logs, token) || strings.Contains(logs, "not the right one") {
		t.Error("the logs contain a token")
	}
	t.Run("axe-core", func(t *testing.T) {
		if os.Getenv(axeModules) == "" {
			t.Skip("needs the npm package axe-core: npm install --prefix DIR axe-core@4.10.3, and " + axeModules + "=DIR/node_modules")
		}
		for _, f := range b.findings {
			t.Error(f)
		}
	})
}

// actions uses the buttons.
func (b *browser) actions(c *cluster, now *tree.Tree, token string) {
	b.t.Helper()
	unlock := func(token string) {
		b.run(chromedp.SetValue(chromedp.CSS("#token"), token))
		b.click("#login button")
	}
	unlock("not the right one")
	b.await("the refusal", `document.getElementById("said").textContent.includes("wrong token")`)
	unlock(token)
	b.await("the buttons", `document.querySelectorAll("#processes button.kill").length === 3`)
	b.shot("unlocked")
	press := func(button string) {
		// The row may be redrawn at any moment, so the click is done by code in the page.
		b.await("the button "+button, fmt.Sprintf(`(document.querySelector(%q)?.click(), document.getElementById("ask").open)`, button))
	}
	// Cancel changes nothing.
	victim := followersOf(now)[1]
	kill := fmt.Sprintf(`tr[data-address=%q] button.kill`, victim.Address)
	press(kill)
	b.shot("question")
	b.click("#no")
	if c.gone(victim) {
		b.t.Error("the follower was killed, although the question was answered with no")
	}
	press(kill)
	b.click("#yes")
	c.wait("the killed follower is replaced", func(t *tree.Tree) bool {
		m, ok := find(t, victim.Address) // the replacement may have the same address
		return (!ok || m.PID != victim.PID) && count(t, "in_sync") == 2
	})

	press("#add")
	b.click("#yes")
	now = c.wait("the third follower is in sync", func(t *tree.Tree) bool { return t.Followers == 3 && count(t, "in_sync") == 3 })
	b.await("the change on the page", `document.querySelectorAll("#processes tbody tr").length === 4`)
	press("#handover")
	b.click("#yes")
	c.wait("the heir leads", func(t *tree.Tree) bool { return t.Leader == now.Heir && count(t, "in_sync") == 3 })
	b.await("the change on the page", fmt.Sprintf(`document.getElementById("leader").textContent === %q`, now.Heir))
	// The page also kills the leader.
	press(fmt.Sprintf(`tr[data-address=%q] button.kill`, now.Heir))
	b.click("#yes")
	next := c.wait("the next leader", func(t *tree.Tree) bool { return t.Leader != now.Heir && count(t, "in_sync") == 3 })
	b.await("the change on the page", fmt.Sprintf(`document.getElementById("leader").textContent === %q`, next.Leader))
}

func post(t *testing.T, address, path, token, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequestWithContext(testContext(t), http.MethodPost, "http://"+address+path, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, text := testkit.Do(t, req)
	return resp.StatusCode, text
}

// TestPageSocket: the page's socket outlives leaders, like the clients' socket, and a joined
// member has it too. Without a token nothing can be changed.
func TestPageSocket(t *testing.T) {
	address := freeAddress(t)
	c := start(t, withDashboard(address))
	read := func() *tree.Tree {
		resp, err := http.Get("http://" + address + "/api/tree")
		if err != nil {
			t.Fatalf("the page refused a connection: %v", err) // this must never happen, under any leader
		}
		defer resp.Body.Close()
		var raw bytes.Buffer
		if _, err := raw.ReadFrom(resp.Body); err != nil {
			t.Fatal(err)
		}
		got, err := tree.Decode(raw.Bytes())
		if err != nil {
			t.Fatalf("the page's tree is not valid: %s: %v", &raw, err)
		}
		return got
	}
	if got := read(); got.Epoch != 1 {
		t.Errorf("epoch %d", got.Epoch)
	}
	if code, text := post(t, address, "/api/kill", "whatever it may be", `{}`); code != 403 || !strings.Contains(text, "token_file") {
		t.Errorf("a change without a token file: status %d, want 403: %s", code, text)
	}
	joined := c.command("join", "--leader", c.full().Leader, "--config", c.config)
	if err := joined.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = joined.Wait() }()
	all := c.wait("the third follower is in sync", func(t *tree.Tree) bool { return count(t, "in_sync") == 3 })
	// Kill all other members. The joined member becomes leader and serves the page.
	for _, m := range all.Members {
		if m.PID != joined.Process.Pid {
			c.signal(m, syscall.SIGKILL)
		}
	}
	now := c.wait("the joined member leads", func(t *tree.Tree) bool { return leaderOf(t).PID == joined.Process.Pid && count(t, "in_sync") >= 2 })
	if got := read(); got.Leader != now.Leader {
		t.Errorf("the page comes from %s, but %s leads", got.Leader, now.Leader)
	}
}

// TestPageWithoutItsPort: when another process uses the page's port, everything but the page
// works.
func TestPageWithoutItsPort(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	c := start(t, withDashboard(l.Addr().String()))
	eventually(t, "the log warns about the page's port", func() bool {
		return strings.Contains(c.logText(), "cannot serve the dashboard until the next start") && strings.Contains(c.logText(), "dashboard.listen") && strings.Contains(c.logText(), fmt.Sprint(os.Getpid()))
	})
	if _, err := c.dial().Put(testContext(t), "a", "b"); err != nil {
		t.Error(err)
	}
	old := leaderOf(c.full())
	c.signal(old, syscall.SIGKILL)
	c.wait("the next leader", func(t *tree.Tree) bool { return t.Leader != old.Address && count(t, "in_sync") == 2 })
}

// TestPageToken checks where the token comes from, and the permissions of its file.
func TestPageToken(t *testing.T) {
	address, token := freeAddress(t), "0123456789abcdef"
	path := writeToken(t, token)
	c := newCluster(t, withDashboard(address))
	c.up("--dashboard-token-file", path)
	now := c.full()
	for _, wrong := range []string{"", "0123456789abcde", "0123456789abcdef0", strings.Repeat("x", 5000)} {
		if code, _ := post(t, address, "/api/check", wrong, `{}`); code != 401 {
			t.Errorf("the wrong token %.20q: status %d, want 401", wrong, code)
		}
	}
	if code, text := post(t, address, "/api/check", token, `{}`); code != 200 {
		t.Errorf("the right token: status %d, want 200: %s", code, text)
	}
	for body, want := range map[string]string{`{"epoch":1,"address":"127.0.0.1:1"}`: "no member", `{"epoch":1,"address":"x"}`: "x", `{"epoch":2}`: "epoch 1", `{`: "JSON", `{"nope":1}`: "JSON"} {
		if code, text := post(t, address, "/api/kill", token, body); code < 400 || !strings.Contains(text, want) {
			t.Errorf("kill %s: status %d, want an error: %s", body, code, text)
		}
	}
	if code, text := post(t, address, "/api/scale", token, `{"epoch":1,"by":100}`); code != 409 {
		t.Errorf("scale by 100: status %d, want 409: %s", code, text)
	}
	if code, text := post(t, address, "/api/promote", token, `{"epoch":1,"address":"`+now.Leader+`"}`); code != 409 || !strings.Contains(text, "is already the leader") {
		t.Errorf("promote the leader: status %d, want 409: %s", code, text)
	}
	// A file that others can read is refused from now on.
	if err := os.Chmod(path, 0o644); err != nil {
		t.Fatal(err)
	}
	if code, _ := post(t, address, "/api/check", token, `{}`); code != 403 {
		t.Errorf("a token file that all users may read: status %d, want 403", code)
	}
	raw, err := json.Marshal(c.tree())
	if err != nil || strings.Contains(string(raw), token) {
		t.Errorf("the tree contains the token, or an error occurred: %v", err)
	}
	if args := c.output("events", "--config", c.config, "--json") + c.logText(); strings.Contains(args, token) {
		t.Error("the events or the logs contain the token")
	}
}
