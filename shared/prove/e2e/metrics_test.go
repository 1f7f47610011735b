package e2e

import (
	"fmt"
	"net/http"
	"os"
	"strings"
	"syscall"
	"testing"

	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// scrape reads /metrics with Prometheus' own parser.
func (c *cluster) scrape() map[string]*dto.MetricFamily {
	c.t.Helper()
	resp, err := http.Get("http://" + c.client + "/metrics")
	if err != nil {
		c.t.Fatal(err)
	}
	defer resp.Body.Close()
	p := expfmt.NewTextParser(model.UTF8Validation)
	out, err := p.TextToMetricFamilies(resp.Body)
	if err != nil {
		c.t.Fatal(err)
	}
	return out
}

// total returns the sum of a metric over all labels except the given ones.
func total(f *dto.MetricFamily, want ...string) float64 {
	var sum float64
	for _, m := range f.GetMetric() {
		var labels []string
		for _, l := range m.Label {
			labels = append(labels, l.GetName()+"="+l.GetValue())
		}
		all := true
		for _, w := range want {
			all = all && strings.Contains(strings.Join(labels, " "), w)
		}
		if all {
			sum += m.GetGauge().GetValue() + m.GetCounter().GetValue() + float64(m.GetHistogram().GetSampleCount())
		}
	}
	return sum
}

// TestMetrics: docs/metrics.md names exactly the metrics of a leader. Their values match what the
// test did, and counts of deaths continue after a takeover.
func TestMetrics(t *testing.T) {
	c := start(t)
	cl := c.dial()
	for i := range 7 {
		if _, err := cl.Put(testContext(t), fmt.Sprint(i), "v"); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cl.Get(testContext(t), "0"); err != nil {
		t.Fatal(err)
	}
	got := c.scrape()
	raw, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := testkit.DocumentedMetrics(string(raw))
	for name := range got {
		if documented[name] == "" && !strings.HasPrefix(name, "go_") && !strings.HasPrefix(name, "process_") {
			t.Errorf("%s is served, but docs/metrics.md does not explain it", name)
		}
	}
	for name := range documented {
		// This cluster has no services.
		if ofServices := strings.HasPrefix(name, "dynast_service_"); ofServices != (got[name] == nil) {
			t.Errorf("%s is explained in docs/metrics.md; served: %t", name, got[name] != nil)
		}
	}
	check := func(got map[string]*dto.MetricFamily, name string, want float64, labels ...string) {
		t.Helper()
		if v := total(got[name], labels...); v != want {
			t.Errorf("%s%v is %g, want %g", name, labels, v, want)
		}
	}
	check(got, "dynast_request_duration_seconds", 7, "type=write")
	check(got, "dynast_request_duration_seconds", 1, "type=read")
	check(got, "dynast_members", 2, "role=follower", "state=in_sync")
	check(got, "dynast_epoch", 1)
	check(got, "dynast_restarts_total", 0)
	check(got, "dynast_takeovers_total", 0)
	if total(got["dynast_wal_fsync_duration_seconds"]) < 1 || total(got["dynast_member_resident_memory_bytes"]) < 1<<20 {
		t.Errorf("the metrics show %g fsyncs and %g bytes of memory, want more", total(got["dynast_wal_fsync_duration_seconds"]), total(got["dynast_member_resident_memory_bytes"]))
	}

	before := c.full()
	c.signal(followersOf(before)[1], syscall.SIGKILL)
	c.wait("the follower is replaced", func(t *tree.Tree) bool { return t.Restarts == 1 && count(t, "in_sync") == 2 })
	for n := 1; n <= 2; n++ {
		old := leaderOf(c.full())
		c.signal(old, syscall.SIGKILL)
		c.wait("the next leader has two followers in sync", func(t *tree.Tree) bool {
			return t.Takeovers == uint64(n) && t.Leader != old.Address && count(t, "in_sync") == 2
		})
		got = c.scrape()
		check(got, "dynast_takeovers_total", float64(n), "reason=signal")
		check(got, "dynast_restarts_total", float64(n+1), "reason=signal")
		check(got, "dynast_restarts_total", float64(n+1))
		check(got, "dynast_failover_duration_seconds", float64(n))
		check(got, "dynast_epoch", float64(n+1))
	}

	// A hand-over on purpose is also a takeover, but not a restart.
	before = c.full()
	c.output("promote", "--config", c.config)
	c.wait("the heir leads", func(t *tree.Tree) bool { return t.Leader == before.Heir && t.Takeovers == 3 })
	got = c.scrape()
	check(got, "dynast_takeovers_total", 1, "reason=handed_over")
	check(got, "dynast_restarts_total", 3)
	check(got, "dynast_takeovers_total", 3)
}

// TestServiceMetrics: the metrics of services match what dynast ps says, and the counts continue
// after a takeover.
func TestServiceMetrics(t *testing.T) {
	c := newCluster(t, withServices(t, `
service "web" {
`+sleeper+`
instances = 2
}
service "bad" {
  script = "exit 3"
  backoff {
    first = "10ms"
    limit = 3
  }
}
`))
	c.up()
	c.awaitState("ready", "web/1", "web/2")
	c.awaitState("failed", "bad/1")
	killed := c.instance("web/1").PID
	if err := syscall.Kill(killed, syscall.SIGKILL); err != nil {
		t.Fatal(err)
	}
	eventually(t, "web/1 runs again", func() bool {
		i := c.instance("web/1")
		return i.PID != killed && i.State == "ready"
	})
	check := func(when string) {
		t.Helper()
		var got map[string]*dto.MetricFamily
		// A new leader serves clients before it has looked at what runs.
		eventually(t, when+": the metrics of the services are served", func() bool {
			got = c.scrape()
			return total(got["dynast_service_up"]) == 2
		})
		for _, want := range []struct {
			name   string
			labels []string
			value  float64
		}{
			{"dynast_service_instances", []string{"service=web", "state=ready"}, 2},
			{"dynast_service_instances", []string{"service=bad", "state=failed"}, 1},
			{"dynast_service_instances", nil, 3},
			{"dynast_service_up", []string{"service_instance=web/1", "service=web"}, 1},
			{"dynast_service_up", []string{"service_instance=bad/1"}, 0},
			{"dynast_service_restarts_total", []string{"service_instance=web/1"}, 1},
			{"dynast_service_restarts_total", []string{"service_instance=web/2"}, 0},
			{"dynast_service_restarts_total", []string{"service_instance=bad/1"}, 2},
			{"dynast_service_last_exit_code", []string{"service_instance=web/1"}, -1},
			{"dynast_service_last_exit_code", []string{"service_instance=bad/1"}, 3},
			{"dynast_service_skipped_runs_total", nil, 0},
		} {
			if v := total(got[want.name], want.labels...); v != want.value {
				t.Errorf("%s: %s%v is %g, want %g", when, want.name, want.labels, v, want.value)
			}
		}
		// web/2 has never ended, and bad/1 has no process.
		for name, series := range map[string]int{"dynast_service_up": 3, "dynast_service_last_exit_code": 2, "dynast_service_uptime_seconds": 2,
			"dynast_service_resident_memory_bytes": 2, "dynast_service_cpu_seconds_total": 2} {
			if n := len(got[name].GetMetric()); n != series {
				t.Errorf("%s: %s has %d series, want %d", when, name, n, series)
			}
		}
		for _, id := range []string{"web/1", "web/2"} {
			if total(got["dynast_service_resident_memory_bytes"], "service_instance="+id) < 1<<12 || total(got["dynast_service_uptime_seconds"], "service_instance="+id) <= 0 {
				t.Errorf("%s: memory or uptime of %s is missing", when, id)
			}
		}
	}
	check("at first")
	c.kill(leaderOf(c.full()))
	check("after a takeover")
}
