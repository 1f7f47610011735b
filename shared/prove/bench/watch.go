package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// stampBytes is the size of the time stamp in a value: the time of the put in decimal
// nanoseconds.
const stampBytes = 20

// runWatch runs one writer; all other clients watch all keys. One operation is one event at one
// watcher. Its latency is the time from just before the put until just after the event. Every
// watcher must see every event.
func runWatch(ctx context.Context, l *Load, conns []*clientv3.Client) (*Result, error) {
	watchers := max(l.Clients-1, 1)
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	clients := newRecorders(watchers)
	seen := newTally(watchers)
	var ready, done sync.WaitGroup
	ready.Add(watchers)
	for i := range watchers {
		done.Go(func() { watchAll(ctx, conns[i%len(conns)], clients[i], seen, i, &ready) })
	}
	defer func() { cancel(); done.Wait() }()
	ready.Wait()
	before, err := readServers(l.PIDs)
	if err != nil {
		return nil, err
	}
	began := time.Now()
	writer := &recorder{}
	puts, err := writeStamped(ctx, l, conns[0], writer)
	if err != nil {
		return nil, err
	}
	if err := seen.await(ctx, puts); err != nil {
		return nil, err
	}
	took := time.Since(began)
	after, err := before.again()
	if err != nil {
		return nil, err
	}
	cancel()
	done.Wait()
	clients[0].errors, clients[0].failure = writer.errors, writer.failure
	return newResult(l, took, clients, after.since(before))
}

// writeStamped puts one key after the other until the load ends. It returns the number of
// acknowledged puts. A put without an acknowledgement, because a leader died, may or may not have
// been written; it counts as failed.
func writeStamped(ctx context.Context, l *Load, c *clientv3.Client, failed *recorder) (int, error) {
	r := rand.New(rand.NewPCG(l.Seed, 1))
	padding := strings.Repeat("v", max(l.ValueBytes-stampBytes, 0))
	limit := time.Now().Add(l.Duration)
	n, given, inRow := 0, atomic.Int64{}, 0
	defer l.showProgress(time.Now(), &given)()
	for (l.Total == 0 || n < l.Total) && (l.Duration == 0 || time.Now().Before(limit)) {
		put, cancel := context.WithTimeout(ctx, opTimeout)
		_, err := c.Put(put, l.keyOf(r.IntN(l.Keys)), fmt.Sprintf("%0*d%s", stampBytes, time.Now().UnixNano(), padding))
		cancel()
		given.Add(1)
		if err != nil {
			failed.fail(err)
			if inRow++; inRow >= maxErrors || ctx.Err() != nil {
				return n, fmt.Errorf("put for the watchers: %w", err)
			}
			continue
		}
		inRow = 0
		n++
	}
	if n == 0 {
		return 0, ErrNothing
	}
	return n, nil
}

func watchAll(ctx context.Context, c *clientv3.Client, r *recorder, seen *tally, i int, ready *sync.WaitGroup) {
	once := sync.OnceFunc(ready.Done)
	defer once()
	for resp := range c.Watch(ctx, keyPrefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify()) {
		once()
		if err := resp.Err(); err != nil {
			seen.broke(fmt.Errorf("watcher %d: %w", i, err))
			return
		}
		now := time.Now().UnixNano()
		n := 0
		for _, ev := range resp.Events {
			if len(ev.Kv.Value) < stampBytes {
				continue // another client's
			}
			if sent, err := strconv.ParseInt(string(ev.Kv.Value[:stampBytes]), 10, 64); err == nil {
				r.success(time.Duration(now - sent))
				n++
			}
		}
		seen.add(i, n)
	}
}

// tally counts the events of each watcher.
type tally struct {
	mu      sync.Mutex
	counts  []int
	failure error
	changed chan struct{}
}

func newTally(n int) *tally { return &tally{counts: make([]int, n), changed: make(chan struct{}, 1)} }

func (t *tally) update(f func()) {
	t.mu.Lock()
	f()
	t.mu.Unlock()
	select {
	case t.changed <- struct{}{}:
	default:
	}
}

func (t *tally) add(i, n int)    { t.update(func() { t.counts[i] += n }) }
func (t *tally) broke(err error) { t.update(func() { t.failure = errors.Join(t.failure, err) }) }

// await waits until every watcher has seen n events.
func (t *tally) await(ctx context.Context, n int) error {
	late := time.NewTimer(opTimeout)
	defer late.Stop()
	for {
		t.mu.Lock()
		behind, failure := -1, t.failure
		for i, c := range t.counts {
			if c < n {
				behind = i
			}
		}
		t.mu.Unlock()
		if failure != nil {
			return failure
		}
		if behind < 0 {
			return nil
		}
		select {
		case <-t.changed:
		case <-ctx.Done():
			return ctx.Err()
		case <-late.C:
			return fmt.Errorf("watcher %d did not see all %d events within %s", behind, n, opTimeout)
		}
	}
}
