package bench

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// operation is one request of a client, or a short series of requests that counts as one.
type operation func(ctx context.Context, c *clientv3.Client, r *rand.Rand) error

// operations makes the operation of each workload for one client.
var operations = map[string]func(l *Load, r *rand.Rand) operation{
	"put":   putOperation,
	"get":   getOperation,
	"mixed": mixedOperation,
	"txn":   txnOperation,
	"lease": leaseOperation,
}

func putOperation(l *Load, r *rand.Rand) operation {
	value := string(l.value(r))
	return func(ctx context.Context, c *clientv3.Client, r *rand.Rand) error {
		_, err := c.Put(ctx, l.keyOf(r.IntN(l.Keys)), value)
		return err
	}
}

func getOperation(l *Load, _ *rand.Rand) operation {
	var opts []clientv3.OpOption
	if l.Serializable {
		opts = append(opts, clientv3.WithSerializable())
	}
	return func(ctx context.Context, c *clientv3.Client, r *rand.Rand) error {
		k := l.keyOf(r.IntN(l.Keys))
		resp, err := c.Get(ctx, k, opts...)
		if err == nil && len(resp.Kvs) != 1 {
			err = fmt.Errorf("%d values for %s, want 1", len(resp.Kvs), k)
		}
		return err
	}
}

func mixedOperation(l *Load, r *rand.Rand) operation {
	put, get := putOperation(l, r), getOperation(l, r)
	return func(ctx context.Context, c *clientv3.Client, r *rand.Rand) error {
		if r.IntN(100) < l.ReadPercent {
			return get(ctx, c, r)
		}
		return put(ctx, c, r)
	}
}

// txnOperation is a typical transaction: a condition on one key, then a write and a read.
func txnOperation(l *Load, r *rand.Rand) operation {
	value := string(l.value(r))
	return func(ctx context.Context, c *clientv3.Client, r *rand.Rand) error {
		k := l.keyOf(r.IntN(l.Keys))
		resp, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Version(k), ">", -1)).
			Then(clientv3.OpPut(k, value), clientv3.OpGet(k)).Commit()
		if err == nil && (!resp.Succeeded || len(resp.Responses) != 2) {
			err = fmt.Errorf("transaction on %s: its condition is always true, but the server reported false", k)
		}
		return err
	}
}

// leaseOperation grants a lease, keeps it alive once and revokes it. The three requests count as
// one operation.
func leaseOperation(*Load, *rand.Rand) operation {
	return func(ctx context.Context, c *clientv3.Client, _ *rand.Rand) error {
		granted, err := c.Grant(ctx, 60)
		if err != nil {
			return err
		}
		if _, err := c.KeepAliveOnce(ctx, granted.ID); err != nil {
			return err
		}
		_, err = c.Revoke(ctx, granted.ID)
		return err
	}
}

// runClosed runs all clients, first for the warm-up and then for the measurement.
func runClosed(ctx context.Context, l *Load, conns []*clientv3.Client) (*Result, error) {
	clients := newRecorders(l.Clients)
	before, err := readServers(l.PIDs)
	if err != nil {
		return nil, err
	}
	ops := newOperations(l, operations[l.Workload])
	if l.Warmup > 0 {
		warm, cancel := context.WithTimeout(ctx, l.Warmup)
		all(l, func(i int) {
			for n := 0; warm.Err() == nil && n < maxErrors; {
				if ops[i].run(ctx, conns[i%len(conns)]) != nil {
					n++
				}
			}
		})
		cancel()
	}
	limit, cancel := ctx, context.CancelFunc(func() {})
	if l.Duration > 0 {
		limit, cancel = context.WithTimeout(ctx, l.Duration)
	}
	defer cancel()
	var given atomic.Int64
	more := func() bool {
		n := given.Add(1)
		return limit.Err() == nil && (l.Total == 0 || n <= int64(l.Total))
	}
	if before, err = before.again(); err != nil { // a process can have died during the warm-up
		return nil, err
	}
	began := time.Now()
	stop := l.showProgress(began, &given)
	all(l, func(i int) { clients[i].loop(ctx, ops[i], conns[i%len(conns)], more) })
	stop()
	took := time.Since(began)
	after, err := before.again()
	if err != nil {
		return nil, err
	}
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return newResult(l, took, clients, after.since(before))
}

// seeded is an operation with its client's own random numbers.
type seeded struct {
	op operation
	r  *rand.Rand
}

func (s seeded) run(ctx context.Context, c *clientv3.Client) error {
	ctx, cancel := context.WithTimeout(ctx, opTimeout)
	defer cancel()
	return s.op(ctx, c, s.r)
}

func newOperations(l *Load, of func(*Load, *rand.Rand) operation) []seeded {
	var ops []seeded
	for i := range l.Clients {
		r := rand.New(rand.NewPCG(l.Seed, uint64(i)+1))
		ops = append(ops, seeded{op: of(l, r), r: r})
	}
	return ops
}

// all runs one goroutine for each client and waits for them.
func all(l *Load, f func(i int)) {
	var wg sync.WaitGroup
	for i := range l.Clients {
		wg.Go(func() { f(i) })
	}
	wg.Wait()
}
