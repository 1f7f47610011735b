package services

import (
	"context"
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/observe/ps"
	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// Report implements member.Services.
func (m *Manager) Report(ctx context.Context) ([]byte, error) {
	var r *ps.Report
	trees := map[string]running{}
	if err := m.ask(ctx, func() { r = m.report(trees) }); err != nil {
		return nil, err
	}
	m.usages.fill(r, trees)
	return r.Encode()
}

// report describes all services. It puts the running instances into trees.
func (m *Manager) report(trees map[string]running) *ps.Report {
	r := &ps.Report{Schema: ps.Schema, At: time.Now(), Services: []ps.Service{}, Ended: m.desired.Ended}
	views := map[string][]rules.View{}
	for _, v := range m.core.View() {
		views[v.ID.Service] = append(views[v.ID.Service], v)
	}
	names := map[string]bool{}
	for _, s := range m.effective() {
		names[s.Name] = true
		out := ps.Service{Name: s.Name, Desired: ps.DesiredRunning, Origin: s.Source, Schedule: s.Schedule, Instances: []ps.Instance{}}
		wish := m.desired.Wishes[s.Name]
		switch {
		case wish.Stopped || len(wish.StoppedInstances) >= s.Instances:
			out.Desired = ps.DesiredStopped
		case s.Schedule != "":
			out.Desired, out.NextRun = ps.DesiredScheduled, m.clocks.next(s.Name)
		}
		out.Rolling, out.RollingError, out.Elsewhere = wish.Rolling, wish.RollFailed, m.elsewhere(s)
		if p := m.placed[s.Name]; p != nil && p.core.Allowed() {
			out.Fence = p.core.Fence
		}
		if out.Origin == "" {
			out.Origin = "run"
		}
		for _, v := range views[s.Name] {
			out.Instances = append(out.Instances, m.describe(v, trees))
		}
		r.Services = append(r.Services, out)
	}
	// A service that is gone from the configuration is shown until its processes are gone.
	for _, v := range m.core.View() {
		if !names[v.ID.Service] {
			k := slices.IndexFunc(r.Services, func(s ps.Service) bool { return s.Name == v.ID.Service })
			if k < 0 {
				k = len(r.Services)
				r.Services = append(r.Services, ps.Service{Name: v.ID.Service, Desired: ps.DesiredStopped, Origin: "removed"})
			}
			r.Services[k].Instances = append(r.Services[k].Instances, m.describe(v, trees))
		}
	}
	return r
}

func (m *Manager) describe(v rules.View, trees map[string]running) ps.Instance {
	out := ps.Instance{ID: v.ID.String(), State: string(v.State), Reason: v.Waits, Ready: v.State == rules.StateReady, Restarts: v.Restarts,
		Skipped: v.Skipped, Log: m.files.output(v.ID)}
	i := m.instances[v.ID]
	if i == nil {
		return out
	}
	out.Limits = i.unlimited
	if v.Exits > 0 {
		out.LastExit = exitOf(v.LastExit, i.ExitAt)
	}
	if v.Phase == rules.Idle || v.Process == (rules.Process{}) {
		return out
	}
	out.PID, out.Status = v.Process.PID, i.Status
	out.UptimeMS = max(now()-v.StartedAt, 0).Milliseconds()
	trees[out.ID] = running{out.PID, i.Cgroup}
	return out
}

func exitOf(e rules.Exit, at time.Time) *ps.Exit {
	out := &ps.Exit{Code: -1, Signal: e.Signal, At: at, Reason: e.String()}
	if e.Known && e.Signal == "" {
		out.Code = e.Code
	}
	return out
}
