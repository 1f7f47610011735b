package e2e

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// follow runs a command that does not end by itself, and delivers its lines until the test ends.
func (c *cluster) follow(args ...string) <-chan string {
	c.t.Helper()
	cmd := c.command(args...)
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	lines, done := make(chan string, 10000), make(chan struct{})
	go func() {
		defer close(done)
		for in := bufio.NewScanner(out); in.Scan(); {
			lines <- in.Text()
		}
	}()
	c.t.Cleanup(func() {
		_ = cmd.Process.Signal(os.Interrupt)
		<-done
		if err := cmd.Wait(); err != nil {
			c.t.Errorf("%v returned an error after an interrupt: %v", args, err)
		}
	})
	return lines
}

// await waits for a line that contains all of these texts.
func await(t *testing.T, lines <-chan string, want ...string) string {
	t.Helper()
	timeout := time.After(patience)
	var seen []string
	for {
		select {
		case l := <-lines:
			seen = append(seen, l)
			if !slices.ContainsFunc(want, func(w string) bool { return !strings.Contains(l, w) }) {
				return l
			}
		case <-timeout:
			t.Fatalf("no line contains %q:\n%s", want, strings.Join(seen, "\n"))
		}
	}
}

func (c *cluster) output(args ...string) string {
	c.t.Helper()
	cmd := c.command(args...)
	out, err := cmd.Output()
	if err != nil {
		c.t.Fatalf("%v: %v", args, err)
	}
	return string(out)
}

// TestEvents: the history of events continues over takeovers and restarts, is readable when no
// process runs, and can be followed.
func TestEvents(t *testing.T) {
	c := start(t)
	lines := c.follow("events", "--config", c.config, "--follow")
	await(t, lines, "serving", "epoch 1")
	first := c.full()
	old := leaderOf(first)
	c.signal(old, syscall.SIGKILL)
	await(t, lines, "leader_lost", old.Address, "signal: killed")
	await(t, lines, "took_over", "epoch 2") // on a busy host not always the heir
	await(t, lines, "serving", "ms without a leader")
	second := c.wait("the dead leader is replaced", func(t *tree.Tree) bool { return t.Epoch == 2 && count(t, "in_sync") == 2 })
	await(t, lines, "member_in_sync")
	victim := followersOf(second)[0]
	c.signal(victim, syscall.SIGSTOP)
	await(t, lines, "member_silent", victim.Address)
	await(t, lines, "member_died", victim.Address, "silent")
	c.full()
	c.output("stop", "--config", c.config)
	await(t, lines, "stopped")

	// No process runs.
	var all []events.Event
	for _, l := range strings.Split(strings.TrimSpace(c.output("events", "--config", c.config, "--json")), "\n") {
		var e events.Event
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		if e.At.IsZero() || e.By == "" || e.Kind == "" {
			t.Errorf("the event is incomplete: %s", l)
		}
		all = append(all, e)
	}
	find := func(kind string) []events.Event {
		var out []events.Event
		for _, e := range all {
			if e.Kind == kind {
				out = append(out, e)
			}
		}
		return out
	}
	// Of the two followers, only the successor records the leader's death.
	if es := find("leader_lost"); len(es) != 1 || es[0].PID != old.PID || es[0].By != second.Leader || es[0].Epoch != 1 {
		t.Errorf("unexpected leader_lost events: %+v", es)
	}
	if es := find(events.Serving); len(es) != 2 || es[0].Seconds != 0 || es[1].Seconds <= 0 || es[1].Seconds > patience.Seconds() {
		t.Errorf("unexpected serving events: %+v", es)
	}
	if len(find(events.Started)) != 1 || len(find(events.Stopped)) != 1 {
		t.Errorf("want one started and one stopped event: started %v, stopped %v", find(events.Started), find(events.Stopped))
	}
	if out := c.output("events", "--config", c.config, "--since", "0s"); out != "" {
		t.Errorf("events --since 0s printed events: %s", out)
	}
	code, out := c.run("events", "--config", c.config, "--since", "yesterday")
	if code != 2 || !strings.Contains(out, "10m") {
		t.Errorf("events --since yesterday: exit code %d, want 2: %s", code, out)
	}

	// Another start adds events to the history.
	c.up()
	c.full()
	if got := strings.Count(c.output("events", "--config", c.config), " started "); got != 2 {
		t.Errorf("the history shows %d starts, want 2", got)
	}
}

