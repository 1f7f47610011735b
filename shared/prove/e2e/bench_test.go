package e2e

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynast-io/dynast/shared/prove/bench"
	"github.com/dynast-io/dynast/shared/prove/netns"
)

// bench runs one of the bench commands on a cluster and decodes what it prints.
func (c *cluster) bench(res any, args ...string) {
	c.t.Helper()
	cmd := c.command(append(append([]string{"bench"}, args...), "--json", "--config", c.config)...)
	var out bytes.Buffer
	cmd.Stdout = &out
	if err := cmd.Run(); err != nil {
		c.t.Fatalf("bench %s: %v\n%s", strings.Join(args, " "), err, &out)
	}
	if err := json.Unmarshal(out.Bytes(), res); err != nil {
		c.t.Fatalf("bench %s: %v\n%s", strings.Join(args, " "), err, &out)
	}
}

func TestBenchCommandsMeasureACluster(t *testing.T) {
	c := start(t)
	pids := c.pids()
	for _, w := range bench.Workloads {
		var res bench.Result
		c.bench(&res, w, "--clients", "4", "--connections", "2", "--total", "40", "--keys", "50", "--value-bytes", "64")
		want := int64(40)
		if w == "watch" {
			want *= 3 // watchers
		}
		if res.Schema != bench.Schema || res.Workload != w || res.Operations != want || res.Errors != 0 || res.Latency.P50 <= 0 || res.PerSecond <= 0 {
			t.Errorf("bench %s: unexpected result %+v", w, res)
		}
		if got := slices.Sorted(slices.Values(res.Servers.PIDs)); !slices.Equal(got, pids) {
			t.Errorf("%s: the result names the server processes %v, want %v", w, got, pids)
		}
	}
	var rest bench.Resting
	if resp, err := c.dial().Get(testContext(t), "bench/", clientv3.WithPrefix(), clientv3.WithCountOnly()); err != nil || resp.Count != 0 {
		t.Errorf("keys are left after the loads: %v, %v", resp, err)
	}
	c.bench(&rest, "memory", "--keys", "200", "--rest", "10ms", "--keep")
	if resp, err := c.dial().Get(testContext(t), "bench/0000000199"); err != nil || len(resp.Kvs) != 1 {
		t.Errorf("get the last key of the load: %v, %v", resp, err)
	}
	if rest.Keys != 200 || rest.Servers.RSSBytes < rest.Servers.PSSBytes || rest.Servers.PSSBytes == 0 {
		t.Errorf("memory: %+v", rest)
	}
	c.bench(&rest, "idle", "--duration", "10ms")
	if rest.Workload != "idle" || !slices.Equal(slices.Sorted(slices.Values(rest.Servers.PIDs)), pids) {
		t.Errorf("idle: %+v", rest)
	}
	var fail bench.FailoverResult
	c.bench(&fail, "failover", "--kills", "1", "--clients", "8")
	if fail.Kills != 1 || fail.Clients != 8 || fail.Median <= 0 || fail.SlowestClient < fail.Median || len(fail.Missing) != 0 || fail.Writes == 0 {
		t.Errorf("failover: %+v", fail)
	}
	led := c.full().Leader
	c.bench(&fail, "failover", "--promote", "--kills", "1", "--clients", "8")
	if fail.Action != "hand-over" || fail.Median <= 0 || len(fail.Missing) != 0 || fail.Attempts != 0 {
		t.Errorf("hand-over: %+v", fail)
	}
	if c.full().Leader == led {
		t.Errorf("%s is still the leader after the hand-over", led)
	}
}

func (c *cluster) pids() []int {
	var pids []int
	for _, m := range c.full().Members {
		pids = append(pids, m.PID)
	}
	slices.Sort(pids)
	return pids
}

// TestBenchOutlivesALeader: a load continues when the leader dies, and reports which processes it
// could not count.
func TestBenchOutlivesALeader(t *testing.T) {
	c := start(t)
	for _, workload := range []string{"put", "watch"} {
		full := c.full()
		cmd := c.command("bench", workload, "--duration", "3s", "--keys", "50", "--config", c.config)
		var out, errs bytes.Buffer
		cmd.Stdout, cmd.Stderr = &out, &errs
		if err := cmd.Start(); err != nil {
			t.Fatal(err)
		}
		cl := c.dial()
		eventually(t, "the load is running", func() bool {
			resp, err := cl.Get(testContext(t), "bench/", clientv3.WithPrefix(), clientv3.WithCountOnly())
			return err == nil && resp.Count > 10
		})
		c.kill(leaderOf(full))
		if err := cmd.Wait(); err != nil {
			t.Fatalf("bench %s: %v\n%s%s", workload, err, &out, &errs)
		}
		for _, want := range []string{workload + ": ", "/s", "latency: ", "1 of 3 server processes ended during the measurement", "2 server processes: "} {
			if !strings.Contains(out.String(), want) {
				t.Errorf("the output of bench %s does not contain %q:\n%s", workload, want, &out)
			}
		}
	}
}

