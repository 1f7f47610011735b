package operate

import (
	"context"
	"encoding/json"
	"sync"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/observe/metrics"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// tree describes the cluster as this leader sees it.
func (o *Operators) tree() (*tree.Tree, error) {
	t, err := o.processes()
	if err == nil {
		t.Store = o.describeStore()
	}
	return t, err
}

// processes is the tree without the store, which can take a question to the engine.
func (o *Operators) processes() (*tree.Tree, error) {
	v, ok := o.view()
	if !ok {
		return nil, status.Error(codes.Unavailable, "the leader is ending")
	}
	return tree.FromView(v, o.Self.Address, tree.Facts{
		Applied: o.Applied.Load(), Pending: o.replica.Pending(), Totals: o.recorder.Totals(),
		LogDirectory: o.Settings.Start.LogDirectory(), Load: o.clients.Requests(), CPUPercent: o.cpu.percent,
	}), nil
}

// describeStore describes the store that serves clients, or returns nil if it does not answer.
func (o *Operators) describeStore() *tree.Store {
	if o.Dir.ManyHosts() {
		return o.describeEngine()
	}
	s, ok := o.replica.Describe()
	if !ok {
		return nil
	}
	s.Connections, _, _ = o.files.Connections()
	return &s
}

// describeEngine asks the engine of this host about its store.
func (o *Operators) describeEngine() *tree.Store {
	ctx, cancel := context.WithTimeout(context.Background(), reportPatience)
	defer cancel()
	raw, err := o.hosts(ctx, hosts.PathStatus, nil)
	if err != nil {
		return nil
	}
	var s hosts.Status
	if err := json.Unmarshal(raw, &s); err != nil {
		return nil
	}
	return &tree.Store{Keys: s.Keys, Revision: s.Revision, UsedBytes: s.UsedBytes, FileBytes: s.DBBytes, QuotaBytes: s.QuotaBytes,
		DiskFreeBytes: s.DiskFreeBytes, Alarms: append([]string{}, s.Alarms...), Connections: s.Connections, Watchers: s.Watchers}
}

// Metrics returns what /metrics serves.
func (o *Operators) Metrics() prometheus.Gatherer {
	g, err := metrics.New(o.status).Gatherer()
	if err != nil {
		o.Log.Error("cannot serve metrics", "error", err)
		return nil
	}
	return g
}

// hostMetrics returns what the engine of this host adds to its own metrics, as JSON.
func (o *Operators) hostMetrics() ([]byte, error) {
	text, err := metrics.New(o.status).OfHost()
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return json.Marshal(text)
}

func (o *Operators) status() (metrics.Status, error) {
	t, err := o.processes() // the store has its own metrics
	if err != nil {
		return metrics.Status{}, err
	}
	free, err := proc.FreeBytes(o.Settings.Start.DataDir)
	if err != nil {
		return metrics.Status{}, err
	}
	diskFull, _ := o.replica.Full()
	memory := o.replica.MemoryStatus()
	open, most, waiting := o.files.Connections()
	return metrics.Status{
		Tree: t, Totals: o.recorder.Totals(), Fsyncs: o.replica.Fsyncs(), Version: o.Self.Version,
		MinSync: o.Settings.Start.Replication.MinSync, DiskFree: free, DiskFull: diskFull,
		MemoryLimit: memory.LimitBytes, MemoryUsed: memory.UsedBytes, MemoryTight: memory.Tight,
		ClientConnections: open, ClientConnectionsMax: most, ClientConnectionsWaiting: waiting,
		LogLinesLost: o.Logs.Dropped(), EventsLost: o.recorder.LostEvents(),
		Services: o.serviceReport(),
	}, nil
}

// reportPatience bounds how long the description of the members waits for that of the services or of
// the engine. The members matter more.
const reportPatience = 200 * time.Millisecond

// serviceReport describes the services for a scrape. It is nil if there are none, or if the answer
// takes too long.
func (o *Operators) serviceReport() *ps.Report {
	ctx, cancel := context.WithTimeout(context.Background(), reportPatience)
	defer cancel()
	answer := make(chan *ps.Report, 1)
	// Even asking for the supervisor can take long: a new leader first looks at what runs.
	go o.Guarded(func() {
		defer close(answer)
		services, err := o.services(false)
		if err != nil || services == nil {
			return
		}
		raw, err := services.Report(ctx)
		if err != nil {
			return
		}
		if r, err := ps.Decode(raw); err == nil {
			answer <- r
		}
	})
	select {
	case r := <-answer:
		return r
	case <-ctx.Done():
		return nil
	}
}

// cpuInterval is how often a leader reads the processor time of its processes. Each reading is
// a file in /proc and takes some ten microseconds.
const cpuInterval = 5 * time.Second

// cpuUsage turns total processor time into current usage. It measures over the time since the
// last reading but one, which is five to ten seconds.
type cpuUsage struct {
	mu           sync.Mutex
	noted        time.Time
	last, before map[int]cpuNote
}

type cpuNote struct {
	at, startedAt time.Time
	used          time.Duration
}

// note reads the usage of these processes if cpuInterval has passed.
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

// percent returns how much of one core a process uses. For a process without a reading, it
// measures over the whole life of the process. A reused pid counts as a new process.
func (c *cpuUsage) percent(pid int, u proc.Usage) float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	from, ok := c.before[pid]
	if !ok {
		from, ok = c.last[pid]
	}
	const sameStart = time.Second // StartedAt is computed from two clocks and may differ slightly
	if !ok || from.startedAt.Sub(u.StartedAt).Abs() > sameStart || from.used > u.CPU {
		from = cpuNote{at: u.StartedAt}
	}
	span := time.Since(from.at)
	if span <= 0 {
		return 0
	}
	return 100 * (u.CPU - from.used).Seconds() / span.Seconds()
}
