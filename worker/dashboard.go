package worker

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"time"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/dashboard"
	"github.com/dynast-io/dynast/shared/gate"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
)

// listenDashboard opens the socket of the page for operators, which is passed
// on as the clients' is. It is nil when there is to be none. An error is no reason
// not to start: the page is a convenience.
func listenDashboard(address string) (*os.File, error) {
	if address == config.Off {
		return nil, nil
	}
	f, err := listenShared(address)
	if err != nil {
		return nil, fmt.Errorf("the dashboard: %w", bindError(address, err, "dashboard.listen (--dashboard-listen)"))
	}
	return f, nil
}

// serveDashboard serves the page while this process leads. What goes wrong
// with it is logged, and ends nothing.
func (m *Member) serveDashboard() {
	f := m.listeners.File(member.DashboardListener)
	if f == nil {
		return
	}
	l, err := net.FileListener(f)
	if err != nil {
		m.logger.Warn("the dashboard is not served", "error", err)
		return
	}
	if path := m.cfg.Dashboard.TokenFile; path != "" {
		if _, err := dashboard.ReadToken(path); err != nil {
			m.logger.Warn("the dashboard can change nothing", "error", err)
		}
		if a, err := netip.ParseAddrPort(m.cfg.Dashboard.Listen); err == nil && !a.Addr().IsLoopback() {
			m.logger.Warn("the dashboard's token can be read on the network: put a proxy with TLS before it", "listen", m.cfg.Dashboard.Listen)
		}
	}
	s := dashboard.New(dashboard.Config{Cluster: dashboardCluster{m}, DataDir: m.dir.Path(), TokenFile: m.cfg.Dashboard.TokenFile,
		Logger: m.logs.Logger("dashboard")})
	m.dashboard.Store(s)
	go m.guarded(func() {
		limits := gate.Limits{Total: maxBrowsers, Patience: strangerPatience}
		if err := s.Serve(gate.New("dashboard", limits, m.logger).Listener(l)); err != nil {
			m.logger.Warn("the dashboard is not served any more", "error", err)
		}
	})
	m.logger.Info("serves the dashboard", "listen", m.cfg.Dashboard.Listen)
}

// stopDashboard leaves the page to whoever leads next.
func (m *Member) stopDashboard() {
	if s := m.dashboard.Load(); s != nil {
		s.Close()
	}
}

// dashboardCluster is this leader as the page sees it.
type dashboardCluster struct{ m *Member }

var _ dashboard.Cluster = dashboardCluster{}

// Tree describes the processes.
func (d dashboardCluster) Tree() ([]byte, error) {
	t, err := d.m.look()
	if err != nil {
		return nil, err
	}
	return t.Encode()
}

// Epoch is the one that this process leads.
func (d dashboardCluster) Epoch() uint64 { return d.m.epoch.Load() }

// ownDeathDelay is the time that an answer has to reach who asked for the
// death of the process that answers.
const ownDeathDelay = 50 * time.Millisecond

// Kill ends a member by SIGKILL, as a fault would.
func (d dashboardCluster) Kill(_ context.Context, address string) error {
	a, err := roster.ParseAddress(address)
	if err != nil {
		return err
	}
	victim, ok := d.m.roster().Find(a)
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
	if victim.PID != d.m.self.PID {
		return kill()
	}
	time.AfterFunc(ownDeathDelay, func() {
		if err := kill(); err != nil {
			d.m.logger.Warn("the dashboard's order was not carried out", "error", err)
		}
	})
	return nil
}

// Promote hands the leadership over.
func (d dashboardCluster) Promote(ctx context.Context, address string) (string, error) {
	var to roster.Address
	if address != "" {
		var err error
		if to, err = roster.ParseAddress(address); err != nil {
			return "", err
		}
	}
	answer, err := d.m.request(ctx, func(ref chan core.Answer) core.Event {
		return core.HandoverRequested{To: to, Reason: "asked by the dashboard", Ref: ref}
	})
	return answer.Member.Address.String(), err
}

// Scale changes how many followers are kept.
func (d dashboardCluster) Scale(ctx context.Context, by int) (int, error) {
	answer, err := d.m.request(ctx, func(ref chan core.Answer) core.Event {
		return core.ScaleRequested{Followers: by, Relative: true, Ref: ref}
	})
	return answer.Followers, err
}
