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
		if got[name] == nil {
			t.Errorf("docs/metrics.md explains %s, but it is not served", name)
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
