package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
)

// script runs one of the operators' scripts to its end.
func script(t *testing.T, name string, args ...string) (code int, out string) {
	t.Helper()
	cmd := exec.Command("../../../scripts/"+name, args...)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), b.String()
}

func TestTreeScript(t *testing.T) {
	c := start(t)
	tr := c.full()
	code, out := script(t, "tree.sh", c.dir)
	if code != 0 || strings.Count(out, "dynast:follower") != 2 || strings.Count(out, "dynast:leader") != 1 {
		t.Errorf("tree.sh: exit code %d, or a wrong number of processes\n%s", code, out)
	}
	if strings.Count(out, "─ dynast:follower") != 2 || strings.Contains(out, "─ dynast:leader") {
		t.Errorf("tree.sh does not show the followers below the leader:\n%s", out)
	}
	for _, f := range followersOf(tr) {
		if !strings.Contains(out, f.Address) {
			t.Errorf("tree.sh does not show the follower %s:\n%s", f.Address, out)
		}
	}
	c.killAll()
	if code, out := script(t, "tree.sh", c.dir); code != 1 || !strings.Contains(out, c.dir) {
		t.Errorf("tree.sh without a running cluster: exit code %d, want 1\n%s", code, out)
	}
}

func TestChaosScript(t *testing.T) {
	t.Setenv("DYNAST", binary)
	if code, out := script(t, "chaos.sh", "--help"); code != 0 || !strings.Contains(out, "--soak") || !strings.Contains(out, "--services") || !strings.Contains(out, "kill-in-spawn") {
		t.Errorf("chaos.sh --help: exit code %d\n%s", code, out)
	}
	if code, out := script(t, "chaos.sh", "--nonsense"); code != 2 || !strings.Contains(out, "--nonsense") {
		t.Errorf("an unknown argument: exit code %d, want 2\n%s", code, out)
	}
}

// TestDemoScript runs the commands that the README shows, in the same order.
func TestDemoScript(t *testing.T) {
	c := newCluster(t)
	t.Setenv("DEMO_BINARY", binary)
	t.Setenv("DEMO_CLIENT", c.client)
	t.Setenv("DEMO_PORTS", fmt.Sprintf("%d-%d", c.first, c.first+39))
	code, out := script(t, "demo.sh")
	if code != 0 {
		t.Fatalf("demo.sh: exit code %d\n%s", code, out)
	}
	readme, err := os.ReadFile("../../../README.md")
	if err != nil {
		t.Fatal(err)
	}
	_, shown, ok := strings.Cut(string(readme), "<!-- demo:begin")
	shown, _, ok2 := strings.Cut(shown, "<!-- demo:end")
	if !ok || !ok2 {
		t.Fatal("the README has no markers for the demonstration")
	}
	var commands int
	for line := range strings.Lines(shown) {
		if strings.HasPrefix(line, "$ ") {
			commands++
			if !strings.Contains(out, line) {
				t.Errorf("the README shows %q, which the script does not run:\n%s", line, out)
			}
		}
	}
	for _, want := range []string{"greeting\nhello\n", "epoch 2", "signal: killed", "stopped, 3 processes are gone"} {
		if !strings.Contains(out, want) || !strings.Contains(shown, want) {
			t.Errorf("%q is missing in the README or in\n%s", want, out)
		}
	}
	if commands < 6 {
		t.Errorf("the README shows only %d commands", commands)
	}
	if code, out := script(t, "demo.sh", "--nonsense"); code != 2 || !strings.Contains(out, "--nonsense") {
		t.Errorf("an unknown argument: exit code %d, want 2\n%s", code, out)
	}
}