func TestBenchErrorsNameTheMissingFlag(t *testing.T) {
	c := newCluster(t)
	for want, args := range map[string][]string{
		"workload":     {"nonsense"},
		"at least one": {"put", "--clients", "0", "--endpoints", c.client},
		"TLS":          {"put", "--endpoints", c.client, "--cacert", filepath.Join(t.TempDir(), "none.pem")},
	} {
		cmd := exec.Command(binary, append(append([]string{"bench"}, args...), "--config", c.config)...)
		out, err := cmd.CombinedOutput()
		var exit *exec.ExitError
		if !errors.As(err, &exit) || args[0] != "nonsense" && !strings.Contains(string(out), want) {
			t.Errorf("%v: error %v, want a message with %q:\n%s", args, err, want, out)
		}
	}
}

// TestBenchOverTLS measures a cluster that requires TLS and client certificates. Without a CA the
// command names the missing flag.
func TestBenchOverTLS(t *testing.T) {
	ca := newIssuer(t)
	cert, key := ca.issue("server")
	roots := filepath.Join(ca.dir, "ca.crt")
	c := newCluster(t)
	raw := must(os.ReadFile(c.config))(t)
	secure := fmt.Sprintf("client {\n  cert_file = %q\n  key_file = %q\n  client_ca_file = %q\n", cert, key, roots)
	if err := os.WriteFile(c.config, bytes.Replace(raw, []byte("client {\n"), []byte(secure), 1), 0o600); err != nil {
		t.Fatal(err)
	}
	c.up()
	c.full()
	mine, mineKey := ca.issue("bench")
	var res bench.Result
	c.bench(&res, "put", "--total", "20", "--cacert", roots, "--cert", mine, "--key", mineKey)
	if res.Operations != 20 || res.Errors != 0 || len(res.Servers.PIDs) != 3 {
		t.Errorf("bench over TLS: unexpected result %+v", res)
	}
	out, err := exec.Command(binary, "bench", "put", "--total", "20", "--config", c.config).CombinedOutput()
	if err == nil || !strings.Contains(string(out), "--cacert") {
		t.Errorf("bench without a CA: error %v, want a message that names the flag\n%s", err, out)
	}
}

// TestBenchScript runs the comparison and the growth measurement from start to end, and a part of the
// measurement of several hosts, and checks that they end every process that they started.
func TestBenchScript(t *testing.T) {
	if testing.Short() {
		t.Skip("builds etcd and starts eight processes")
	}
	for _, c := range []struct {
		args []string
		want []string
	}{
		{nil, []string{"| put, 64 clients |", "| get, linearizable, 64 clients |", "| watch, 16 watchers |", "### Latency", "### Processor time", "| idle: percent of a core |", "| 64 | 1 |"}},
		{[]string{"-growth"}, []string{"### Clients", "### Size of values", "### Followers", "### Size of the database"}},
		{[]string{"-hosts", "-only", "put, 1 client"}, []string{"| put, 1 client |", "dynast / etcd"}},
	} {
		if c.args != nil && c.args[0] == "-hosts" {
			if err := netns.Available(); err != nil {
				t.Logf("several hosts are not measured: %v", err)
				continue
			}
		}
		dir := t.TempDir()
		page := filepath.Join(dir, "page.md")
		if err := os.WriteFile(page, []byte("before\n<!-- bench.sh: comparison -->\nold\n<!-- end of comparison -->\n<!-- bench.sh: growth -->\nold\n<!-- end of growth -->\n<!-- bench.sh: hosts -->\nold\n<!-- end of hosts -->\nafter\n"), 0o600); err != nil {
			t.Fatal(err)
		}
		code, out := script(t, "bench.sh", append(c.args, "-smoke", "-dynast", binary, "-dir", dir, "-out", page)...)
		raw, err := os.ReadFile(page)
		if code != 0 || err != nil {
			t.Fatalf("%v: exit code %d, %v\n%s", c.args, code, err, out)
		}
		for _, w := range append(c.want, "before\n", "after\n") {
			if !strings.Contains(string(raw), w) {
				t.Errorf("%v: the page does not contain %q:\n%s", c.args, w, raw)
			}
		}
		if strings.Count(string(raw), "old\n") != 2 {
			t.Errorf("%v: exactly one of the three sections must be replaced:\n%s", c.args, raw)
		}
		if left, _ := filepath.Glob(filepath.Join(dir, "dynast-bench-*")); len(left) > 0 {
			t.Errorf("%v: the script left the files %v", c.args, left)
		}
		cmdlines, _ := filepath.Glob("/proc/[0-9]*/cmdline")
		for _, f := range cmdlines {
			if raw, err := os.ReadFile(f); err == nil && bytes.Contains(raw, []byte(dir)) {
				t.Errorf("%v: the script left a process: %q", c.args, raw)
			}
		}
	}
}
