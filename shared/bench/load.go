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
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// Workloads are the names of what Run can do, in the order in which they are explained.
var Workloads = []string{"put", "get", "mixed", "txn", "watch", "lease"}

const (
	// dialTimeout bounds the first connection.
	dialTimeout = 5 * time.Second
	// opTimeout bounds one request: longer is an error of the server.
	opTimeout = 30 * time.Second
	// maxErrors is how many requests in a row of one client may fail before it gives up.
	maxErrors = 10
)

// ErrNothing says that not a single request succeeded.
var ErrNothing = errors.New("no request succeeded")

// Target says where the servers are.
type Target struct {
	Endpoints []string
	TLS       *tls.Config // nil: plain text
	PIDs      []int       // of all server processes, for what they spend; may be empty
}

func (t Target) dial() (*clientv3.Client, error) {
	c, err := clientv3.New(clientv3.Config{Endpoints: t.Endpoints, TLS: t.TLS, Logger: zap.NewNop(),
		DialTimeout: dialTimeout, MaxCallSendMsgSize: 64 << 20})
	if err != nil {
		return nil, fmt.Errorf("client of %s: %w", strings.Join(t.Endpoints, ","), err)
	}
	return c, nil
}

// Load is what the clients do.
type Load struct {
	Target
	// Workload is one of Workloads.
	Workload string
	// Clients ask at the same time, over as many Connections (at most one each).
	Clients, Connections int
	// KeyBytes and ValueBytes are the sizes, Keys the number of different keys.
	KeyBytes, ValueBytes, Keys int
	// Total ends the load after so many requests; 0: Duration does.
	Total    int
	Duration time.Duration
	// Warmup is done and not counted.
	Warmup time.Duration
	// Serializable makes reads serializable.
	Serializable bool
	// ReadPercent is the share of reads in the workload mixed.
	ReadPercent int
	// Seed makes the choice of keys repeatable.
	Seed uint64
	// Progress is told what takes its time; may be nil.
	Progress io.Writer
}

const minKeyBytes = 12

// check completes a load and refuses what makes no sense.
func (l *Load) check() error {
	switch {
	case !slices.Contains(Workloads, l.Workload):
		return fmt.Errorf("there is no workload %q, want one of %s", l.Workload, strings.Join(Workloads, ", "))
	case len(l.Endpoints) == 0:
		return errors.New("no endpoint given")
	case l.Clients < 1 || l.Connections < 1:
		return fmt.Errorf("%d clients on %d connections: at least one of each is needed", l.Clients, l.Connections)
	case l.KeyBytes < minKeyBytes:
		return fmt.Errorf("keys of %d bytes: at least %d are needed to tell them apart", l.KeyBytes, minKeyBytes)
	case l.ValueBytes < 0 || l.Keys < 1:
		return fmt.Errorf("%d keys with values of %d bytes", l.Keys, l.ValueBytes)
	case l.Total < 0 || l.Total == 0 && l.Duration <= 0:
		return errors.New("neither a number of requests nor a duration given")
	case l.ReadPercent < 0 || l.ReadPercent > 100:
		return fmt.Errorf("%d percent of reads, want 0 to 100", l.ReadPercent)
	}
	l.Connections = min(l.Connections, l.Clients)
	return nil
}

const keyPrefix = "bench/"

// keyOf is the i-th key, of the size that is asked for.
func (l *Load) keyOf(i int) string {
	return fmt.Sprintf("%s%0*d", keyPrefix, l.KeyBytes-len(keyPrefix), i)
}

// value is filled with what does not compress.
func (l *Load) value(r *rand.Rand) []byte {
	v := make([]byte, l.ValueBytes)
	for i := range v {
		v[i] = byte(' ' + r.IntN(95))
	}
	return v
}

// Run does a load and returns what came of it. Failed requests are counted; the
// error is ErrNothing, with a cause, when there are only such, or says why there
// is no result.
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

// fillKeys writes every key once, many in one request, so that reads find something.
func (l *Load) fillKeys(ctx context.Context, c *clientv3.Client) error {
	if l.Progress != nil {
		fmt.Fprintf(l.Progress, "writes %d keys to be read\n", l.Keys)
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
			return fmt.Errorf("write keys to be read: %w", err)
		}
		ops, bytes = ops[:0], 0
	}
	return nil
}
