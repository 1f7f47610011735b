package metrics

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"github.com/prometheus/common/expfmt"
	"github.com/prometheus/common/model"
)

// ofServer are the metrics of etcd's server that have no counterpart here. Those that have one are
// replaced by dynast's own.
var ofServer = []string{
	"etcd_debugging_server_lease_expired_total",
	"etcd_debugging_server_watch_send_loop_control_stream_duration_seconds",
	"etcd_debugging_server_watch_send_loop_progress_duration_seconds",
	"etcd_debugging_server_watch_send_loop_watch_stream_duration_per_event_seconds",
	"etcd_debugging_server_watch_send_loop_watch_stream_duration_seconds",
	"etcd_network_client_grpc_received_bytes_total",
	"etcd_network_client_grpc_sent_bytes_total",
	"etcd_server_go_version",
	"etcd_server_health_failures",
	"etcd_server_health_success",
	"etcd_server_heartbeat_send_failures_total",
	"etcd_server_learner_promote_successes",
	"etcd_server_proposals_failed_total",
	"etcd_server_read_indexes_failed_total",
	"etcd_server_slow_read_indexes_total",
	"etcd_server_snapshot_apply_in_progress_total",
	"etcd_server_version",
	"os_fd_limit",
	"os_fd_used",
}

// together gathers dynast's own metrics, and those that libraries register by themselves. etcd's server
// is linked into this program for clusters of several hosts. In the store of a single host it does
// not run, and its metrics would say that there is no leader. So they are left out.
func together(own prometheus.Gatherer) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		ours, err := own.Gather()
		names := map[string]bool{}
		for _, f := range ours {
			names[f.GetName()] = true
		}
		theirs, libraryErr := prometheus.DefaultGatherer.Gather()
		theirs = slices.DeleteFunc(theirs, func(f *dto.MetricFamily) bool {
			return names[f.GetName()] || slices.Contains(ofServer, f.GetName())
		})
		both := append(ours, theirs...)
		slices.SortFunc(both, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
		return both, errors.Join(err, libraryErr)
	})
}

// ofStore are dynast's own metrics that describe the store of a single host. In a cluster of several hosts
// the engine is the store, and has etcd's metrics for the same things.
var ofStore = []string{
	"dynast_applied_index",
	"dynast_client_connections",
	"dynast_client_connections_max",
	"dynast_client_connections_waiting",
	"dynast_client_streams",
	"dynast_commit_index",
	"dynast_degraded",
	"dynast_disk_full",
	"dynast_failover_duration_seconds",
	"dynast_log_index",
	"dynast_memory_tight",
	"dynast_min_sync",
	"dynast_proposals_pending",
	"dynast_replication_lag_entries",
	"dynast_request_duration_seconds",
	"dynast_request_errors_total",
	"dynast_wal_fsync_duration_seconds",
}

// OfHost returns the metrics of the leader of a host in a cluster of several hosts, in Prometheus' text
// format: the processes of the host and its services.
func (c *Collector) OfHost() (string, error) {
	own := prometheus.NewPedanticRegistry()
	if err := own.Register(c); err != nil {
		return "", err
	}
	families, err := own.Gather()
	if err != nil {
		return "", err
	}
	var text strings.Builder
	for _, f := range families {
		if slices.Contains(ofStore, f.GetName()) || !strings.HasPrefix(f.GetName(), "dynast_") {
			continue
		}
		if _, err := expfmt.MetricFamilyToText(&text, f); err != nil {
			return "", err
		}
	}
	return text.String(), nil
}

// WithHost gathers the metrics of this process, which is an engine, and those of the leader of its host.
// ask returns a result of OfHost. If it fails, the others are gathered all the same.
func WithHost(ask func() (string, error)) prometheus.Gatherer {
	return prometheus.GathererFunc(func() ([]*dto.MetricFamily, error) {
		all, libraryErr := prometheus.DefaultGatherer.Gather()
		text, err := ask()
		if err != nil {
			return all, errors.Join(fmt.Errorf("the metrics of the leader of this host: %w", err), libraryErr)
		}
		p := expfmt.NewTextParser(model.UTF8Validation)
		host, err := p.TextToMetricFamilies(strings.NewReader(text))
		for _, f := range host {
			all = append(all, f)
		}
		slices.SortFunc(all, func(a, b *dto.MetricFamily) int { return strings.Compare(a.GetName(), b.GetName()) })
		return all, errors.Join(err, libraryErr)
	})
}
