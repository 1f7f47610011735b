package e2e

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/host/parent"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// shows waits for a text on the screen.
func (s *screen) shows(t *testing.T, what string) {
	t.Helper()
	eventually(t, what+" on the screen", func() bool { return strings.Contains(s.text(), what) })
}

// exits waits for the end of the command and checks its exit code.
func (s *screen) exits(t *testing.T, want int) {
	t.Helper()
	select {
	case err := <-s.ended:
		code := 0
		if exit := new(exec.ExitError); errors.As(err, &exit) {
			code = exit.ExitCode()
		} else if err != nil {
			t.Fatal(err)
		}
		if code != want {
			t.Errorf("exit code %d, want %d:\n%s", code, want, tail(s.text(), 3000))
		}
	case <-time.After(patience):
		t.Fatalf("the command does not end:\n%s", tail(s.text(), 3000))
	}
}

// nothingRuns checks that no member of the cluster is left.
func (c *cluster) nothingRuns() {
	c.t.Helper()
	if left := parent.MembersOf(c.dir)(); len(left) > 0 {
		c.t.Errorf("members are left: %v", left)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.seen {
		if p, err := proc.Open(id); err == nil {
			_ = p.Close()
			c.t.Errorf("%v is left", id)
		}
	}
}

// At a terminal, 'up' stays until the cluster ends, whichever process leads. It says what happens,
// and Ctrl-C ends everything.
func TestUpAtATerminal(t *testing.T) {
	c := newCluster(t)
	s := c.terminal("up", "--config", c.config)
	s.shows(t, "clients   "+c.client)
	s.shows(t, "dynast tree --data-dir "+c.dir)
	s.shows(t, "ready: clients at "+c.client)
	first := c.full()
	if leaderOf(first).PID == s.cmd.Process.Pid {
		t.Fatal("the process at the terminal leads, want a parent of the leader")
	}
	c.signal(leaderOf(first), syscall.SIGKILL)
	s.shows(t, "died: signal: killed")
	s.shows(t, "leads now, after")
	second := c.wait("the next leader has two followers in sync", func(t *tree.Tree) bool { return t.Leader != first.Leader && count(t, "in_sync") == 2 })
	s.shows(t, second.Leader+" ")

	// SIGHUP reaches the leader, and ends nothing.
	if err := s.cmd.Process.Signal(syscall.SIGHUP); err != nil {
		t.Fatal(err)
	}
	logged := c.dir + "/logs/" + strings.ReplaceAll(second.Leader, ":", "_") + ".log"
	eventually(t, "the leader has read its configuration again", func() bool {
		raw, err := os.ReadFile(logged)
		return err == nil && strings.Contains(string(raw), "reloaded the configuration")
	})
	s.press(t, "\x03")
	s.exits(t, 0)
	c.nothingRuns()
	out := regexp.MustCompile(`\x1b\[[0-9;]*m`).ReplaceAllString(s.text(), "")
	if strings.Contains(out, "[INFO]") || !strings.Contains(out, "stopping;") || !strings.HasSuffix(strings.TrimSpace(out), "stopped") {
		t.Errorf("the terminal has the log, or does not say that the cluster stops:\n%s", out)
	}
	_, lines, _ := strings.Cut(out, "ready: ")
	for line := range strings.Lines(lines) {
		if n := len([]rune(strings.TrimRight(line, "\r\n"))); n > 80 {
			t.Errorf("a line of %d columns: %q", n, line)
		}
	}
}

// A second Ctrl-C does not wait for a program that does not stop. Nothing is left behind.
func TestSecondInterruptAtATerminal(t *testing.T) {
	deaf := filepath.Join(t.TempDir(), "deaf")
	c := newCluster(t, withExtra(fmt.Sprintf(`service "stubborn" {
  script = "trap '' TERM; touch %s; while :; do sleep 0.1; done"
  stop { timeout = "1h" }
}`, deaf)))
	s := c.terminal("up", "--config", c.config)
	s.shows(t, "stubborn/1 ")
	c.full()
	eventually(t, "the program ignores SIGTERM", func() bool {
		_, err := os.Stat(deaf)
		return err == nil
	})
	program := c.instance("stubborn/1").PID
	id, err := proc.Identify(program)
	if err != nil {
		t.Fatal(err)
	}
	s.press(t, "\x03")
	s.shows(t, "stopping;")
	eventually(t, "a further Ctrl-C kills the program", func() bool {
		s.press(t, "\x03")
		return strings.Contains(s.text(), "killing stubborn/1")
	})
	s.exits(t, 0)
	c.nothingRuns()
	if now, err := proc.Identify(program); err == nil && now == id {
		t.Error("the program is left")
	}
}

// The death of the parent changes nothing for the cluster. A second 'up' is refused at once, and
// does not touch the cluster.
func TestClusterOutlivesTheTerminal(t *testing.T) {
	c := newCluster(t)
	s := c.terminal("up", "--config", c.config)
	s.shows(t, "ready: ")
	before := c.full()
	id, err := proc.Identify(s.cmd.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.cmd.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the parent is dead", func() bool { now, err := proc.Identify(id.PID); return err != nil || now != id })
	cl := c.dial()
	put(t, cl, "after", "the terminal")
	again := c.terminal("up", "--config", c.config)
	again.exits(t, 3)
	if out := again.text(); !strings.Contains(out, "another leader owns the data directory") || strings.Contains(out, "clients   ") {
		t.Errorf("a second 'up' prints\n%s", out)
	}
	c.signal(leaderOf(before), syscall.SIGKILL)
	c.wait("the next leader has two followers in sync", func(t *tree.Tree) bool { return t.Leader != before.Leader && count(t, "in_sync") == 2 })
	put(t, cl, "after", "a takeover")
}

// Without a terminal, --attach makes 'up' stay, and the log goes where it always does. 'dynast stop'
// ends it with 0. A start that fails has its usual exit code.
func TestAttach(t *testing.T) {
	c := newCluster(t)
	blocker := listen(t, c.client)
	if code, out := c.run("up", "--attach", "--config", c.config); code != 1 || !strings.Contains(out, c.client) {
		t.Errorf("an address that is in use: exit code %d, want 1: %s", code, out)
	}
	_ = blocker.Close()
	if code, out := c.run("up", "--attach", "--config", c.config, "--followers", "99"); code != 2 || !strings.Contains(out, "--followers") {
		t.Errorf("a wrong flag: exit code %d, want 2: %s", code, out)
	}
	notified := c.command("up", "--attach", "--config", c.config)
	notified.Env = append(os.Environ(), "NOTIFY_SOCKET=/nowhere")
	if err := notified.Run(); notified.ProcessState.ExitCode() != 2 {
		t.Errorf("--attach under systemd: %v, want exit code 2", err)
	}
	cmd := c.command("up", "--attach", "--config", c.config)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	ended := make(chan error, 1)
	go func() { ended <- cmd.Wait() }()
	first := c.full()
	c.signal(leaderOf(first), syscall.SIGKILL)
	c.wait("the next leader has two followers in sync", func(t *tree.Tree) bool { return t.Leader != first.Leader && count(t, "in_sync") == 2 })
	select {
	case err := <-ended:
		t.Fatalf("'up --attach' ended with its first leader: %v", err)
	default:
	}
	c.output("stop", "--config", c.config)
	if err := <-ended; err != nil {
		t.Errorf("'dynast stop' ends 'up --attach' with %v, want exit code 0", err)
	}
	c.nothingRuns()
	for _, want := range []string{"became leader", "config.hcl (--config)"} {
		if !strings.Contains(c.logText(), want) {
			t.Errorf("the log on standard error lacks %q", want)
		}
	}
	cmd = c.command("up", "--attach", "--config", c.config, "--followers", "0", "--replication-min-sync", "0")
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	alone := c.full(0)
	c.signal(leaderOf(alone), syscall.SIGKILL)
	if err := cmd.Wait(); cmd.ProcessState.ExitCode() != 128+int(syscall.SIGKILL) {
		t.Errorf("all members were killed: %v, want exit code 137", err)
	}
}

// In a shell with job control, 'up &' leaves the prompt usable, and 'kill %1' ends the cluster.
func TestUpInTheBackgroundOfATerminal(t *testing.T) {
	bash, err := exec.LookPath("bash")
	if err != nil {
		t.Skip("needs bash")
	}
	c := newCluster(t)
	cmd := exec.Command(bash, "--norc", "--noprofile", "-i")
	cmd.Env = append(os.Environ(), "PS1=$ ", "HISTFILE=", "NO_COLOR=1", "TERM=dumb")
	s := c.screen(cmd)
	s.press(t, "stty tostop; "+binary+" up --config "+c.config+" &\n")
	s.shows(t, "ready: ")
	first := c.full()
	c.signal(leaderOf(first), syscall.SIGKILL)
	s.shows(t, "leads now")
	s.press(t, "kill %1; wait %1; echo ended with $?\n")
	s.shows(t, "ended with 0")
	s.press(t, "exit\n")
	s.exits(t, 0)
	c.nothingRuns()
}
