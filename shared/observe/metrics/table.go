package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/observe/meter"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/observe/tree"
	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// all is the table of metrics.
var all = []*metric{
	buildInfo(),
	gauge("dynast_epoch", "Number of the present leadership. Each takeover begins a greater one.",
		func(s *Status) float64 { return float64(s.Tree.Epoch) }),
	members(),
	gauge("dynast_followers_wanted", "Number of followers that the leader keeps alive.",
		func(s *Status) float64 { return float64(s.Tree.Followers) }),
	gauge("dynast_min_sync", "Number of followers that must have a write before it is acknowledged.",
		func(s *Status) float64 { return float64(s.MinSync) }),
	gauge("dynast_degraded", "1 while fewer followers than min_sync are in sync, except while the first ones start.",
		func(s *Status) float64 { return flag(s.Tree.Degraded) }),
	gauge("dynast_heir", "1 while a follower is in sync and could take over.",
		func(s *Status) float64 { return flag(s.Tree.Heir != "") }),

	perReason("dynast_restarts_total", "Processes that had to be replaced, by reason. A takeover does not reset it.",
		events.Reasons, func(s *Status) map[string]uint64 { return s.Totals.Restarts }),
	perReason("dynast_takeovers_total", "Takeovers, by how the previous leader ended. A takeover does not reset it.",
		events.TakeoverReasons, func(s *Status) map[string]uint64 { return s.Totals.Takeovers }),
	failovers(),

	perMember(prometheus.GaugeValue, "dynast_replication_lag_entries", "Number of entries by which a follower's log is behind the leader's.", true,
		func(m tree.Member) float64 { return float64(m.Lag) }),
	perMember(prometheus.GaugeValue, "dynast_heartbeat_age_seconds", "Time since the leader last heard from a follower.", true, age),
	perMember(prometheus.GaugeValue, "dynast_member_uptime_seconds", "Time since a process started.", false,
		func(m tree.Member) float64 { return (time.Duration(m.UptimeMS) * time.Millisecond).Seconds() }),
	perMember(prometheus.GaugeValue, "dynast_member_resident_memory_bytes", "Resident memory of a process.", false,
		func(m tree.Member) float64 { return float64(m.RSSBytes) }),
	perMember(prometheus.CounterValue, "dynast_member_cpu_seconds_total", "CPU time that a process has used.", false,
		func(m tree.Member) float64 { return m.CPUSeconds }),

	gauge("dynast_log_index", "Index of the last entry in the leader's log.",
		func(s *Status) float64 {
			for _, m := range s.Tree.Members {
				if m.Address == s.Tree.Leader {
					return float64(m.Index)
				}
			}
			return 0
		}),
	gauge("dynast_commit_index", "Index of the last committed entry.",
		func(s *Status) float64 { return float64(s.Tree.Committed) }),
	gauge("dynast_applied_index", "Index of the last entry that the leader has applied to its database.",
		func(s *Status) float64 { return float64(s.Tree.Applied) }),
	gauge("dynast_proposals_pending", "Number of writes that wait for their acknowledgement.",
		func(s *Status) float64 { return float64(s.Tree.Pending) }),
	histogram("dynast_wal_fsync_duration_seconds", "Duration of the fsyncs of the leader's log.", nil,
		func(s *Status, emit func(meter.Counts, ...string)) { emit(s.Fsyncs) }),

	histogram("dynast_request_duration_seconds", "Duration of client requests in the leader: read (Range), write (Put, DeleteRange, Txn), other.",
		[]string{"type"}, func(s *Status, emit func(meter.Counts, ...string)) {
			for _, c := range meter.Classes() {
				emit(s.Tree.Load.Of(c).Counts, c.String())
			}
		}),
	failedRequests(),
	gauge("dynast_client_streams", "Number of open client streams: watches, lease keep-alives and so on.",
		func(s *Status) float64 { return float64(s.Tree.Load.Streams) }),
	gauge("dynast_client_connections", "Number of open client connections.",
		func(s *Status) float64 { return float64(s.ClientConnections) }),
	gauge("dynast_client_connections_max", "Largest possible number of client connections: client.max_connections, or what the limit of open files allows.",
		func(s *Status) float64 { return float64(s.ClientConnectionsMax) }),
	gauge("dynast_client_connections_waiting", "Number of client connections that wait in the kernel's queue to be accepted.",
		func(s *Status) float64 { return float64(s.ClientConnectionsWaiting) }),

	gauge("dynast_disk_free_bytes", "Free space on the file system of the data directory.",
		func(s *Status) float64 { return float64(s.DiskFree) }),
	gauge("dynast_disk_full", "1 while writes are refused for lack of disk space.",
		func(s *Status) float64 { return flag(s.DiskFull) }),
	gauge("dynast_memory_limit_bytes", "Memory limit of the control group, shared by all members. 0 without a limit.",
		func(s *Status) float64 { return float64(s.MemoryLimit) }),
	gauge("dynast_memory_used_bytes", "Memory that counts against the limit and that the kernel cannot reclaim. 0 without a limit.",
		func(s *Status) float64 { return float64(s.MemoryUsed) }),
	gauge("dynast_memory_tight", "1 while writes are refused because the memory limit is nearly reached.",
		func(s *Status) float64 { return flag(s.MemoryTight) }),
	counter("dynast_log_lines_lost_total", "Log lines of the leader that did not reach an output.",
		func(s *Status) float64 { return float64(s.LogLinesLost) }),
	counter("dynast_events_lost_total", "Events that the leader could not write to the data directory.",
		func(s *Status) float64 { return float64(s.EventsLost) }),

	serviceStates(),
	perInstance(prometheus.GaugeValue, "dynast_service_up", "1 while an instance is in the state ready, otherwise 0.",
		func(i ps.Instance) (float64, bool) { return flag(i.State == string(rules.StateReady)), true }),
	perInstance(prometheus.CounterValue, "dynast_service_restarts_total", "Restarts of an instance that no operator asked for. A takeover does not reset it.",
		func(i ps.Instance) (float64, bool) { return float64(i.Restarts), true }),
	perInstance(prometheus.GaugeValue, "dynast_service_last_exit_code", "Exit code of the last process that ended. -1 if a signal ended it or nobody knows.", lastExitCode),
	perInstance(prometheus.GaugeValue, "dynast_service_resident_memory_bytes", "Resident memory of an instance's process tree.",
		func(i ps.Instance) (float64, bool) { return float64(i.RSSBytes), measured(i) }),
	perInstance(prometheus.CounterValue, "dynast_service_cpu_seconds_total", "CPU time that an instance's process tree has used.",
		func(i ps.Instance) (float64, bool) { return i.CPUSeconds, measured(i) }),
	perInstance(prometheus.GaugeValue, "dynast_service_uptime_seconds", "Time since an instance's process started.", uptime),
	perInstance(prometheus.CounterValue, "dynast_service_skipped_runs_total", "Scheduled runs that were skipped because the run before had not ended. A takeover does not reset it.",
		func(i ps.Instance) (float64, bool) { return float64(i.Skipped), true }),

	// These have etcd's names, for existing dashboards and alerts.
	gauge("etcd_server_has_leader", "Always 1: only a leader answers.", func(*Status) float64 { return 1 }),
	gauge("etcd_server_is_leader", "Always 1: only a leader answers.", func(*Status) float64 { return 1 }),
	counter("etcd_server_leader_changes_seen_total", "The sum of dynast_takeovers_total over all reasons.",
		func(s *Status) float64 { return float64(s.Totals.AllTakeovers()) }),
	gauge("etcd_server_proposals_committed_total", "The same as dynast_commit_index.",
		func(s *Status) float64 { return float64(s.Tree.Committed) }),
	gauge("etcd_server_proposals_applied_total", "The same as dynast_applied_index.",
		func(s *Status) float64 { return float64(s.Tree.Applied) }),
	gauge("etcd_server_proposals_pending", "The same as dynast_proposals_pending.",
		func(s *Status) float64 { return float64(s.Tree.Pending) }),
}
