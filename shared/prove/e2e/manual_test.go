package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// TestManualPages: each command in the help has a page that man(1) can read.
func TestManualPages(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "man1")
	c := newCluster(t)
	if code, out := c.run("man", dir); code != 0 {
		t.Fatalf("writing the manual pages: exit code %d\n%s", code, out)
	}
	_, help := c.run("--help")
	commands := regexp.MustCompile(`(?m)^  (\w+) {2,}\S`).FindAllStringSubmatch(help, -1)
	if len(commands) < 10 {
		t.Fatalf("found only %d commands in the help:\n%s", len(commands), help)
	}
	for _, m := range commands {
		if m[1] == "help" {
			continue
		}
		raw, err := os.ReadFile(filepath.Join(dir, "dynast-"+m[1]+".1"))
		if err != nil {
			t.Error(err)
			continue
		}
		if !strings.Contains(string(raw), ".TH ") || !strings.Contains(string(raw), "dynast-"+m[1]+" - ") || !strings.Contains(string(raw), ".SH OPTIONS") {
			t.Errorf("the page of %s is not as expected:\n%s", m[1], raw)
		}
	}
}

// TestCompletion: shells accept the scripts, and the scripts complete the addresses of members.
func TestCompletion(t *testing.T) {
	c := start(t)
	for shell, check := range map[string][]string{"bash": {"bash", "-n"}, "zsh": {"zsh", "-n"}, "fish": {"fish", "--no-execute"}} {
		out, err := exec.Command(binary, "completion", shell).Output()
		if err != nil || len(out) < 1000 {
			t.Errorf("the completion script for %s has %d bytes, error %v", shell, len(out), err)
		}
		if _, err := exec.LookPath(check[0]); err != nil {
			continue
		}
		file := filepath.Join(t.TempDir(), shell)
		if err := os.WriteFile(file, out, 0o600); err != nil {
			t.Fatal(err)
		}
		if out, err := exec.Command(check[0], append(check[1:], file)...).CombinedOutput(); err != nil {
			t.Errorf("%s does not accept its completion script: %v\n%s", shell, err, out)
		}
	}
	for _, command := range []string{"promote", "remove", "logs"} {
		var out bytes.Buffer
		cmd := exec.Command(binary, "__complete", command, "--config", c.config, "")
		cmd.Stdout = &out
		if err := cmd.Run(); err != nil {
			t.Error(err)
		}
		for _, m := range c.full().Members {
			if !strings.Contains(out.String(), m.Address+"\t"+m.Role) {
				t.Errorf("completion of %s: %s is missing in\n%s", command, m.Address, out.String())
			}
		}
	}
}
