package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestInvalidInputIsExplained: invalid input gets exit code 2 and an error with its place and the
// allowed values.
func TestInvalidInputIsExplained(t *testing.T) {
	c := newCluster(t)
	good, err := os.ReadFile(c.config)
	if err != nil {
		t.Fatal(err)
	}
	for text, want := range map[string][]string{
		"folowers = 2":                           {":1:1:", `"folowers"`, `"followers"`},
		"\nfollowers = 1000":                     {":2:13:", "1000", "32"},
		"heartbeat {\n  timeout = \"5\"\n}":      {":2:13:", "heartbeat.timeout", "unit"},
		"client {\n  listen = \"127.0.0.1\"\n}":  {":2:12:", "client.listen", "port"},
		"client {\n  listen = \"127.0.0.1:1\"\n": {":1:"},
		"store { quota = \"2 apples\" }":         {":1:17:", "store.quota", "GiB"},
	} {
		file := filepath.Join(t.TempDir(), "mine.hcl")
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		for _, command := range []string{"up", "tree", "stop"} {
			code, out := c.run(command, "--config", file)
			if code != 2 {
				t.Errorf("%s with %q: exit code %d, want 2\n%s", command, text, code, out)
			}
			for _, w := range append(want, file) {
				if !strings.Contains(out, w) {
					t.Errorf("%s with %q: the message does not contain %q:\n%s", command, text, w, out)
				}
			}
		}
	}
	for _, args := range [][]string{
		{"up", "--followers", "many"}, {"up", "--heartbeat-timeout", "5"}, {"up", "extra"}, {"up", "--nope"},
		{"nonsense"}, {"join"}, {"join", "--leader", "here"}, {"worker"}, {"up", "--config", filepath.Join(t.TempDir(), "none.hcl")},
	} {
		code, out := c.run(args...)
		if code != 2 || !strings.Contains(out, "dynast: ") {
			t.Errorf("%v: exit code %d, want 2\n%s", args, code, out)
		}
	}
	if _, err := os.Stat(c.dir); !os.IsNotExist(err) {
		t.Errorf("a refused command created %s: %v", c.dir, err)
	}
	if now, err := os.ReadFile(c.config); err != nil || string(now) != string(good) {
		t.Errorf("the configuration was changed: %v", err)
	}
}

// TestTakenClientAddressNamesItsHolder: the error names the process that uses the address, and
// says what to do.
func TestTakenClientAddressNamesItsHolder(t *testing.T) {
	c := newCluster(t)
	blocker := listen(t, c.client)
	defer blocker.Close()
	code, out := c.run("up", "--config", c.config)
	for _, want := range []string{c.client, fmt.Sprintf("pid %d", os.Getpid()), "client.listen"} {
		if !strings.Contains(out, want) {
			t.Errorf("the message does not contain %q:\n%s", want, out)
		}
	}
	if code != 1 {
		t.Errorf("up on a used address: exit code %d, want 1", code)
	}
	blocker.Close()
	c.up() // the refused process left nothing that prevents a start
	c.full()
}

// TestPortsWrapAround: after the last port of the range, members use the first free port again.
func TestPortsWrapAround(t *testing.T) {
	c := newCluster(t)
	raw, err := os.ReadFile(c.config)
	if err != nil {
		t.Fatal(err)
	}
	narrow := strings.Replace(string(raw), fmt.Sprintf("-%d\"", c.first+39), fmt.Sprintf("-%d\"", c.first+3), 1)
	if err := os.WriteFile(c.config, []byte(narrow), 0o600); err != nil {
		t.Fatal(err)
	}
	c.up()
	cl := c.dial()
	for i := range 6 {
		tr := c.full()
		for _, m := range tr.Members {
			var port int
			if _, err := fmt.Sscanf(m.Address, c.host+":%d", &port); err != nil || port < c.first || port > c.first+3 {
				t.Errorf("member %s is outside the range from %d to %d: %v", m.Address, c.first, c.first+3, err)
			}
		}
		c.kill(leaderOf(tr))
		put(t, cl, fmt.Sprint("wrap/", i), "x")
	}
	c.full()
}
