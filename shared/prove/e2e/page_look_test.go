package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/emulation"
	"github.com/chromedp/chromedp"

	"github.com/dynast-io/dynast/shared/observe/tree"
)

// axeModules names a node_modules directory with the npm package axe-core, which .ci/run installs.
const axeModules = "DYNAST_AXE_MODULES"

// look sets the width of the window and the colour scheme.
func (b *browser) look(width int64, scheme string) {
	b.t.Helper()
	b.run(chromedp.Func(func(ctx context.Context, t *chromedp.Target) error {
		_, size := cdp.Call(ctx, t, emulation.SetDeviceMetricsOverride, emulation.SetDeviceMetricsOverrideParams{Width: width, Height: 1150, DeviceScaleFactor: 1})
		_, colours := cdp.Call(ctx, t, emulation.SetEmulatedMedia, emulation.SetEmulatedMediaParams{
			Features: []*emulation.MediaFeature{{Name: "prefers-color-scheme", Value: scheme}}})
		return errors.Join(size, colours)
	}))
	b.await("the width", fmt.Sprintf("innerWidth === %d", width))
}

// looks checks the page in two widths, each with a colour scheme: nothing is off-screen, every target of a
// click is large enough, and axe-core has no serious findings, if it is there.
func (b *browser) looks(name string, narrow, wide string) {
	b.t.Helper()
	for width, scheme := range map[int64]string{390: narrow, 1280: wide} {
		b.look(width, scheme)
		at := fmt.Sprintf("%s, %s, %d px", name, scheme, width)
		// Each expression finds what is wrong.
		for what, wrong := range map[string]string{
			"off-screen": `[...document.querySelectorAll("button, input, td, dd, p, svg")].filter(e => e.checkVisibility() && e.getBoundingClientRect().right > innerWidth + 1)`,
			"too small":  `[...document.querySelectorAll("button, input")].filter(e => e.checkVisibility() && Math.min(e.offsetWidth, e.offsetHeight) < 24)`,
		} {
			if found := b.eval(wrong + `.map(e => e.outerHTML.slice(0, 150)).join("; ")`); found != "" {
				b.t.Errorf("%s: %s: %s", at, what, found)
			}
		}
		b.axe(at)
		b.shot(strings.NewReplacer(" ", "-", ",", "").Replace(at))
	}
}

// axe runs axe-core on the page, if it is there, and keeps its serious findings.
func (b *browser) axe(at string) {
	b.t.Helper()
	modules := os.Getenv(axeModules)
	if modules == "" {
		return
	}
	if b.eval("typeof axe") == "undefined" {
		script, err := os.ReadFile(filepath.Join(modules, "axe-core", "axe.min.js"))
		if err != nil {
			b.t.Fatal(err)
		}
		b.eval("(() => {" + string(script) + "; return true })()")
	}
	// The rows of the events are all alike, and axe-core looks at each element for long.
	b.eval(`(window.findings = undefined, axe.run({ exclude: ["#events tr:nth-child(n+6)"] }, { resultTypes: ["violations"] }).then(r => findings = r.violations.filter(v => ["serious", "critical"].includes(v.impact))
		.map(v => v.id + ": " + v.nodes.map(n => n.target + " " + n.failureSummary).join("; ")).join("\n"), e => findings = e.stack))`)
	b.await("the result of axe-core", "findings !== undefined")
	if found := b.eval("findings"); found != "" {
		b.findings = append(b.findings, at+": "+found)
	}
}

// staysInPlace checks that the page changes its tables in place: a row, the keyboard focus and
// selected text outlive many changes.
func (b *browser) staysInPlace() {
	b.t.Helper()
	b.eval(`(() => {
		document.querySelector("#processes button.kill").focus();
		getSelection().selectAllChildren(document.getElementById("client"));
		window.kept = { row: document.querySelector("#processes tbody tr"), button: document.activeElement, text: String(getSelection()), trees: 0 };
		state.stream.addEventListener("tree", () => kept.trees++);
	})()`)
	b.await("some changes", "kept.trees >= 3")
	if got := b.eval(`[kept.row.isConnected, document.activeElement === kept.button, kept.text !== "" && String(getSelection()) === kept.text].join()`); got != "true,true,true" {
		b.t.Errorf("the row, the focus and the selection are still there: %s", got)
	}
	if got := b.eval(`kept.button.getAttribute("aria-label")`); got != "Kill "+b.eval(`kept.row.dataset.address`) {
		b.t.Errorf("the button is called %q", got)
	}
}

