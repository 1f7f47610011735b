package e2e

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dynast-io/dynast/shared/observe/tree"
)

// reconfigure rewrites the cluster's file with other text in it.
func (c *cluster) reconfigure(old, new string) {
	c.t.Helper()
	raw, err := os.ReadFile(c.config)
	if err != nil {
		c.t.Fatal(err)
	}
	if !strings.Contains(string(raw), old) {
		c.t.Fatalf("the configuration does not contain %q:\n%s", old, raw)
	}
	if err := os.WriteFile(c.config, []byte(strings.Replace(string(raw), old, new, 1)), 0o600); err != nil {
		c.t.Fatal(err)
	}
}

// reload runs the command and returns its two outputs separately.
func (c *cluster) reload(args ...string) (code int, stdout, stderr string) {
	c.t.Helper()
	cmd := exec.Command(binary, append([]string{"reload", "--data-dir", c.dir}, args...)...)
	var out, errs bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &errs
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	_ = cmd.Wait()
	return cmd.ProcessState.ExitCode(), out.String(), errs.String()
}

// TestReload: reloadable fields change in all members at once, so they also hold under the next
// leader. Fields that need a restart are named and keep their values.
func TestReload(t *testing.T) {
	c := start(t)
	before := c.full()
	if code, out, errs := c.reload(); code != 0 || !strings.Contains(out, "no change: "+c.config) {
		t.Errorf("reload of an unchanged file: exit code %d, want 0 and \"no change\"\n%s%s", code, out, errs)
	}
	c.reconfigure("followers = 2", "followers = 3")
	c.reconfigure(`log { level = "debug" }`, "log { level = \"warn\" }\nreplication { queue_bytes = \"2MiB\" }\nstore { commit_interval = \"2s\" }")
	code, out, errs := c.reload()
	for _, want := range []string{"reloaded " + c.config, "followers", "2 -> 3", "log.level", "debug -> warn",
		"needs a restart", "store.commit_interval", "1s stays, not 2s"} {
		if code != 0 || !strings.Contains(out, want) {
			t.Errorf("reload: exit code %d, want 0; %q is missing in\n%s%s", code, want, out, errs)
		}
	}
	if strings.Contains(out, "confirmed") {
		t.Errorf("not all followers confirmed the configuration:\n%s", out)
	}
	full := c.full(3)
	quiet := len(c.logText())
	// The followers at the time of the reload use the new values, and so does a follower that is
	// started later.
	c.kill(leaderOf(full))
	after := c.full(3)
	if after.Leader == before.Leader {
		t.Fatal("the killed leader still leads: there was no takeover")
	}
	for line := range strings.Lines(c.logText()[quiet:]) {
		if strings.Contains(line, "[INFO]") || strings.Contains(line, "[DEBUG]") {
			t.Errorf("a member logs below warn: %s", line)
		}
	}
	if _, err := c.dial().Put(testContext(t), "big", strings.Repeat("x", 1<<20)); err != nil {
		t.Error(err)
	}
	// An invalid file changes nothing, and the error names the line. The next leader reads the
	// same file.
	c.reconfigure("followers = 3", "followers = 4\nnonsense = 1")
	if code, out, errs := c.reload(); code != 2 || out != "" || !strings.Contains(errs, c.config+":") || !strings.Contains(errs, `"nonsense"`) {
		t.Errorf("reload of an invalid file: exit code %d, want 2\n%s%s", code, out, errs)
	}
	sameProcesses(t, after, c.full(3))
	c.reconfigure("\nnonsense = 1", "")
	// A reload replaces the number of followers that an operator set with the one of the file.
	if code, out := c.run("scale", "1", "--data-dir", c.dir); code != 0 {
		t.Fatalf("scale: exit code %d\n%s", code, out)
	}
	code, out, errs = c.reload("--json")
	if code != 0 || !strings.Contains(out, `"before":"1","after":"4"`) || !strings.Contains(out, `"schema":1`) {
		t.Errorf("reload --json: exit code %d\n%s%s", code, out, errs)
	}
	c.full(4)
}

// TestReloadForHangup: SIGHUP makes a later leader reload. The flags of the first leader still
// override the file.
func TestReloadForHangup(t *testing.T) {
	c, sd := newCluster(t), newManager(t)
	c.service(sd, nil, ":", "--log-level", "info")
	c.kill(leaderOf(c.full()))
	now := c.full()
	c.reconfigure("followers = 2", "followers = 1")
	c.reconfigure(`level = "debug"`, `level = "error"`)
	follower := followersOf(now)[0]
	c.signal(follower, syscall.SIGHUP) // SIGHUP to a follower has no effect
	c.signal(leaderOf(now), syscall.SIGHUP)
	c.wait("one follower has left", func(t *tree.Tree) bool { return len(t.Members) == 2 })
	w := sd.from(t, leaderOf(now).PID, "RELOADING=1")
	if !strings.Contains(w.text, "MONOTONIC_USEC=") {
		t.Errorf("the message to the service manager has no MONOTONIC_USEC: %q", w.text)
	}
	eventually(t, "the leader reports that it is ready again", func() bool {
		words := sd.words()
		return len(words) > 0 && words[len(words)-1].text == "READY=1" || strings.Contains(fmt.Sprint(words[len(words)-1]), "STATUS")
	})
	if !strings.Contains(c.logText(), "reloaded the configuration") {
		t.Error("the file overrides the log level of the command line")
	}
	if err := os.WriteFile(c.config, []byte("followers = 99"), 0o600); err != nil {
		t.Fatal(err)
	}
	c.signal(leaderOf(now), syscall.SIGHUP)
	eventually(t, "the log names the invalid line", func() bool {
		return strings.Contains(c.logText(), "nothing was changed") && strings.Contains(c.logText(), filepath.Base(c.config)+":1:13")
	})
}
