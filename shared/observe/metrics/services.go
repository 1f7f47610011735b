package metrics

import (
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynast-io/dynast/shared/observe/ps"
	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// serviceStates counts the instances of each service by state. Every state has a series, so that a
// count that falls to 0 is seen.
func serviceStates() *metric {
	return &metric{kind: prometheus.GaugeValue,
		desc: prometheus.NewDesc("dynast_service_instances", "Number of instances of a service, by state.", []string{"service", "state"}, nil),
		collect: func(m *metric, s *Status, out chan<- prometheus.Metric) {
			if s.Services == nil {
				return
			}
			for _, service := range s.Services.Services {
				n := map[string]int{}
				for _, state := range rules.States {
					n[string(state)] = 0
				}
				for _, i := range service.Instances {
					n[i.State]++
				}
				for state, count := range n {
					m.emit(out, float64(count), service.Name, state)
				}
			}
		}}
}

// perInstance makes a metric with a number for each instance of a service for which f has one.
func perInstance(kind prometheus.ValueType, name, help string, f func(ps.Instance) (float64, bool)) *metric {
	return &metric{desc: prometheus.NewDesc(name, help, []string{"service", "service_instance"}, nil), kind: kind,
		collect: func(m *metric, s *Status, out chan<- prometheus.Metric) {
			if s.Services == nil {
				return
			}
			for _, service := range s.Services.Services {
				for _, i := range service.Instances {
					if v, ok := f(i); ok {
						m.emit(out, v, service.Name, i.ID)
					}
				}
			}
		}}
}

func lastExitCode(i ps.Instance) (float64, bool) {
	if i.LastExit == nil {
		return 0, false
	}
	return float64(i.LastExit.Code), true
}

func uptime(i ps.Instance) (float64, bool) {
	return (time.Duration(i.UptimeMS) * time.Millisecond).Seconds(), i.PID != 0
}

// measured reports whether the usage of the process was read. It is not while a process ends. A
// counter that is 0 then would look like the restart of a process.
func measured(i ps.Instance) bool { return i.RSSBytes > 0 }