// judges checks what the page makes of rare states. The messages are made up.
func (b *browser) judges() {
	b.t.Helper()
	for what, expr := range map[string]string{
		"a silent follower is marked": `(t => { const m = t.members.find(m => m.state === "in_sync"); m.heartbeat_age_ms = 60000; onTree(t);
			const row = document.querySelector('tr[data-address="' + m.address + '"]');
			return row.dataset.stale === "true" && row.cells[2].textContent === "in_sync, silent" })(structuredClone(state.tree))`,
		"a starting follower has no lag": `(t => { const m = t.members.find(m => m.state === "in_sync"); m.state = "starting"; m.lag = 200000; onTree(t);
			return document.querySelector('tr[data-address="' + m.address + '"]').cells[6].textContent === "syncing" })(structuredClone(state.tree))`,
		"degraded is a warning": `(t => { t.degraded = true; onTree(t); const a = document.getElementById("alarm");
			return !a.hidden && a.dataset.level === "warning" && document.title.includes("degraded") })(structuredClone(state.tree))`,
		"a host without a majority is an error": `(() => { onHosts({ at: new Date().toISOString(), self: "a", writable: false, verdict: "No majority.", hosts: [] }); showProblems();
			const a = document.getElementById("alarm"); const ok = !a.hidden && a.dataset.level === "error" && a.textContent.includes("No majority.") && document.title.includes("no majority");
			state.hosts = null; document.getElementById("hosts").hidden = true; showProblems(); return ok })()`,
		"an offline browser is told so": `(() => { Object.defineProperty(navigator, "onLine", { get: () => false, configurable: true });
			const reason = outageReason(); delete navigator.onLine; return reason === "this browser is offline." && navigator.onLine })()`,
		"an old part is marked": `(() => { const s = state.servicesAt; state.servicesAt = Date.now() - 60000; showAge("services", state.servicesAt);
			const old = document.getElementById("services").dataset.stale; showAge("services", Date.now()); state.servicesAt = s; return old === "true" })()`,
		"a stop is no disaster": `["member_left", "leader_left", "stopping"].every(kind => EVENT_CSS[(state.events.find(e => e.kind === kind) || { level: "info" }).level] === undefined)`,
		"one format of times":   `clock(Date.now()).match(/^\d\d:\d\d:\d\d$/) !== null && clock(0, true).match(/^(1970-01-01|1969-12-31) \d\d:\d\d:\d\d\.000$/) !== null`,
	} {
		b.await(what, expr)
	}
}

// outage checks that nobody can take the page for that of a running cluster, first while all members
// are stopped by a signal, so that connections stay open, and then while no process is left.
func (b *browser) outage(c *cluster) {
	b.t.Helper()
	all := c.tree().Members
	for _, m := range all {
		c.signal(m, syscall.SIGSTOP)
	}
	lost := func(why string) {
		b.t.Helper()
		b.await("the banner", fmt.Sprintf(`(o => !o.hidden && /^No answer since \d\d:\d\d:\d\d: /.test(o.textContent) && o.textContent.includes(%q))(document.getElementById("outage"))`, why))
		if got := b.eval(`[document.title.startsWith("no answer since "), document.body.dataset.link, document.getElementById("link").textContent,
			[...document.querySelectorAll("button.act")].every(b => b.disabled), getComputedStyle(document.querySelector("main")).filter].join()`); got != "true,lost,no answer,true,grayscale(1)" {
			b.t.Errorf("the page of a cluster that does not answer: %s", got)
		}
	}
	lost("the connection is open")
	b.shot("stopped")
	for _, m := range all {
		c.signal(m, syscall.SIGCONT)
	}
	b.await("the page recovers", `document.getElementById("outage").hidden && document.body.dataset.link === "live" && !document.querySelector("button.act").disabled`)
	c.wait("the followers are in sync again", func(t *tree.Tree) bool { return count(t, "in_sync") == t.Followers })
	if out, err := exec.Command(binary, "stop", "--config", c.config).CombinedOutput(); err != nil {
		b.t.Fatalf("stop: %v: %s", err, out)
	}
	lost("nothing answers at this address")
	b.looks("down", "light", "dark")
}

// remembers checks that a page that was just opened has the graphs of the time before.
func (b *browser) remembers(address string) {
	b.t.Helper()
	b.run(chromedp.Navigate("http://" + address + "/"))
	b.await("the past in the graphs", `typeof state !== "undefined" && state.tree !== null && state.samples.length >= 3 && state.samples.at(-1).at - state.samples[0].at > 1500`)
	if got := b.eval(`document.querySelector("link[rel=icon]").href`); !strings.HasSuffix(got, "/favicon.svg") {
		b.t.Errorf("the icon is %q", got)
	}
}
