package metrics

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"

	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/observe/meter"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// sample is a leader with some history.
func sample() Status {
	var r meter.Requests
	r.Done(meter.Write, 3*time.Millisecond, false)
	r.Done(meter.Write, time.Hour, true)
	r.Stream()
	var fsyncs meter.Histogram
	fsyncs.Observe(time.Millisecond)
	return Status{
		Tree: &tree.Tree{Epoch: 3, Followers: 2, Leader: "127.0.0.1:7401", Heir: "127.0.0.1:7402", Committed: 9, Applied: 8, Pending: 2,
			Load: r.Snapshot(),
			Members: []tree.Member{
				{Address: "127.0.0.1:7401", Role: "leader", State: "serving", Index: 10, CPUSeconds: 1.5, UptimeMS: 2500},
				{Address: "127.0.0.1:7402", Role: "follower", State: "in_sync", Lag: 4, HeartbeatAgeMS: 250, RSSBytes: 1 << 20},
			}},
		Totals: &events.Totals{Restarts: map[string]uint64{events.ReasonSignal: 4}, Takeovers: map[string]uint64{events.ReasonSilent: 2},
			FailoverCounts: []uint64{0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1}, FailoverSeconds: 20.004},
		Fsyncs: fsyncs.Snapshot(), Version: "v1", MinSync: 1, DiskFree: 5, MemoryLimit: 300, MemoryUsed: 280, MemoryTight: true,
		ClientConnections: 16, ClientConnectionsMax: 17, ClientConnectionsWaiting: 18, LogLinesLost: 6, EventsLost: 7,
		Services: &ps.Report{Services: []ps.Service{
			{Name: "web", Instances: []ps.Instance{
				{ID: "web/1", PID: 70, State: "ready", Ready: true, UptimeMS: 1500, Restarts: 2, RSSBytes: 4096, CPUSeconds: .25,
					LastExit: &ps.Exit{Code: -1, Signal: "killed"}},
				{ID: "web/2", State: "failed", Restarts: 9, LastExit: &ps.Exit{Code: 3}},
				// This process is ending: it still counts as ready, and its usage cannot be read.
				{ID: "web/3", PID: 71, State: "stopping", Ready: true},
			}},
			{Name: "backup", Instances: []ps.Instance{{ID: "backup/1", State: "waiting", Skipped: 5}}},
		}},
	}
}

// scrape gathers the metrics through the text format, as Prometheus does.
func scrape(t *testing.T, g prometheus.Gatherer) map[string]*dto.MetricFamily {
	t.Helper()
	families, err := g.Gather()
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	for _, f := range families {
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			t.Fatal(err)
		}
	}
	p := expfmt.NewTextParser(model.UTF8Validation)
	out, err := p.TextToMetricFamilies(&text)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

func own(t *testing.T, f func() (Status, error)) map[string]*dto.MetricFamily {
	t.Helper()
	r := prometheus.NewPedanticRegistry()
	r.MustRegister(New(f))
	return scrape(t, r)
}

func number(m *dto.Metric) float64 {
	switch {
	case m.Gauge != nil:
		return m.Gauge.GetValue()
	case m.Counter != nil:
		return m.Counter.GetValue()
	}
	return float64(m.Histogram.GetSampleCount())
}

