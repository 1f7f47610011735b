package worker

import (
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/metrics"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/tree"
)

// look describes the cluster as this leader sees it.
func (m *Member) look() (*tree.Tree, error) {
	var v core.View
	if !m.ask(func() { v = m.core.View(m.now()) }) {
		return nil, status.Error(codes.Unavailable, "the leader is ending")
	}
	return tree.FromView(v, m.address, tree.Facts{
		Applied: m.applied.Load(), Pending: m.proposals.pending(), Totals: m.history.rec.Totals(),
		LogDirectory: m.cfg.Log.Directory, Load: m.requests.Snapshot(), CPUPercent: m.cpu.percent,
	}), nil
}

// metrics are what /metrics serves.
func (m *Member) metrics() prometheus.Gatherer {
	g, err := metrics.New(m.status).Gatherer()
	if err != nil {
		m.logger.Error("the metrics of this leader are not served", "error", err)
		return nil
	}
	return g
}

func (m *Member) status() (metrics.Status, error) {
	t, err := m.look()
	if err != nil {
		return metrics.Status{}, err
	}
	free, err := proc.FreeBytes(m.cfg.DataDir)
	if err != nil {
		return metrics.Status{}, err
	}
	return metrics.Status{
		Tree: t, Totals: m.history.rec.Totals(), Fsyncs: m.fsyncs.Snapshot(), Version: m.opts.Version,
		MinSync: m.cfg.Replication.MinSync, DiskFree: free, DiskFull: m.space.full.Load(),
		LogLinesLost: m.logs.Dropped(), EventsLost: m.history.rec.LostEvents(),
	}, nil
}

// cpuInterval is how often a leader notes what its processes have used. It is
// a read of a file in /proc for each, some ten microseconds.
const cpuInterval = 5 * time.Second

// cpuUsage turns what processes have used into what they use: over the time
// since the note before the last, which is five to ten seconds.
type cpuUsage struct {
	mu           sync.Mutex
	noted        time.Time
	last, before map[int]cpuNote
}

type cpuNote struct {
	at, startedAt time.Time
	used          time.Duration
}

// note reads the usage of these processes if it is time for it.
func (c *cpuUsage) note(now time.Time, pids []int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now.Sub(c.noted) < cpuInterval {
		return
	}
	c.noted = now
	c.before, c.last = c.last, make(map[int]cpuNote, len(pids))
	for _, pid := range pids {
		if u, err := proc.ReadUsage(pid); err == nil {
			c.last[pid] = cpuNote{at: time.Now(), startedAt: u.StartedAt, used: u.CPU}
		}
	}
}

// percent is how much of one core a process uses. One that was not noted yet is
// judged by all of its life, and so is another one with the same pid.
func (c *cpuUsage) percent(pid int, u proc.Usage) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	from, ok := c.before[pid]
	if !ok {
		from, ok = c.last[pid]
	}
	const sameStart = time.Second // StartedAt is made from two clocks
	if !ok || from.startedAt.Sub(u.StartedAt).Abs() > sameStart || from.used > u.CPU {
		from = cpuNote{at: u.StartedAt}
	}
	span := time.Since(from.at)
	if span <= 0 {
		return 0
	}
	return 100 * (u.CPU - from.used).Seconds() / span.Seconds()
}
