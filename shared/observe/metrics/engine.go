package metrics

import (
	"errors"
	"slices"
	"strings"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
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
