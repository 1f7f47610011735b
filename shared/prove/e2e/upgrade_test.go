package e2e

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"github.com/dynast-io/dynast/shared/observe/tree"
)

// build builds the program with another version in it.
func build(t *testing.T, path, version string) string {
	t.Helper()
	args := []string{"build", "-ldflags", "-X main.version=" + version + " -X main.commit=0123456789abcdef -X main.date=2030-01-31T12:00:00Z", "-o", path}
	if raceEnabled {
		args = append(args, "-race")
	}
	if out, err := exec.Command("go", append(args, "github.com/dynast-io/dynast")...).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return path
}

func allOf(t *tree.Tree, version string) bool {
	for _, m := range t.Members {
		if m.Version != version {
			return false
		}
	}
	return true
}

// TestUpgrade replaces all processes by another build while clients write and read, and then back
// through the file that the leader runs from. Builds that do not start leave every process
// unchanged.
func TestUpgrade(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the program a second time")
	}
	c := newCluster(t, withExtra(`spawn { timeout = "3s" }`))
	dir := t.TempDir()
	installed := filepath.Join(dir, "dynast")
	copyFile(t, binary, installed)
	c.upFrom(installed)
	before := c.full()
	old := leaderOf(before).Version
	l := c.startLoad(4)

	badBuilds(t, c, dir)
	sameProcesses(t, before, c.full())

	next := build(t, filepath.Join(dir, "next"), "v9.9.9")
	if out, err := exec.Command(next, "version").Output(); err != nil || !strings.HasPrefix(string(out), "dynast v9.9.9, commit 0123456789ab of 2030-01-31T12:00:00Z, go") {
		t.Errorf("version of the next build: %q, error %v", out, err)
	}
	out := c.order("upgrade", "--binary", next)
	for _, want := range []string{"from " + old + " to v9.9.9", next, before.Leader} {
		if !strings.Contains(out, want) {
			t.Errorf("upgrade: %q is missing in %q", want, out)
		}
	}
	after := c.full()
	if after.Epoch != before.Epoch+1 || !allOf(after, "v9.9.9") {
		t.Errorf("after the upgrade, want the next epoch and only the new build:\n%+v", after)
	}
	for _, m := range before.Members {
		eventually(t, fmt.Sprintf("%s of the old build is gone", m.Address), func() bool { return c.gone(m) })
	}
	l.end()
	// A later leader starts its own build.
	c.kill(leaderOf(after))
	if now := c.full(); !allOf(now, "v9.9.9") {
		t.Errorf("after a takeover, want only the new build:\n%+v", now)
	}
	// Now upgrade in the usual way: replace the file that the leader runs from.
	if code, out := c.run("upgrade", "--data-dir", c.dir); code != 1 || !strings.Contains(out, "has not changed") {
		t.Errorf("upgrade to the same file: exit code %d, want 1\n%s", code, out)
	}
	if err := os.Rename(installed, next); err != nil {
		t.Fatal(err)
	}
	l = c.startLoad(4)
	c.order("upgrade")
	l.end()
	if now := c.full(); !allOf(now, old) {
		t.Errorf("after the upgrade back, want only the old build:\n%+v", now)
	}
}

func (c *cluster) upFrom(path string) {
	c.t.Helper()
	cmd := exec.Command(path, "up", "--config", c.config)
	cmd.Stderr = c.logs
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
}

func copyFile(t *testing.T, from, to string) {
	t.Helper()
	raw, err := os.ReadFile(from)
	if err == nil {
		err = os.WriteFile(to, raw, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
}

// badBuilds tries to upgrade to programs that are not dynast or do not start.
func badBuilds(t *testing.T, c *cluster, dir string) {
	t.Helper()
	says := `[ "$1" = version ] && { echo "dynast v0, go, linux/x"; exit 0; }` + "\n"
	for name, b := range map[string]struct {
		text string
		mode os.FileMode
		want string
	}{
		"absent":         {want: "no such file"},
		"not-executable": {text: "#!/bin/sh\n", mode: 0o644, want: "chmod +x"},
		"not-a-program":  {text: "\x7fELF nonsense", mode: 0o755, want: "cannot print its version"},
		"not-dynast":     {text: "#!/bin/sh\necho etcd 3.6\n", mode: 0o755, want: "not a build of dynast"},
		"crashes":        {text: "#!/bin/sh\n" + says + "exit 42\n", mode: 0o755, want: "exit status 42"},
		"hangs":          {text: "#!/bin/sh\n" + says + "exec sleep 1000\n", mode: 0o755, want: "did not join in time"},
		"other-protocol": {text: "#!/bin/sh\n" + says + "echo '1|99|unix|/nowhere|grpc|'\nexec sleep 1000\n", mode: 0o755, want: "99"},
		"no-handshake":   {text: "#!/bin/sh\n" + says + "echo hello\nexec sleep 1000\n", mode: 0o755, want: "unrecognized"},
	} {
		path := filepath.Join(dir, name)
		if b.mode != 0 {
			if err := os.WriteFile(path, []byte(b.text), b.mode); err != nil {
				t.Fatal(err)
			}
		}
		before := c.tree()
		code, out := c.run("upgrade", "--config", c.config, "--binary", path)
		t.Logf("%s: %s", name, strings.TrimSpace(out))
		if code != 1 || !strings.Contains(strings.ToLower(out), b.want) || !strings.Contains(out, "nothing was changed") {
			t.Errorf("upgrade to %s: exit code %d, want 1; the output must contain %q and \"nothing was changed\":\n%s", name, code, b.want, out)
		}
		sameProcesses(t, before, c.full())
	}
}

// TestUpgradeIsForgottenWithItsLeader kills the leader during an upgrade. The next leader keeps
// the wanted number of followers, all in sync, and accepts a new upgrade.
func TestUpgradeIsForgottenWithItsLeader(t *testing.T) {
	c := start(t, withExtra(`spawn { timeout = "60s" }`))
	before := c.full()
	slow := filepath.Join(t.TempDir(), "slow")
	if err := os.WriteFile(slow, []byte("#!/bin/sh\n[ \"$1\" = version ] && exec "+binary+" version\nexec sleep 1000\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	asked := make(chan string, 1)
	go func() {
		_, out := c.run("upgrade", "--config", c.config, "--binary", slow)
		asked <- out
	}()
	eventually(t, "the upgrade is under way", func() bool { return strings.Contains(c.logText(), "starting followers of build "+slow) })
	if code, out := c.run("scale", "3", "--config", c.config); code != 1 || !strings.Contains(out, "is being upgraded") {
		t.Errorf("scale during an upgrade: exit code %d, want 1\n%s", code, out)
	}
	c.signal(leaderOf(before), syscall.SIGKILL)
	after := c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != before.Leader && count(t, "in_sync") == 2 })
	if out := <-asked; !strings.Contains(out, "exited before it answered") {
		t.Errorf("the upgrade command printed %q, want that the leader exited", out)
	}
	c.order("scale", "3")
	c.full(3)
	if len(after.Members) != 3 {
		t.Errorf("after the takeover, want 3 members: %+v", after)
	}
}
