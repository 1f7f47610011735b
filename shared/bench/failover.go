package bench

import (
	"context"
	"fmt"
	"io"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Leader is the process to be ended. Kill may also stop it, so that it hangs.
type Leader struct {
	PID  int
	Kill func() error
	// Full says that as many followers as wanted are in sync.
	Full bool
}

// FailoverConfig says what Failover does.
type FailoverConfig struct {
	Endpoint string
	Kills    int
	// Find returns the leader of the moment.
	Find func(context.Context) (Leader, error)
	// Settle is how long one takeover and one replacement may take.
	Settle   time.Duration
	Progress io.Writer
}

// FailoverResult holds the gaps between acknowledged writes.
type FailoverResult struct {
	Kills    int             `json:"kills"`
	Median   time.Duration   `json:"median_ns"`
	P99      time.Duration   `json:"p99_ns"`
	Worst    time.Duration   `json:"worst_ns"`
	Refill   time.Duration   `json:"refill_median_ns"` // from the kill to full strength
	Gaps     []time.Duration `json:"gaps_ns"`
	Writes   int             `json:"writes"`
	Missing  []string        `json:"missing"` // acknowledged keys that are not there
	Attempts int             `json:"failed_attempts"`
}

// writer puts one key after the other and notes when each was acknowledged.
type writer struct {
	mu     sync.Mutex
	acks   []time.Time
	failed int
}

func (w *writer) run(ctx context.Context, kv clientv3.KV) {
	for i := 0; ctx.Err() == nil; {
		put, cancel := context.WithTimeout(ctx, 5*time.Second)
		_, err := kv.Put(put, key(i), fmt.Sprint(i))
		cancel()
		w.mu.Lock()
		if err == nil {
			w.acks = append(w.acks, time.Now())
			i++
		} else {
			w.failed++
		}
		w.mu.Unlock()
	}
}

func key(i int) string { return fmt.Sprintf("bench/failover/%09d", i) }

// gap is the longest time between two acknowledged writes from since on;
// false while no write was acknowledged after the moment.
func (w *writer) gap(since, moment time.Time) (time.Duration, bool) {
	w.mu.Lock()
	defer w.mu.Unlock()
	i, _ := slices.BinarySearchFunc(w.acks, since, time.Time.Compare)
	if len(w.acks) == 0 || !w.acks[len(w.acks)-1].After(moment.Add(200*time.Millisecond)) {
		return 0, false
	}
	longest := time.Duration(0)
	for i = max(i, 1); i < len(w.acks); i++ {
		longest = max(longest, w.acks[i].Sub(w.acks[i-1]))
	}
	return longest, true
}

func (w *writer) count() int {
	w.mu.Lock()
	defer w.mu.Unlock()
	return len(w.acks)
}

// Failover kills the leader again and again while one stock client with one
// endpoint writes, and measures how long no write was acknowledged.
func Failover(ctx context.Context, cfg FailoverConfig) (*FailoverResult, error) {
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{cfg.Endpoint}, Logger: zap.NewNop(), DialTimeout: 5 * time.Second})
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	defer client.Close()
	w := &writer{}
	writing, stop := context.WithCancel(ctx)
	var wg sync.WaitGroup
	wg.Go(func() { w.run(writing, client) })
	defer func() { stop(); wg.Wait() }()

	res := &FailoverResult{}
	var refills []time.Duration
	for n := range cfg.Kills {
		gap, refill, err := killOnce(ctx, cfg, w)
		if err != nil {
			return nil, fmt.Errorf("kill %d of %d: %w", n+1, cfg.Kills, err)
		}
		res.Gaps = append(res.Gaps, gap)
		refills = append(refills, refill)
		fmt.Fprintf(cfg.Progress, "kill %3d: %8s without an acknowledged write, full strength after %s\n",
			n+1, gap.Round(10*time.Microsecond), refill.Round(time.Millisecond))
	}
	stop()
	wg.Wait()
	res.Kills, res.Writes, res.Attempts = cfg.Kills, len(w.acks), w.failed
	res.Median, res.P99, res.Worst = quantile(res.Gaps, 0.5), quantile(res.Gaps, 0.99), quantile(res.Gaps, 1)
	res.Refill = quantile(refills, 0.5)
	res.Missing, err = missing(ctx, client, len(w.acks))
	return res, err
}

func killOnce(ctx context.Context, cfg FailoverConfig, w *writer) (gap, refill time.Duration, err error) {
	leader, err := await(ctx, cfg, func(l Leader) bool { return l.Full })
	if err != nil {
		return 0, 0, fmt.Errorf("wait for full strength: %w", err)
	}
	before := w.count()
	if err := until(ctx, cfg.Settle, func() bool { return w.count() > before+5 }); err != nil {
		return 0, 0, fmt.Errorf("wait for writes: %w", err)
	}
	since := time.Now()
	if err := leader.Kill(); err != nil {
		return 0, 0, fmt.Errorf("kill leader, pid %d: %w", leader.PID, err)
	}
	// Asking costs processor time, which the takeover needs now: leave it alone
	// for as long as one takes.
	select {
	case <-time.After(quiet):
	case <-ctx.Done():
		return 0, 0, ctx.Err()
	}
	if _, err := await(ctx, cfg, func(l Leader) bool { return l.Full && l.PID != leader.PID }); err != nil {
		return 0, 0, fmt.Errorf("wait for the next leader at full strength: %w", err)
	}
	refill = time.Since(since)
	err = until(ctx, cfg.Settle, func() (ok bool) {
		gap, ok = w.gap(since.Add(-100*time.Millisecond), since)
		return ok
	})
	return gap, refill, err
}

const (
	quiet = 50 * time.Millisecond // after a kill
	pace  = 10 * time.Millisecond // of asking for conditions
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
			return fmt.Errorf("not within %s", limit)
		}
		select {
		case <-time.After(pace):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// missing returns the acknowledged keys that are not there.
func missing(ctx context.Context, c *clientv3.Client, n int) ([]string, error) {
	there := make(map[string]bool, n)
	from := key(0)
	end := clientv3.GetPrefixRangeEnd("bench/failover/")
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
	for i := range n {
		if !there[key(i)] {
			gone = append(gone, key(i))
		}
	}
	return gone, nil
}

// quantile of unsorted values, by the nearest rank.
func quantile(ds []time.Duration, q float64) time.Duration {
	if len(ds) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(ds))
	i := int(q*float64(len(sorted)) + 0.5)
	return sorted[min(max(i, 1), len(sorted))-1]
}
