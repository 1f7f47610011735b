package bench

import (
	"cmp"
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// Leader is the process that Failover kills. Kill can also stop the process, so that it hangs, or
// make it hand over.
type Leader struct {
	PID  int
	Kill func() error
	// Full says that all wanted followers are in sync.
	Full bool
}

// FailoverConfig configures Failover.
type FailoverConfig struct {
	Target
	Kills int
	// Action is the name of what Leader.Kill does; empty means "kill".
	Action string
	// Clients is the number of clients that write concurrently over one connection; 0 means one.
	Clients int
	// Find returns the current leader.
	Find func(context.Context) (Leader, error)
	// Settle bounds one takeover together with the replacement of the lost process.
	Settle   time.Duration
	Progress io.Writer
}

// FailoverResult holds the gaps between acknowledged writes.
type FailoverResult struct {
	Schema  int             `json:"schema"`
	Kills   int             `json:"kills"`
	Action  string          `json:"action"`
	Clients int             `json:"clients"`
	Median  time.Duration   `json:"median_ns"`
	P99     time.Duration   `json:"p99_ns"`
	Worst   time.Duration   `json:"worst_ns"`
	Refill  time.Duration   `json:"refill_median_ns"` // from the kill until all followers are in sync
	Gaps    []time.Duration `json:"gaps_ns"`
	// SlowestClient is the median over all kills of the longest time that a single client was
	// without an acknowledged write.
	SlowestClient time.Duration `json:"slowest_client_median_ns"`
	Writes        int           `json:"writes"`
	Missing       []string      `json:"missing"` // acknowledged keys that are not in the database
	Attempts      int           `json:"failed_attempts"`
}

// writer puts one key after the other for each client, and records when each put was
// acknowledged.
type writer struct {
	mu     sync.Mutex
	acks   []ack // ordered by time
	counts []int // of each client
	failed int
}

type ack struct {
	at     time.Time
	client int
}

func (w *writer) run(ctx context.Context, kv clientv3.KV, client int) {
	for i := 0; ctx.Err() == nil; {
		put, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := kv.Put(put, key(client, i), fmt.Sprint(i))
		cancel()
		w.mu.Lock()
		if err == nil {
			w.acks = append(w.acks, ack{time.Now(), client})
			i++
			w.counts[client] = i
		} else if ctx.Err() == nil { // otherwise the measurement has ended
			w.failed++
		}
		w.mu.Unlock()
	}
}

const failoverPrefix = "bench/failover/"

func key(client, i int) string { return fmt.Sprintf("%s%04d/%09d", failoverPrefix, client, i) }

// gap returns the longest time between two acknowledged writes since the given time: of all
// clients together, and of the client that waited longest. ok is false until every client has had
// a write acknowledged at least 200 ms after moment.
func (w *writer) gap(since, moment time.Time) (together, slowest time.Duration, ok bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i, _ := slices.BinarySearchFunc(w.acks, since, func(a ack, t time.Time) int { return a.at.Compare(t) })
	last := make([]time.Time, len(w.counts))
	var before time.Time
	for _, a := range w.acks[max(i-1, 0):] {
		if !before.IsZero() {
			together = max(together, a.at.Sub(before))
		}
		if !last[a.client].IsZero() {
			slowest = max(slowest, a.at.Sub(last[a.client]))
		}
		before, last[a.client] = a.at, a.at
	}
	for _, t := range last {
		if !t.After(moment.Add(200 * time.Millisecond)) {
			return 0, 0, false
		}
	}
	return together, slowest, true
}

func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acks)
}

// Failover kills the leader repeatedly while stock clients write to one endpoint. It measures how
// long no write was acknowledged.
func Failover(ctx context.Context, cfg FailoverConfig) (*FailoverResult, error) {
	cfg.Action = cmp.Or(cfg.Action, "kill")
	client, err := cfg.dial()
	if err != nil {
		return nil, err
	}
	defer client.Close()
	w := &writer{counts: make([]int, max(cfg.Clients, 1))}
	writing, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	for i := range w.counts {
		wg.Go(func() { w.run(writing, client, i) })
	}
	defer func() { stop(); wg.Wait() }()

	res := &FailoverResult{Schema: Schema, Action: cfg.Action, Clients: len(w.counts)}
	var refills, slowest []time.Duration
	for n := range cfg.Kills {
		k, err := killOnce(ctx, cfg, w)
		if err != nil {
			return nil, fmt.Errorf("%s %d of %d: %w", cfg.Action, n+1, cfg.Kills, err)
		}
		res.Gaps = append(res.Gaps, k.gap)
		refills, slowest = append(refills, k.refill), append(slowest, k.slowest)
		fmt.Fprintf(cfg.Progress, "%s %3d: no acknowledged write for %8s, all followers in sync after %s\n",
			cfg.Action, n+1, k.gap.Round(10*time.Microsecond), k.refill.Round(time.Millisecond))
	}
	stop()
	wg.Wait()
	res.Kills, res.Writes, res.Attempts = cfg.Kills, len(w.acks), w.failed
	res.Median, res.P99, res.Worst = quantile(res.Gaps, 0.5), quantile(res.Gaps, 0.99), quantile(res.Gaps, 1)
	res.Refill, res.SlowestClient = quantile(refills, 0.5), quantile(slowest, 0.5)
	res.Missing, err = missing(ctx, client, w.counts)
	return res, err
}