// TestIdleWritesNothing: while nothing happens, no file changes, not even its times or its mode.
func TestIdleWritesNothing(t *testing.T) {
	c := start(t)
	put(t, c.dial(), "k", "v")
	run, err := c.openDir().RuntimeDir() // the runtime directory may be elsewhere
	if err != nil {
		t.Fatal(err)
	}
	look := func() map[string]string {
		out := map[string]string{}
		walk := func(path string, _ fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			var st unix.Stat_t
			if err := unix.Lstat(path, &st); err != nil {
				return err
			}
			out[path] = fmt.Sprint(st.Size, " bytes, written ", st.Mtim, ", changed ", st.Ctim)
			return nil
		}
		if err := errors.Join(filepath.WalkDir(c.dir, walk), filepath.WalkDir(run, walk)); err != nil {
			t.Fatal(err)
		}
		return out
	}
	var before, after map[string]string
	for range 10 { // the first rounds may still see changes that the start and the write caused
		begin := c.full().At
		before = look()
		c.wait("ten heartbeats", func(t *tree.Tree) bool { return t.At.Sub(begin) > 2500*time.Millisecond })
		if after = look(); maps.Equal(before, after) {
			return
		}
	}
	for path, was := range before {
		if after[path] != was {
			t.Errorf("%s changed while nothing happened:\n\tbefore: %s\n\tafter:  %s", path, was, after[path])
		}
	}
}

