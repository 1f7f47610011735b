package operate

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/dynast-io/dynast/shared/client/gate"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/observe/meter"
	"github.com/dynast-io/dynast/shared/operator/dashboard"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// serveDashboard serves the dashboard while this process leads. An error is logged and ends
// nothing.
func (o *Operators) serveDashboard() {
	f := o.dashboardSocket
	if f == nil {
		return
	}
	l, err := net.FileListener(f)
	if err != nil {
		o.Log.Warn("cannot serve the dashboard", "error", err)
		return
	}
	if path := o.Settings.Start.Dashboard.TokenFile; path != "" {
		if _, err := dashboard.ReadToken(path); err != nil {
			o.Log.Warn("the dashboard is read-only", "error", err)
		}
	}
	s := dashboard.New(dashboard.Config{Cluster: dashboardCluster{o}, DataDir: o.Dir.Path(), TokenFile: o.Settings.Start.Dashboard.TokenFile,
		Logger: o.Logs.Logger("dashboard"), Heartbeat: o.Settings.Start.Heartbeat.Interval})
	o.dashboard.Store(s)
	go o.Guarded(func() {
		limits := gate.Limits{Total: o.shares.Browsers, Wait: true, Patience: strangerPatience}
		if err := s.Serve(gate.New("dashboard", limits, o.Log).Listener(l)); err != nil {
			o.Log.Warn("stopped serving the dashboard", "error", err)
		}
	})
	o.Log.Info("serving the dashboard", "listen", o.Settings.Start.Dashboard.Listen)
}

// StopDashboard stops serving the dashboard, so that the next leader can serve it.
func (o *Operators) StopDashboard() {
	if s := o.dashboard.Load(); s != nil {
		s.Close()
	}
}

// dashboardCluster is the cluster as the dashboard sees it through this leader.
type dashboardCluster struct{ o *Operators }

var _ dashboard.Cluster = dashboardCluster{}

// Tree describes the processes.
func (d dashboardCluster) Tree() ([]byte, error) {
	t, err := d.o.tree()
	if err != nil {
		return nil, err
	}
	return t.Encode()
}

// Load returns the load by clients, and the lag of the slowest follower that has been in sync.
func (d dashboardCluster) Load() (load meter.Load, lag *uint64, ok bool) {
	v, ok := d.o.view()
	if !ok {
		return load, nil, false
	}
	for _, m := range v.Roster.Members {
		if p, follows := v.Followers[m.Address]; follows && (m.State == roster.InSync || m.State == roster.Lagging) {
			behind := v.Appended.Index - min(p.Match, v.Appended.Index)
			if lag == nil || *lag < behind {
				lag = &behind
			}
		}
	}
	return d.o.clients.Requests(), lag, true
}

// Epoch returns the epoch that this process leads.
func (d dashboardCluster) Epoch() uint64 { return d.o.State.Epoch.Load() }

// ownDeathDelay is how long an answer may take to reach the browser before this process kills
// itself on its request.
const ownDeathDelay = 50 * time.Millisecond

// Kill ends a member with SIGKILL, as a fault would.
func (d dashboardCluster) Kill(_ context.Context, address string) error {
	a, err := roster.ParseAddress(address)
	if err != nil {
		return err
	}
	victim, ok := d.o.Roster().Find(a)
	if !ok {
		return fmt.Errorf("there is no member %s", a)
	}
	p, err := proc.Open(proc.Identity{PID: victim.PID, StartTime: victim.StartTime})
	if err != nil {
		return fmt.Errorf("kill %s: %w", a, err)
	}
	kill := func() error {
		err := p.Kill()
		if errors.Is(err, proc.ErrGone) {
			err = nil
		}
		return errors.Join(err, p.Close())
	}
	if victim.PID != d.o.Self.Process.PID {
		return kill()
	}
	time.AfterFunc(ownDeathDelay, func() {
		if err := kill(); err != nil {
			d.o.Log.Warn("cannot kill this process for the dashboard", "error", err)
		}
	})
	return nil
}

// Promote hands over the leadership.
func (d dashboardCluster) Promote(ctx context.Context, address string) (string, error) {
	var to roster.Address
	if address != "" {
		var err error
		if to, err = roster.ParseAddress(address); err != nil {
			return "", err
		}
	}
	answer, err := d.o.Request(ctx, func(ref chan core.Answer) core.Event {
		return core.HandoverRequested{To: to, Reason: "asked by the dashboard", Ref: ref}
	})
	return answer.Member.Address.String(), err
}

// Scale changes the number of followers by a number.
func (d dashboardCluster) Scale(ctx context.Context, by int) (int, error) {
	answer, err := d.o.files.Scale(ctx, by, true)
	return answer.Followers, err
}

// Services describes the user's services.
func (d dashboardCluster) Services(ctx context.Context) ([]byte, error) {
	return d.o.describeServices(ctx)
}

// Hosts describes the hosts of the cluster.
func (d dashboardCluster) Hosts(ctx context.Context) ([]byte, error) {
	if !d.o.Dir.ManyHosts() {
		return nil, nil
	}
	return d.o.hosts(ctx, hosts.PathList, nil)
}

// Act carries out an action on a service or an instance.
func (d dashboardCluster) Act(ctx context.Context, action member.Action, name string) ([]string, error) {
	services, err := d.o.services(true)
	if err != nil {
		return nil, err
	}
	return services.Act(ctx, member.ServiceCommand{Action: action, Names: []string{name}})
}
