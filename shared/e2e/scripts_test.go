package e2e

import (
	"bytes"
	"os"
	"os/exec"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// script runs one of the operators' scripts to its end.
func script(t *testing.T, name string, args ...string) (code int, out string) {
	t.Helper()
	cmd := exec.Command("../../scripts/"+name, args...)
	cmd.Env = append(os.Environ(), "CHAOS_SEED=7")
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
	c := start(t)
	code, out := script(t, "chaos.sh", "--rounds", "2", "--writers", "2", "--binary", binary, "--data-dir", c.dir)
	if code != 0 || !strings.Contains(out, "acknowledged writes are there") {
		t.Errorf("exit code %d\n%s", code, out)
	}
	t.Log(out)
	if code, out := script(t, "chaos.sh", "--nonsense"); code != 2 || !strings.Contains(out, "--nonsense") {
		t.Errorf("a wrong argument: exit code %d\n%s", code, out)
	}
}

// TestChaosScriptFindsALoss: keys that are deleted behind its back are missing.
func TestChaosScriptFindsALoss(t *testing.T) {
	c := start(t)
	type result struct {
		code int
		out  string
	}
	done := make(chan result, 1)
	go func() {
		code, out := script(t, "chaos.sh", "--rounds", "1", "--writers", "1", "--binary", binary, "--data-dir", c.dir)
		done <- result{code, out}
	}()
	cl := c.dial()
	var gone string
	eventually(t, "the script writes", func() bool {
		resp, err := cl.Get(testContext(t), "chaos/", clientv3.WithPrefix(), clientv3.WithSort(clientv3.SortByCreateRevision, clientv3.SortAscend))
		if err != nil || len(resp.Kvs) < 3 {
			return false
		}
		// It writes the next one when the one before was answered.
		gone = string(resp.Kvs[1].Key)
		return true
	})
	// The same key each time: a delete whose answer a kill cut off may have happened.
	eventually(t, "one is deleted", func() bool {
		_, err := cl.Delete(testContext(t), gone)
		return err == nil
	})
	r := <-done
	if r.code != 1 || !strings.Contains(r.out, "1 of ") || !strings.Contains(r.out, "MISSING") || !strings.Contains(r.out, gone) {
		t.Errorf("exit code %d; %s is not named as missing in\n%s", r.code, gone, r.out)
	}
}
