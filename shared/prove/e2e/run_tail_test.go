package e2e

import (
	"bufio"
	"bytes"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
)

// tailing is a running command "run --tail".
type tailing struct {
	t      *testing.T
	lines  chan string // its standard output
	stderr bytes.Buffer
	signal func(os.Signal) error
	wait   func() int // returns the exit code
}

func (c *cluster) runTail(args ...string) *tailing {
	c.t.Helper()
	r := &tailing{t: c.t, lines: make(chan string, 10000)}
	cmd := c.command(append([]string{"run", "--config", c.config, "--tail"}, args...)...)
	cmd.Stderr = &r.stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		c.t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	read := make(chan struct{})
	go func() {
		defer close(read)
		defer close(r.lines)
		for in := bufio.NewScanner(out); in.Scan(); {
			r.lines <- in.Text()
		}
		_, _ = io.Copy(io.Discard, out)
	}()
	ended := false
	r.signal = cmd.Process.Signal
	r.wait = func() int {
		<-read
		_ = cmd.Wait()
		ended = true
		return cmd.ProcessState.ExitCode()
	}
	c.t.Cleanup(func() {
		if !ended {
			_ = cmd.Process.Kill()
			r.wait()
		}
	})
	return r
}

// rest returns the output that was not read yet, when the command has ended.
func (r *tailing) rest() string {
	var all []string
	for l := range r.lines {
		all = append(all, l)
	}
	return strings.Join(all, "\n")
}

// TestRunTailEnds: the command prints all output of a task and nothing else, and has its exit code.
// So it is when the task is removed at its end, and when a run of the same name was there before.
func TestRunTailEnds(t *testing.T) {
	c := start(t, withServices(t, ""))
	broken := filepath.Join(t.TempDir(), "broken")
	if err := os.WriteFile(broken, []byte("#!/no/such/interpreter\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	for _, r := range []struct {
		what, want, reason string
		code               int
		args               []string
	}{
		{"a task that is removed", "one\nlast", "", 7, []string{"--rm", "--name", "a", "--", "sh", "-c", "echo one; printf last; exit 7"}},
		{"another one of that name", "two", "", 0, []string{"--rm", "--name", "a", "--", "sh", "-c", "echo two"}},
		{"a task that stays", "", "", 3, []string{"--restart", "never", "--name", "b", "--", "sh", "-c", "exit 3"}},
		{"a task that a signal ends", "now", "SIGTERM", 128 + 15, []string{"--rm", "--name", "c", "--", "sh", "-c", "echo now; kill -TERM $$"}},
		{"a program that cannot start", "", "no such file", 1, []string{"--restart", "never", "--name", "d", "--", broken}},
		{"a name that exists", "", "there is a service \"b\" already", 1, []string{"--name", "b", "--", "true"}},
	} {
		run := c.runTail(r.args...)
		code, out := run.wait(), run.rest()
		if code != r.code || out != r.want || !strings.Contains(run.stderr.String(), r.reason) {
			t.Errorf("%s: exit code %d, want %d; output %q, want %q; errors %q, want %q", r.what, code, r.code, out, r.want, run.stderr.String(), r.reason)
		}
	}
	two := c.runTail("--rm", "--name", "two", "--instances", "2", "--", "sh", "-c", "echo here; exit $((INSTANCE - 1))")
	code, out := two.wait(), two.rest()
	if code != 1 || strings.Count(out, "here") != 2 || !strings.Contains(out, "two/1 | here") || !strings.Contains(out, "two/2 | here") {
		t.Errorf("two instances: exit code %d, want 1; output:\n%s", code, out)
	}
	if code, out := c.run("run", "--config", c.config, "--tail", "--wait", "1s", "--", "true"); code != 2 || !strings.Contains(out, "[tail wait]") {
		t.Errorf("--tail with --wait: exit code %d\n%s", code, out)
	}
	r, err := c.services()
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for _, s := range r.Services {
		names = append(names, s.Name)
	}
	if got := strings.Join(names, " "); got != "b d" {
		t.Errorf("the services afterwards are %q, want those without --rm", got)
	}
}

// TestRunTailOverATakeover: the command follows a task through the death of the leader, and learns
// its exit code from a later leader.
func TestRunTailOverATakeover(t *testing.T) {
	c := start(t, withServices(t, ""))
	fifo := filepath.Join(t.TempDir(), "go")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	run := c.runTail("--rm", "--name", "task", "--", "sh", "-c", "echo begun; read line < "+fifo+"; echo $line; exit 5")
	await(t, run.lines, "begun")
	c.kill(leaderOf(c.full()))
	c.awaitState("ready", "task/1")
	if err := os.WriteFile(fifo, []byte("ended\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	code, out := run.wait(), run.rest()
	// Before Linux 6.15 the next leader does not know how the task ended.
	known := !strings.Contains(run.stderr.String(), "unknown")
	if out != "ended" || known && code != 5 || !known && code != 1 {
		t.Errorf("exit code %d, want 5; output %q; errors %q", code, out, run.stderr.String())
	}
}

// TestRunTailInterrupted: an interrupt ends the command. The service runs on, but with --rm it is
// gone. A service that an operator stops also ends the command.
func TestRunTailInterrupted(t *testing.T) {
	c := start(t, withServices(t, ""))
	const loop = "echo runs; exec sleep 1000"
	stays := c.runTail("--name", "stays", "--", "sh", "-c", loop)
	await(t, stays.lines, "runs")
	pid := c.instance("stays/1").PID
	if err := stays.signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := stays.wait(); code != 130 || !strings.Contains(stays.stderr.String(), "stays runs on") {
		t.Errorf("after an interrupt: exit code %d, want 130; errors %q", code, stays.stderr.String())
	}
	if i := c.instance("stays/1"); i.PID != pid || i.State != "ready" {
		t.Errorf("after an interrupt the service is %+v, want pid %d", i, pid)
	}

	gone := c.runTail("--rm", "--name", "gone", "--", "sh", "-c", loop)
	await(t, gone.lines, "runs")
	if err := gone.signal(os.Interrupt); err != nil {
		t.Fatal(err)
	}
	if code := gone.wait(); code != 130 || gone.stderr.String() != "" {
		t.Errorf("after an interrupt with --rm: exit code %d, want 130; errors %q", code, gone.stderr.String())
	}
	if i := c.instance("gone/1"); i.ID != "" {
		t.Errorf("after an interrupt with --rm the service is still there: %+v", i)
	}
	if left := c.processesOf("gone/1"); len(left) > 0 {
		t.Errorf("after an interrupt with --rm its processes are left: %v", left)
	}

	stopped := c.runTail("--name", "stopped", "--", "sh", "-c", loop)
	await(t, stopped.lines, "runs")
	c.order("stop", "stopped")
	if code := stopped.wait(); code != 1 || !strings.Contains(stopped.stderr.String(), "stopped/1: it was stopped") {
		t.Errorf("after a stop: exit code %d, want 1; errors %q", code, stopped.stderr.String())
	}
}
