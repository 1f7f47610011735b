package e2e

import (
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// unit copies a shipped unit file and replaces paths in it.
func unit(t *testing.T, dir, name, as string, replace ...string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("../../../scripts", name))
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, as)
	if err := os.WriteFile(path, []byte(strings.NewReplacer(replace...).Replace(string(raw))), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// TestUnitFilesAreValid runs systemd's own checker. At run time, systemd only warns about a
// misspelt setting, and the protection of this setting is missing.
func TestUnitFilesAreValid(t *testing.T) {
	check, err := exec.LookPath("systemd-analyze")
	if err != nil {
		t.Skip("needs systemd-analyze")
	}
	dir := t.TempDir()
	// Without a running systemd, the checker knows no users.
	service := unit(t, dir, "dynast.service", "dynast.service", "/usr/local/bin/dynast", binary, "User=dynast\n", "User=root\n")
	socket := unit(t, dir, "dynast.socket", "dynast.socket")
	out, err := exec.Command(check, "verify", "--man=no", service, socket).CombinedOutput()
	for line := range strings.Lines(string(out)) {
		if strings.Contains(line, "dynast.") {
			t.Errorf("systemd's checker reports: %s", line)
		}
	}
	if err != nil && t.Failed() {
		t.Error(err)
	}
	raw, err := os.ReadFile(service)
	if err != nil {
		t.Fatal(err)
	}
	for _, line := range []string{"Type=notify", "NotifyAccess=all", "ExitType=cgroup", "OOMPolicy=continue", "KillMode=mixed", "Restart=always"} {
		if !strings.Contains(string(raw), "\n"+line+"\n") {
			t.Errorf("the unit does not have %s; without it the death of a leader can end the service", line)
		}
	}
	// With Delegate=yes alone, the file system of control groups would be read-only.
	if !strings.Contains(string(raw), "\nDelegate=yes\n") || strings.Contains(string(raw), "\nProtectControlGroups=yes") {
		t.Error("the programs of services get no control groups: the unit needs Delegate=yes, and must not have ProtectControlGroups=yes")
	}
	broken := unit(t, dir, "dynast.service", "broken.service", "OOMPolicy=continue", "OOMPolicies=continue", "/usr/local/bin/dynast", binary)
	if out, _ := exec.Command(check, "verify", "--man=no", broken).CombinedOutput(); !strings.Contains(string(out), "OOMPolicies") {
		t.Errorf("the checker did not report a misspelt setting:\n%s", out)
	}
}

// TestShippedConfiguration checks that the unit and the commands of an operator find the same data
// directory without flags: in the file that both read.
func TestShippedConfiguration(t *testing.T) {
	out := newCluster(t).output("config", "print", "--config", "../../../scripts/config.hcl")
	if !strings.Contains(out, `"/var/lib/dynast" # ../../../scripts/config.hcl:`) {
		t.Errorf("the shipped configuration does not name the data directory:\n%s", out)
	}
	raw, err := os.ReadFile("../../../scripts/dynast.service")
	if err != nil {
		t.Fatal(err)
	}
	text := string(raw)
	if strings.Contains(text, "--data-dir") || strings.Count(text, " --config "+config.SystemFile+"\n") != 2 || !strings.Contains(text, "\nStateDirectory=dynast\n") {
		t.Error("the unit has another data directory than its configuration file")
	}
}

// TestRealSystemd runs the shipped unit. The leader's death does not end the service, the heir
// becomes its main process, and a reload and a stop work.
func TestRealSystemd(t *testing.T) {
	if _, err := os.Stat("/run/systemd/system"); err != nil || os.Getuid() != 0 {
		t.Skip("needs root and a host that runs systemd")
	}
	c := newCluster(t)
	const name = "dynast-e2e.service"
	systemctl := func(args ...string) string {
		t.Helper()
		out, err := exec.Command("systemctl", args...).CombinedOutput()
		if err != nil {
			t.Fatalf("systemctl %v: %v\n%s", args, err, out)
		}
		return strings.TrimSpace(string(out))
	}
	show := func(property string) string { return systemctl("show", "--value", "-p", property, name) }
	path := unit(t, "/run/systemd/system", "dynast.service", name, "/usr/local/bin/dynast", binary, "/etc/dynast/config.hcl", c.config,
		"/var/lib/dynast", c.dir, "User=dynast\n", "", "PrivateTmp=yes\n", "ReadWritePaths="+filepath.Dir(c.dir)+"\n",
		"Directory=dynast\n", "Directory=dynast-e2e\n",
		"RestartSec=1\n", "RestartSec=1\nStandardError=append:"+c.logs.Name()+"\n")
	t.Cleanup(func() {
		_ = exec.Command("systemctl", "kill", "-s", "KILL", name).Run()
		os.Remove(path)
		_ = exec.Command("systemctl", "daemon-reload").Run()
	})
	systemctl("daemon-reload")
	systemctl("start", name)
	before := c.full()
	if show("MainPID") != strconv.Itoa(leaderOf(before).PID) || show("ActiveState") != "active" {
		t.Errorf("systemd shows the main process %s and the state %s; the leader is pid %d", show("MainPID"), show("ActiveState"), leaderOf(before).PID)
	}
	c.kill(leaderOf(before))
	after := c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != before.Leader })
	eventually(t, "systemd knows the new leader", func() bool { return show("MainPID") == strconv.Itoa(leaderOf(after).PID) })
	c.full()
	if s := show("ActiveState"); s != "active" || show("NRestarts") != "0" {
		t.Errorf("after the death of a leader: state %s, %s restarts; want active and none", s, show("NRestarts"))
	}
	if s := show("StatusText"); !strings.Contains(s, leaderOf(after).Address) {
		t.Errorf("the status does not name the new leader: %q", s)
	}
	// If systemd considered the death a failure, it would stop everything now.
	systemctl("reload", name)
	c.full()
	if s := show("ActiveState"); s != "active" || show("Result") != "success" || show("MainPID") != strconv.Itoa(leaderOf(after).PID) {
		t.Errorf("after a reload: state %s, result %s, main process %s", s, show("Result"), show("MainPID"))
	}
	systemctl("kill", "-s", "KILL", name)
	c.wait("systemd has started the cluster again", func(t *tree.Tree) bool { return t.Epoch > after.Epoch && count(t, "in_sync") == 2 })
	if n := show("NRestarts"); n != "1" {
		t.Errorf("systemd counts %s restarts, want 1", n)
	}
	systemctl("stop", name)
	if s := show("ActiveState"); s != "inactive" || len(c.processes()) != 0 {
		t.Errorf("after the stop: state %s, want inactive; processes %v, want none", s, c.processes())
	}
}
