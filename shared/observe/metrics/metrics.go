package metrics

import (
	"maps"
	"runtime"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/observe/meter"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// Status is what a leader knows at one moment.
type Status struct {
	Tree   *tree.Tree
	Totals *events.Totals
	// Fsyncs are the fsyncs of the log.
	Fsyncs   meter.Counts
	Version  string
	MinSync  int    // followers that must have a write
	DiskFree uint64 // bytes
	DiskFull bool   // writes are refused
	// MemoryLimit and MemoryUsed are in bytes, for all processes under the limit together; 0
	// means that there is no limit. MemoryTight means that writes are refused because of it.
	MemoryLimit, MemoryUsed uint64
	MemoryTight             bool
	// ClientConnections are open, ClientConnectionsMax is their maximum, and
	// ClientConnectionsWaiting wait in the kernel's queue.
	ClientConnections, ClientConnectionsMax, ClientConnectionsWaiting int
	LogLinesLost                                                      uint64
	EventsLost                                                        uint64
	// Services is nil if there are no services, or if they could not be described in time.
	Services *ps.Report
}

// Collector is a prometheus.Collector that asks for the status at each scrape.
type Collector struct{ status func() (Status, error) }

var _ prometheus.Collector = (*Collector)(nil)

// New makes a collector. If status fails, as it does in a process that is ending, nothing is
// collected.
func New(status func() (Status, error)) *Collector { return &Collector{status: status} }

// Gatherer returns all metrics of a leader: these, and those of the libraries in this process,
// including etcd's.
func (c *Collector) Gatherer() (prometheus.Gatherer, error) {
	own := prometheus.NewPedanticRegistry()
	if err := own.Register(c); err != nil {
		return nil, err
	}
	return together(own), nil
}

// Describe implements prometheus.Collector.
func (c *Collector) Describe(out chan<- *prometheus.Desc) {
	for _, m := range all {
		out <- m.desc
	}
}

// Collect implements prometheus.Collector.
func (c *Collector) Collect(out chan<- prometheus.Metric) {
	s, err := c.status()
	if err != nil {
		return
	}
	for _, m := range all {
		m.collect(m, &s, out)
	}
}

// metric is a row of the table.
type metric struct {
	desc    *prometheus.Desc
	kind    prometheus.ValueType
	collect func(*metric, *Status, chan<- prometheus.Metric)
}

func (m *metric) emit(out chan<- prometheus.Metric, v float64, labels ...string) {
	out <- prometheus.MustNewConstMetric(m.desc, m.kind, v, labels...)
}

// value makes a metric with one number.
func value(kind prometheus.ValueType, name, help string, f func(*Status) float64) *metric {
	return &metric{desc: prometheus.NewDesc(name, help, nil, nil), kind: kind,
		collect: func(m *metric, s *Status, out chan<- prometheus.Metric) { m.emit(out, f(s)) }}
}

func gauge(name, help string, f func(*Status) float64) *metric {
	return value(prometheus.GaugeValue, name, help, f)
}

func counter(name, help string, f func(*Status) float64) *metric {
	return value(prometheus.CounterValue, name, help, f)
}

// perMember makes a metric with a number for each process. With onlyFollowers the leader has
// none.
func perMember(kind prometheus.ValueType, name, help string, onlyFollowers bool, f func(tree.Member) float64) *metric {
	return &metric{desc: prometheus.NewDesc(name, help, []string{"member"}, nil), kind: kind,
		collect: func(m *metric, s *Status, out chan<- prometheus.Metric) {
			for _, member := range s.Tree.Members {
				if !onlyFollowers || member.Address != s.Tree.Leader {
					m.emit(out, f(member), member.Address)
				}
			}
		}}
}

// perReason makes a counter for each reason. All begin at zero.
func perReason(name, help string, reasons []string, f func(*Status) map[string]uint64) *metric {
	return &metric{desc: prometheus.NewDesc(name, help, []string{"reason"}, nil), kind: prometheus.CounterValue,
		collect: func(m *metric, s *Status, out chan<- prometheus.Metric) {
			counts := map[string]uint64{}
			for _, r := range reasons {
				counts[r] = 0
			}
			maps.Copy(counts, f(s))
			for r, n := range counts {
				m.emit(out, float64(n), r)
			}
		}}
}

// histogram makes a histogram from cumulative counts. With labels there can be several.
func histogram(name, help string, labels []string, f func(*Status, func(c meter.Counts, labels ...string))) *metric {
	return &metric{desc: prometheus.NewDesc(name, help, labels, nil),
		collect: func(m *metric, s *Status, out chan<- prometheus.Metric) {
			f(s, func(c meter.Counts, labels ...string) {
				out <- prometheus.MustNewConstHistogram(m.desc, c.Count, c.Seconds, c.Cumulative(), labels...)
			})
		}}
}

func flag(b bool) float64 {
	if b {
		return 1
	}
	return 0
}

func buildInfo() *metric {
	return &metric{kind: prometheus.GaugeValue,
		desc: prometheus.NewDesc("dynast_build_info", "Always 1. The labels give the leader's version and the Go version of its build.", []string{"version", "goversion"}, nil),
		collect: func(m *metric, s *Status, out chan<- prometheus.Metric) {
			m.emit(out, 1, s.Version, runtime.Version())
		}}
}

func members() *metric {
	return &metric{kind: prometheus.GaugeValue,
		desc: prometheus.NewDesc("dynast_members", "Number of processes of the cluster, by role and state.", []string{"role", "state"}, nil),
		collect: func(m *metric, s *Status, out chan<- prometheus.Metric) {
			n := map[[2]string]int{{"leader", "serving"}: 0, {"follower", "starting"}: 0, {"follower", "in_sync"}: 0,
				{"follower", "lagging"}: 0, {"follower", "leaving"}: 0}
			for _, member := range s.Tree.Members {
				n[[2]string{member.Role, member.State}]++
			}
			for l, count := range n {
				m.emit(out, float64(count), l[0], l[1])
			}
		}}
}

func failovers() *metric {
	const help = "Time from the moment a leader's death was known until its successor accepted clients."
	return &metric{desc: prometheus.NewDesc("dynast_failover_duration_seconds", help, nil, nil),
		collect: func(m *metric, s *Status, out chan<- prometheus.Metric) {
			cumulative := make(map[float64]uint64, len(events.FailoverBounds))
			var n uint64
			for i, count := range s.Totals.FailoverCounts {
				n += count
				if i < len(events.FailoverBounds) {
					cumulative[events.FailoverBounds[i]] = n
				}
			}
			out <- prometheus.MustNewConstHistogram(m.desc, n, s.Totals.FailoverSeconds, cumulative)
		}}
}

func failedRequests() *metric {
	return &metric{kind: prometheus.CounterValue,
		desc: prometheus.NewDesc("dynast_request_errors_total", "Number of client requests that were answered with an error.", []string{"type"}, nil),
		collect: func(m *metric, s *Status, out chan<- prometheus.Metric) {
			for _, c := range meter.Classes() {
				m.emit(out, float64(s.Tree.Load.Of(c).Failed), c.String())
			}
		}}
}

// age is the time in seconds since the leader last heard from a member.
func age(m tree.Member) float64 {
	return (time.Duration(m.HeartbeatAgeMS) * time.Millisecond).Seconds()
}