// killed is the effect of one kill.
type killed struct {
	gap, slowest time.Duration // see writer.gap
	refill       time.Duration // from the kill until all followers are in sync
}

func killOnce(ctx context.Context, cfg FailoverConfig, w *writer) (k killed, err error) {
	leader, err := await(ctx, cfg, func(l Leader) bool { return l.Full })
	if err != nil {
		return k, fmt.Errorf("wait until all followers are in sync: %w", err)
	}
	before := w.count()
	if err := until(ctx, cfg.Settle, func() bool { return w.count() > before+5 }); err != nil {
		return k, fmt.Errorf("wait for writes: %w", err)
	}
	since := time.Now()
	if err := leader.Kill(); err != nil {
		return k, fmt.Errorf("%s of the leader with pid %d: %w", cfg.Action, leader.PID, err)
	}
	// Questions cost processor time, which the takeover needs now. So nothing is asked for as
	// long as a takeover takes.
	select {
	case <-time.After(quiet):
	case <-ctx.Done():
		return k, ctx.Err()
	}
	if _, err := await(ctx, cfg, func(l Leader) bool { return l.Full && l.PID != leader.PID }); err != nil {
		return k, fmt.Errorf("wait until the next leader has all followers in sync: %w", err)
	}
	k.refill = time.Since(since)
	err = until(ctx, cfg.Settle, func() (ok bool) {
		k.gap, k.slowest, ok = w.gap(since.Add(-100*time.Millisecond), since)
		return ok
	})
	return k, err
}

const (
	quiet = 50 * time.Millisecond // after a kill, before the first question
	pace  = 10 * time.Millisecond // between two checks of a condition
)

func await(ctx context.Context, cfg FailoverConfig, ok func(Leader) bool) (Leader, error) {
	var l Leader
	var last error
	err := until(ctx, cfg.Settle, func() bool {
		l, last = cfg.Find(ctx)
		return last == nil && ok(l)
	})
	if err != nil && last != nil {
		err = fmt.Errorf("%w: %w", err, last)
	}
	return l, err
}

func until(ctx context.Context, limit time.Duration, ok func() bool) error {
	deadline := time.Now().Add(limit)
	for !ok() {
		if time.Now().After(deadline) {
			return fmt.Errorf("timed out after %s", limit)
		}
		select {
		case <-time.After(pace):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// missing returns the acknowledged keys that are not in the database.
func missing(ctx context.Context, c *clientv3.Client, counts []int) ([]string, error) {
	there := map[string]bool{}
	from := failoverPrefix
	end := clientv3.GetPrefixRangeEnd(failoverPrefix)
	for {
		resp, err := c.Get(ctx, from, clientv3.WithRange(end), clientv3.WithLimit(5000), clientv3.WithKeysOnly())
		if err != nil {
			return nil, fmt.Errorf("read back: %w", err)
		}
		for _, kv := range resp.Kvs {
			there[string(kv.Key)] = true
		}
		if !resp.More {
			break
		}
		from = string(resp.Kvs[len(resp.Kvs)-1].Key) + "\x00"
	}
	gone := []string{}
	for client, n := range counts {
		for i := range n {
			if !there[key(client, i)] {
				gone = append(gone, key(client, i))
			}
		}
	}
	return gone, nil
}

// quantile returns a quantile of unsorted values by the nearest-rank method.
func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(ds))
	i := int(q*float64(len(sorted)) + 0.5)
	return sorted[min(max(i, 1), len(sorted))-1]
}

// Render prints the result as text.
func (r *FailoverResult) Render(w io.Writer) error {
	_, err := fmt.Fprintf(w, "%d x %s with %d writing clients, %d acknowledged writes\n"+
		"gap between acknowledged writes: median %s  p99 %s  worst %s\n"+
		"longest wait of a single client: median %s\n"+
		"all followers in sync again: median %s\n",
		r.Kills, r.Action, r.Clients, r.Writes, round(r.Median), round(r.P99), round(r.Worst), round(r.SlowestClient), r.Refill.Round(time.Millisecond))
	return err
}