// TestTree checks the text for people and the fields for programs.
func TestTree(t *testing.T) {
	c := start(t)
	cl := c.dial()
	for i := range 5 {
		if _, err := cl.Put(testContext(t), fmt.Sprint(i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	old := leaderOf(c.full())
	c.signal(old, syscall.SIGKILL)
	// The client connects again by itself, and so does its watch.
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	watches := cl.Watch(ctx, "k", clientv3.WithCreatedNotify())
	if r := <-watches; r.Err() != nil {
		t.Fatal(r.Err())
	}
	now := c.wait("the dead leader is replaced, and the client is back", func(t *tree.Tree) bool {
		// What is applied and not yet in the file counts as used.
		return t.Takeovers == 1 && count(t, "in_sync") == 2 && t.Store.Watchers == 1 && t.Store.FileBytes >= t.Store.UsedBytes
	})
	out := c.output("tree", "--config", c.config)
	lines := strings.Split(out, "\n")
	// The length of the version depends on the build, and the heading is wrapped to the terminal.
	heading, _, _ := strings.Cut(out, "PROCESS")
	if !strings.HasPrefix(heading, "epoch 2") || !strings.Contains(heading, c.client) || !strings.Contains(heading, "1 death  1 takeover") {
		t.Errorf("unexpected heading of the tree: %q", heading)
	}
	for _, want := range []string{"PROCESS", "PID", "UP", "LAG", "HEARD", "CPU", "MEM", "RESTARTS", now.Heir + " heir",
		now.Leader + " leader", "├─", "└─", "LAST DEATHS", old.Address, "signal: killed", "5 keys  ", " of 2GiB in use", " on disk", " disk free", "revision 6", "1 client", "1 watcher"} {
		if !strings.Contains(out, want) {
			t.Errorf("the tree does not contain %q:\n%s", want, out)
		}
	}
	if strings.Contains(out, "\x1b") {
		t.Error("the tree is coloured, although the output is no terminal")
	}
	// The columns are aligned: a right-aligned header ends where its values end.
	head := slices.IndexFunc(lines, func(l string) bool { return strings.HasPrefix(l, "PROCESS") })
	for _, h := range []string{"PID", "UP", "LAG", "HEARD", "CPU", "MEM"} {
		end := len([]rune(lines[head][:strings.Index(lines[head], " "+h)+1+len(h)]))
		for _, l := range lines[head+1 : head+4] {
			if r := []rune(l); r[end-1] == ' ' || r[end] != ' ' {
				t.Errorf("the column %s is not aligned:\n%s", h, out)
			}
		}
	}
	replaced := 0
	for _, m := range now.Members {
		if m.CPUSeconds <= 0 || m.CPUPercent < 0 || m.RSSBytes == 0 || m.UptimeMS <= 0 {
			t.Errorf("unexpected resource usage of a member: %+v", m)
		}
		replaced += int(m.Restarts)
	}
	if replaced != 1 || now.Restarts != 1 || now.At.IsZero() || now.Committed < 5 || now.Applied < 5 {
		t.Errorf("unexpected fields of the tree: %+v", now)
	}
	st := now.Store
	if st == nil || st.Keys != 5 || st.Revision != 6 || st.Connections != 1 || st.Watchers != 1 || st.UsedBytes <= 0 || st.FileBytes < st.UsedBytes ||
		st.QuotaBytes != 2<<30 || st.DiskFreeBytes == 0 || st.Alarms == nil || len(st.Alarms) != 0 {
		t.Errorf("unexpected facts of the store: %+v", st)
	}
	// Without a terminal, --watch prints one tree after the other, also through a takeover.
	watch := c.follow("tree", "--config", c.config, "--watch")
	await(t, watch, "epoch 2")
	c.signal(leaderOf(now), syscall.SIGKILL)
	await(t, watch, "epoch 3")
	asJSON := c.follow("tree", "--config", c.config, "--watch", "--json")
	for range 2 {
		var got tree.Tree
		if err := json.Unmarshal([]byte(await(t, asJSON, "{")), &got); err != nil || got.Epoch != 3 {
			t.Errorf("tree --watch --json printed an unexpected tree: %+v, error %v", got, err)
		}
	}
}

// TestLogs shows the logs of all members, over a takeover and a rotation, in both forms. If there
// are no files, it says so.
func TestLogs(t *testing.T) {
	logs := filepath.Join(t.TempDir(), "logs")
	c := newCluster(t)
	c.up("--log-directory", logs, "--log-format", "json")
	first := c.full()
	// The configuration file does not name the directory. The command learns it from the leader.
	lines := c.follow("logs", "--config", c.config, "--follow", "--text")
	await(t, lines, "[INFO]", "worker: became leader:", "address="+first.Leader, "epoch=1")
	c.signal(leaderOf(first), syscall.SIGKILL)
	await(t, lines, "worker: became leader:", "epoch=2")
	now := c.wait("the dead leader is replaced", func(t *tree.Tree) bool { return t.Epoch == 2 && count(t, "in_sync") == 2 })
	for _, m := range now.Members {
		if !slices.ContainsFunc(first.Members, func(f tree.Member) bool { return f.Address == m.Address }) {
			await(t, lines, "address="+m.Address) // this file did not exist before
		}
	}
	var last string
	for _, l := range strings.Split(strings.TrimSpace(c.output("logs", "--config", c.config)), "\n") {
		var e map[string]any
		if err := json.Unmarshal([]byte(l), &e); err != nil {
			t.Fatalf("%s: %v", l, err)
		}
		if stamp := e["@timestamp"].(string); stamp < last {
			t.Errorf("the lines are not in order: %s comes after %s", stamp, last)
		} else {
			last = stamp
		}
	}
	one := c.output("logs", "--config", c.config, "--text", first.Leader)
	if !strings.Contains(one, "epoch=1") || strings.Contains(one, "address="+now.Leader) {
		t.Errorf("logs of the member %s, want only its own lines:\n%s", first.Leader, one)
	}
	if got := c.output("logs", "--config", c.config, "-n", "2"); strings.Count(got, "\n") != 2 {
		t.Errorf("logs -n 2 must print two lines:\n%s", got)
	}
	code, out := c.run("logs", "--config", c.config, "127.0.0.1:1")
	if code != 1 || !strings.Contains(out, strings.ReplaceAll(now.Leader, ":", "_")) {
		t.Errorf("logs of an unknown member: exit code %d, want 1: %s", code, out)
	}
}

func TestLogsWithoutFiles(t *testing.T) {
	c := newCluster(t)
	c.up("--log-directory", "off")
	c.full()
	// The harness sends the standard error of all processes to a file, which the command finds.
	text := c.output("logs", "--config", c.config)
	if !strings.Contains(text, "became leader:") || !strings.Contains(text, "following leader:") {
		t.Errorf("logs must show the file that standard error goes to:\n%s", text)
	}
	c.output("stop", "--config", c.config)
	code, out := c.run("logs", "--config", c.config, "--log-directory", "off")
	if code != 1 || !strings.Contains(out, "log { directory") {
		t.Errorf("logs without a running cluster: exit code %d, want 1: %s", code, out)
	}
	cmd := exec.Command(binary, "up", "--config", c.config, "--log-directory", "off")
	if err := cmd.Start(); err != nil { // its standard error is /dev/null
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	c.full()
	code, out = c.run("logs", "--config", c.config)
	if code != 1 || !strings.Contains(out, "/dev/null") || !strings.Contains(out, "log { directory") {
		t.Errorf("logs when standard error is /dev/null: exit code %d, want 1: %s", code, out)
	}
	if bytes.Contains([]byte(out), []byte("panic")) {
		t.Errorf("the command panicked: %s", out)
	}
}
