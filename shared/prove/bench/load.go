package bench

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"slices"
	"strings"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Workloads are the names that Load.Workload accepts, in the order of the documentation.
var Workloads = []string{"put", "get", "mixed", "txn", "watch", "lease"}

const (
	// dialTimeout bounds the first connection.
	dialTimeout = 5 * time.Second
	// opTimeout bounds one request. A request that takes longer has failed.
	opTimeout = 30 * time.Second
	// maxErrors is the number of consecutive failed requests after which a client gives up.
	maxErrors = 10
)

// ErrNothing says that no request succeeded at all.
var ErrNothing = errors.New("no request succeeded")

// Target says where the servers are.
type Target struct {
	Endpoints []string
	TLS       *tls.Config // nil: plain text
	PIDs      []int       // the server processes whose cost is measured; may be empty
}

func (t Target) dial() (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: t.Endpoints, TLS: t.TLS, Logger: zap.NewNop(),
		DialTimeout: dialTimeout, MaxCallSendMsgSize: 64 << 20})
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", strings.Join(t.Endpoints, ","), err)
	}
	return c, nil
}

// Load describes what the clients do.
type Load struct {
	Target
	// Workload is one of Workloads.
	Workload string
	// Clients is the number of concurrent clients. They share Connections, of which each client
	// uses one.
	Clients, Connections int
	// KeyBytes and ValueBytes are the sizes of keys and values. Keys is the number of different
	// keys.
	KeyBytes, ValueBytes, Keys int
	// Total ends the load after this number of requests. With 0, Duration ends it.
	Total    int
	Duration time.Duration
	// Warmup is the time before the measurement begins.
	Warmup time.Duration
	// Serializable makes reads serializable.
	Serializable bool
	// ReadPercent is the share of reads in the workload "mixed".
	ReadPercent int
	// Seed makes the choice of keys reproducible.
	Seed uint64
	// Progress receives messages about steps that take long; may be nil.
	Progress io.Writer
	// Ticker is a terminal that shows the number of requests so far; may be nil.
	Ticker io.Writer
	// Keep leaves the keys in the database after the load.
	Keep bool
}

const minKeyBytes = 12

// check completes a load, and refuses one with invalid values.
func (l *Load) check() error {
	switch {
	case !slices.Contains(Workloads, l.Workload):
		return fmt.Errorf("unknown workload %q: must be one of %s", l.Workload, strings.Join(Workloads, ", "))
	case len(l.Endpoints) == 0:
		return errors.New("no endpoint given: name the servers with --endpoints")
	case l.Clients < 1 || l.Connections < 1:
		return fmt.Errorf("invalid number of clients %d or connections %d: each must be at least one", l.Clients, l.Connections)
	case l.KeyBytes < minKeyBytes:
		return fmt.Errorf("invalid key size of %d bytes: must be at least %d, so that all keys differ", l.KeyBytes, minKeyBytes)
	case l.ValueBytes < 0 || l.Keys < 1:
		return fmt.Errorf("invalid number of keys %d or value size of %d bytes: there must be at least one key, and the size must not be negative", l.Keys, l.ValueBytes)
	case l.Total < 0 || l.Total == 0 && l.Duration <= 0:
		return errors.New("the load has no end: give a number of requests or a duration, both positive")
	case l.ReadPercent < 0 || l.ReadPercent > 100:
		return fmt.Errorf("invalid share of reads %d percent: must be between 0 and 100", l.ReadPercent)
	}
	l.Connections = min(l.Connections, l.Clients)
	return nil
}

const keyPrefix = "bench/"

// keyOf returns the i-th key, KeyBytes long.
func (l *Load) keyOf(i int) string {
	return fmt.Sprintf("%s%0*d", keyPrefix, l.KeyBytes-len(keyPrefix), i)
}

// value returns random bytes that compress badly.
func (l *Load) value(r *rand.Rand) []byte {
	v := make([]byte, l.ValueBytes)
	for i := range v {
		v[i] = byte(' ' + r.IntN(95))
	}
	return v
}

// Run runs a load and returns its result. Failed requests are only counted. Run returns
// ErrNothing with a cause if all requests failed, and another error if there is no result.
func Run(ctx context.Context, l Load) (*Result, error) {
	if err := l.check(); err != nil {
		return nil, err
	}
	conns := make([]*clientv3.Client, l.Connections)
	for i := range conns {
		c, err := l.dial()
		if err != nil {
			return nil, err
		}
		defer c.Close()
		conns[i] = c
	}
	defer l.removeKeys(ctx, conns[0])
	if l.Workload == "watch" {
		return runWatch(ctx, &l, conns)
	}
	if l.Workload == "get" || l.Workload == "mixed" {
		if err := l.fillKeys(ctx, conns[0]); err != nil {
			return nil, err
		}
	}
	return runClosed(ctx, &l, conns)
}

// showProgress shows the number of requests on the terminal once a second. The returned function
// stops this and clears the line.
func (l *Load) showProgress(began time.Time, given *atomic.Int64) (stop func()) {
	if l.Ticker == nil {
		return func() {}
	}
	done, over := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(over)
		tick := time.NewTicker(time.Second)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				fmt.Fprintf(l.Ticker, "\r%s: %d requests in %.0f s", l.Workload, given.Load(), time.Since(began).Seconds())
			case <-done:
				fmt.Fprint(l.Ticker, "\r\x1b[K")
				return
			}
		}
	}()
	return func() { close(done); <-over }
}

// removeKeys removes exactly the keys that the load wrote. Keys with another size or other
// numbers belong to someone else. It removes them in pieces, so that no other request waits for
// long.
func (l *Load) removeKeys(ctx context.Context, c *clientv3.Client) {
	if l.Keep || l.Workload == "lease" {
		return
	}
	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), opTimeout) // also after an interrupt
	defer cancel()
	const piece = 1000
	for i := 0; i < l.Keys; i += piece {
		last := l.keyOf(min(i+piece, l.Keys) - 1)
		if _, err := c.Delete(ctx, l.keyOf(i), clientv3.WithRange(last+"\x00")); err != nil {
			if l.Progress != nil {
				fmt.Fprintf(l.Progress, "could not remove the keys of the load, which begin with %s: %v\n", keyPrefix, err)
			}
			return
		}
	}
}

// fillKeys writes every key once, with many keys in one request, so that each read finds a value.
func (l *Load) fillKeys(ctx context.Context, c *clientv3.Client) error {
	if l.Progress != nil {
		fmt.Fprintf(l.Progress, "writing %d keys before the measurement\n", l.Keys)
	}
	r := rand.New(rand.NewPCG(l.Seed, 0))
	const opsBytes, maxOps = 512 << 10, 100
	var ops []clientv3.Op
	bytes := 0
	for i := range l.Keys {
		ops = append(ops, clientv3.OpPut(l.keyOf(i), string(l.value(r))))
		bytes += l.KeyBytes + l.ValueBytes
		if len(ops) < maxOps && bytes < opsBytes && i+1 < l.Keys {
			continue
		}
		put, cancel := context.WithTimeout(ctx, opTimeout)
		_, err := c.Txn(put).Then(ops...).Commit()
		cancel()
		if err != nil {
			return fmt.Errorf("write the keys before the measurement: %w", err)
		}
		ops, bytes = ops[:0], 0
	}
	return nil
}