func TestValues(t *testing.T) {
	got := own(t, func() (Status, error) { return sample(), nil })
	flat := map[string]float64{}
	for name, f := range got {
		for _, m := range f.Metric {
			var labels []string
			for _, l := range m.Label {
				labels = append(labels, l.GetValue())
				if l.GetName() == "pid" {
					t.Errorf("%s has a pid", name)
				}
			}
			flat[name+"{"+strings.Join(labels, ",")+"}"] = number(m)
		}
	}
	for name, want := range map[string]float64{
		"dynast_epoch{}": 3, "dynast_members{leader,serving}": 1, "dynast_members{follower,in_sync}": 1, "dynast_members{follower,lagging}": 0,
		"dynast_followers_wanted{}": 2, "dynast_min_sync{}": 1, "dynast_degraded{}": 0, "dynast_heir{}": 1,
		"dynast_restarts_total{signal}": 4, "dynast_restarts_total{silent}": 0, "dynast_takeovers_total{silent}": 2,
		"dynast_failover_duration_seconds{}": 2, "dynast_replication_lag_entries{127.0.0.1:7402}": 4,
		"dynast_heartbeat_age_seconds{127.0.0.1:7402}": .25, "dynast_member_uptime_seconds{127.0.0.1:7401}": 2.5,
		"dynast_member_resident_memory_bytes{127.0.0.1:7402}": 1 << 20, "dynast_member_cpu_seconds_total{127.0.0.1:7401}": 1.5,
		"dynast_log_index{}": 10, "dynast_commit_index{}": 9, "dynast_applied_index{}": 8, "dynast_proposals_pending{}": 2,
		"dynast_wal_fsync_duration_seconds{}": 1, "dynast_request_duration_seconds{write}": 2, "dynast_request_duration_seconds{read}": 0,
		"dynast_request_errors_total{write}": 1, "dynast_client_streams{}": 1, "dynast_disk_free_bytes{}": 5, "dynast_disk_full{}": 0,
		"dynast_memory_limit_bytes{}": 300, "dynast_memory_used_bytes{}": 280, "dynast_memory_tight{}": 1,
		"dynast_client_connections{}": 16, "dynast_client_connections_max{}": 17, "dynast_client_connections_waiting{}": 18,
		"dynast_log_lines_lost_total{}": 6, "dynast_events_lost_total{}": 7,
		"dynast_service_instances{web,ready}": 1, "dynast_service_instances{web,failed}": 1, "dynast_service_instances{web,backoff}": 0,
		"dynast_service_instances{backup,waiting}": 1, "dynast_service_instances{backup,ready}": 0,
		"dynast_service_up{web,web/1}": 1, "dynast_service_up{web,web/2}": 0, "dynast_service_up{web,web/3}": 0, "dynast_service_up{backup,backup/1}": 0,
		"dynast_service_restarts_total{web,web/1}": 2, "dynast_service_restarts_total{web,web/2}": 9,
		"dynast_service_last_exit_code{web,web/1}": -1, "dynast_service_last_exit_code{web,web/2}": 3,
		"dynast_service_resident_memory_bytes{web,web/1}": 4096, "dynast_service_cpu_seconds_total{web,web/1}": .25,
		"dynast_service_uptime_seconds{web,web/1}": 1.5, "dynast_service_uptime_seconds{web,web/3}": 0,
		"dynast_service_skipped_runs_total{backup,backup/1}": 5, "dynast_service_skipped_runs_total{web,web/1}": 0,
		"etcd_server_has_leader{}": 1, "etcd_server_leader_changes_seen_total{}": 2, "etcd_server_proposals_pending{}": 2,
	} {
		if v, ok := flat[name]; !ok || v != want {
			t.Errorf("%s is %g (served: %t), want %g", name, v, ok, want)
		}
	}
	for name, why := range map[string]string{
		"dynast_replication_lag_entries{127.0.0.1:7401}":  "the leader lags",
		"dynast_service_last_exit_code{web/3,web}":        "no process of web/3 has ended",
		"dynast_service_last_exit_code{backup/1,backup}":  "no process of backup/1 has ended",
		"dynast_service_resident_memory_bytes{web/2,web}": "web/2 has no process",
		"dynast_service_uptime_seconds{web/2,web}":        "web/2 has no process",
		"dynast_service_cpu_seconds_total{web/3,web}":     "the usage of web/3 is not known",
		"dynast_service_resident_memory_bytes{web/3,web}": "the usage of web/3 is not known",
	} {
		if v, ok := flat[name]; ok {
			t.Errorf("%s is %g, but %s", name, v, why)
		}
	}
	h := got["dynast_failover_duration_seconds"].Metric[0].Histogram
	for _, b := range h.Bucket {
		if want := map[bool]uint64{true: 1, false: 0}[b.GetUpperBound() >= .005]; b.GetCumulativeCount() != want && b.GetUpperBound() <= 10 {
			t.Errorf("%d takeovers of at most %gs, want %d", b.GetCumulativeCount(), b.GetUpperBound(), want)
		}
	}
	if h.GetSampleSum() != 20.004 {
		t.Errorf("%g seconds of takeovers", h.GetSampleSum())
	}
}

// A leader that is ending reports nothing, and the scrape still works.
func TestNoStatus(t *testing.T) {
	if got := own(t, func() (Status, error) { return Status{}, errors.New("ending") }); len(got) != 0 {
		t.Errorf("%v", got)
	}
}

// Without services there is no series about them.
func TestNoServices(t *testing.T) {
	for what, report := range map[string]*ps.Report{"no report": nil, "no service": {Services: []ps.Service{}}} {
		got := own(t, func() (Status, error) { s := sample(); s.Services = report; return s, nil })
		if got["dynast_epoch"] == nil {
			t.Errorf("%s: dynast_epoch is missing", what)
		}
		for name := range got {
			if strings.HasPrefix(name, "dynast_service_") {
				t.Errorf("%s: %s is served", what, name)
			}
		}
	}
}

// The metrics of the libraries are served too, and no name clashes with them.
func TestNoNameClashesWithLibraries(t *testing.T) {
	g, err := New(func() (Status, error) { return sample(), nil }).Gatherer()
	if err != nil {
		t.Fatal(err)
	}
	got := scrape(t, g)
	for _, name := range []string{"dynast_epoch", "go_goroutines"} {
		if got[name] == nil {
			t.Errorf("%s is not served", name)
		}
	}
}

// The tables in docs/metrics.md name exactly the metrics of this package, and they say about each
// what its help text says.
func TestDocumented(t *testing.T) {
	raw, err := os.ReadFile("../../../docs/metrics.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := testkit.DocumentedMetrics(string(raw))
	served := own(t, func() (Status, error) { return sample(), nil })
	for name, family := range served {
		if help := family.GetHelp(); documented[name] != help {
			t.Errorf("docs/metrics.md says %q about %s, its help says %q", documented[name], name, help)
		}
	}
	for name := range documented {
		if strings.HasPrefix(name, "dynast_") && served[name] == nil {
			t.Errorf("%s is explained in docs/metrics.md and not served", name)
		}
	}
}

// A host in a cluster of several hosts says nothing of the members' store, which is empty there, and the
// engine adds the rest to its own metrics.
func TestOfHost(t *testing.T) {
	text, err := New(func() (Status, error) { return sample(), nil }).OfHost()
	if err != nil {
		t.Fatal(err)
	}
	got := scrape(t, WithHost(func() (string, error) { return text, nil }))
	for _, name := range []string{"dynast_heir", "dynast_members", "dynast_service_up", "dynast_disk_free_bytes", "go_goroutines"} {
		if got[name] == nil {
			t.Errorf("%s is missing", name)
		}
	}
	for _, name := range ofStore {
		if got[name] != nil {
			t.Errorf("%s describes the store of the members", name)
		}
		if own(t, func() (Status, error) { return sample(), nil })[name] == nil {
			t.Errorf("%s does not exist", name)
		}
	}
	families, err := WithHost(func() (string, error) { return "", errors.New("gone") }).Gather()
	if err == nil || len(families) == 0 {
		t.Errorf("without a leader of the host: %d metrics, %v", len(families), err)
	}
}
