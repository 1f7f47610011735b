package upview

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/operator/term"
)

func configuration(dir string) *config.Config {
	return &config.Config{DataDir: dir, Followers: 2, Client: config.Client{Listen: "127.0.0.1:2379"}, Dashboard: config.Dashboard{Listen: "127.0.0.1:2381"},
		Member: config.Member{Host: "127.0.0.1", Ports: config.PortRange{First: 7400, Last: 7499}}}
}

// shown records events and returns what a view prints about those after its start.
func shown(t *testing.T, about About, es ...events.Event) string {
	t.Helper()
	dir := t.TempDir()
	about.Config = configuration(dir)
	about.Config.Log.Directory = about.Source // a test sets it so
	rec := events.NewRecorder(dir, "127.0.0.1:7400")
	rec.SetLeading()
	rec.Record(events.Event{Kind: events.Started})
	rec.Record(events.Event{Kind: "scaled", Detail: "of an earlier run"})
	rec.Close(time.Minute)
	var out bytes.Buffer
	v := New(about, term.Style{}, &out)
	rec = events.NewRecorder(dir, "127.0.0.1:7400")
	rec.SetLeading()
	for _, e := range es {
		rec.Record(e)
	}
	rec.Close(time.Minute)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := v.Follow(ctx); err != nil {
		t.Fatal(err)
	}
	return out.String()
}

func TestAStartATakeoverAndAStop(t *testing.T) {
	const leader, heir = "127.0.0.1:7400", "127.0.0.1:7401"
	out := shown(t, About{Version: "v1", Reach: " --data-dir /x"},
		events.Event{Kind: "scaled", Detail: "of another cluster in this directory"},
		events.Event{Kind: events.Started, Member: leader, PID: 1},
		events.Event{Kind: events.Serving, Member: leader, PID: 1},
		events.Event{Kind: "degraded"},
		events.Event{Kind: "spawning", Detail: "slot 2"},
		events.Event{Kind: "member_in_sync", Member: heir, PID: 2},
		events.Event{Kind: "restored"},
		events.Event{Kind: "leader_lost", Member: leader, PID: 1, Detail: "signal: killed"},
		events.Event{Kind: events.Serving, Member: heir, PID: 2, Seconds: .0125},
		events.Event{Kind: "degraded"},
		events.Event{Kind: events.ServiceExited, PID: 9, Detail: "web/1: signal: killed"},
		events.Event{Kind: events.DiskFull, Member: heir, Detail: strings.Repeat("x\x1b", 100)},
		events.Event{Kind: "stopping", Member: heir, PID: 2, Detail: "signal: terminated"},
		events.Event{Kind: events.Stopped, Member: heir, PID: 2})
	banner, rest, _ := strings.Cut(out, "  stop      Ctrl-C, or dynast stop --data-dir /x\n")
	for _, want := range []string{"dynast v1\n", "  clients   127.0.0.1:2379 (http)\n", "  page      http://127.0.0.1:2381\n", "  members   a leader and 2 followers",
		"  try       dynast tree --data-dir /x "} {
		if !strings.Contains(banner, want) {
			t.Errorf("the banner lacks %q:\n%s", want, banner)
		}
	}
	var lines []string
	for line := range strings.Lines(rest) {
		line = strings.TrimSuffix(line, "\n")
		if n := utf8.RuneCountInString(line); n > width || strings.Contains(line, "\x1b") {
			t.Errorf("%d columns: %q", n, line)
		}
		lines = append(lines, line[10:])
	}
	full := lines[6]
	lines[6] = ""
	want := []string{"ready: clients at 127.0.0.1:2379", "follower 127.0.0.1:7401 (pid 2) is in sync", "leader 127.0.0.1:7400 (pid 1) died: signal: killed",
		"ready: 127.0.0.1:7401 (pid 2) leads now, after 12.5 ms", "degraded: writes are acknowledged with fewer copies", "web/1 exited: signal: killed", "",
		"stopping: signal: terminated", "stopped"}
	if got := strings.Join(lines, "\n"); got != strings.Join(want, "\n") {
		t.Errorf("got\n%s\nwant\n%s", got, strings.Join(want, "\n"))
	}
	if !strings.HasPrefix(full, "disk full 127.0.0.1:7401: x") || !strings.HasSuffix(full, "...") {
		t.Errorf("a long line: %q", full)
	}
}

// A cluster whose log is on the same terminal shows only whether it serves clients.
func TestBrief(t *testing.T) {
	out := shown(t, About{Brief: true, Source: config.Off}, events.Event{Kind: events.Started}, events.Event{Kind: events.Serving}, events.Event{Kind: "member_in_sync"}, events.Event{Kind: events.Stopped})
	if !strings.Contains(out, "on this terminal only") || !strings.Contains(out, "ready: ") || strings.Contains(out, "in sync") || strings.Contains(out, "stopped") {
		t.Errorf("got\n%s", out)
	}
}

func TestHowItEnded(t *testing.T) {
	for code, want := range map[int]string{0: "", 6: "exit code 6", 137: "were killed (signal 9)"} {
		var out bytes.Buffer
		v := New(About{Config: configuration(t.TempDir())}, term.Style{}, &out)
		if v.Ended(code); out.Len() != 0 {
			t.Errorf("a cluster that never started: %q", out.String())
		}
		v.begun = true
		if v.Ended(code); !strings.Contains(out.String(), want) || (code == 0) != (out.Len() == 0) {
			t.Errorf("code %d: %q", code, out.String())
		}
	}
}

// Only the first request to stop is told, and the killed services are named.
func TestStopping(t *testing.T) {
	var out bytes.Buffer
	v := New(About{Config: configuration(t.TempDir())}, term.Style{}, &out)
	v.Stopping()
	v.Stopping()
	v.Killing([]string{"a/1", "b/1"})
	if got := out.String(); strings.Count(got, "stopping") != 1 || !strings.Contains(got, "killing a/1, b/1") {
		t.Errorf("got %q", got)
	}
}

// A cluster that begins again after it has stopped, as 'dynast hosts leave --last' lets it, can be stopped
// once more.
func TestStoppingAgain(t *testing.T) {
	for _, brief := range []bool{false, true} {
		var out bytes.Buffer
		v := New(About{Config: configuration(t.TempDir()), Brief: brief}, term.Style{}, &out)
		v.Stopping()
		if err := v.show([]events.Event{{Kind: events.Stopped}, {Kind: events.Serving}}); err != nil {
			t.Fatal(err)
		}
		v.Stopping()
		if got := out.String(); strings.Count(got, "a second Ctrl-C") != 2 {
			t.Errorf("brief %v: %q", brief, got)
		}
	}
}
