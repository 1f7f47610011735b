package e2e

import (
	"bytes"
	"os/exec"
	"strings"
	"testing"
)

// script runs one of the operators' scripts to its end.
func script(t *testing.T, name string, args ...string) (code int, out string) {
	t.Helper()
	cmd := exec.Command("../../scripts/"+name, args...)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), b.String()
}

func TestTreeScriptSeesWhatTheSystemSees(t *testing.T) {
	c := start(t)
	tr := c.full()
	code, out := script(t, "tree.sh", c.dir)
	if code != 0 || strings.Count(out, "dynast:follower") != 2 || strings.Count(out, "dynast:leader") != 1 {
		t.Errorf("exit code %d\n%s", code, out)
	}
	for _, f := range followersOf(tr) {
		if !strings.Contains(out, f.Address) {
			t.Errorf("%s is not there:\n%s", f.Address, out)
		}
	}
	c.killAll()
	if code, out := script(t, "tree.sh", c.dir); code != 1 || !strings.Contains(out, c.dir) {
		t.Errorf("with nobody there: exit code %d\n%s", code, out)
	}
}

func TestChaosScript(t *testing.T) {
	t.Setenv("DYNAST", binary)
	if code, out := script(t, "chaos.sh", "--help"); code != 0 || !strings.Contains(out, "--soak") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	if code, out := script(t, "chaos.sh", "--nonsense"); code != 2 || !strings.Contains(out, "--nonsense") {
		t.Errorf("a wrong argument: exit code %d\n%s", code, out)
	}
}
