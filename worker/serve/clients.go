package serve

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"sync/atomic"

	"github.com/prometheus/client_golang/prometheus"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"google.golang.org/grpc"

	"github.com/dynast-io/dynast/shared/client/api"
	"github.com/dynast-io/dynast/shared/client/certs"
	"github.com/dynast-io/dynast/shared/client/gate"
	"github.com/dynast-io/dynast/shared/client/web"
	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/observe/meter"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/worker/replica"
	"github.com/dynast-io/dynast/worker/state"
)

// Replica is the copy of the data that clients are served from.
type Replica interface {
	Current() replica.Copy
	Hold() replica.Held
}

// Proposer replicates writes.
type Proposer interface {
	Propose(ctx context.Context, r *pb.InternalRaftRequest) (*apply.Result, error)
}

// Config holds what New needs.
type Config struct {
	Shared   *state.Shared
	Replica  Replica
	Proposer Proposer
	// Socket is the listening socket, which all members have open.
	Socket *os.File
	// Gate limits the connections that are accepted from a listener.
	Gate func(net.Listener) *gate.Gate
	// Metrics returns what /metrics serves; nil: metrics are not served.
	Metrics func() prometheus.Gatherer
}

// Clients serves clients once this member leads.
type Clients struct {
	*state.Shared
	replica  Replica
	proposer Proposer
	socket   *os.File
	gate     func(net.Listener) *gate.Gate
	metrics  func() prometheus.Gatherer

	tls        *certs.Reloader // nil: no TLS
	compaction *autoCompaction
	requests   meter.Requests
	server     atomic.Pointer[server] // nil until clients are served
}

// New creates Clients. It reads the certificates now, so that a takeover does not have to.
func New(c Config) *Clients {
	return &Clients{Shared: c.Shared, replica: c.Replica, proposer: c.Proposer, socket: c.Socket, gate: c.Gate, metrics: c.Metrics,
		tls: newTLS(c.Shared), compaction: newAutoCompaction(c.Shared, c.Replica, c.Proposer)}
}

// Start starts recording which revision was current at which time, for compaction by time.
func (c *Clients) Start() { c.compaction.start() }

// Close stops what Start started.
func (c *Clients) Close() { c.compaction.stop() }

// Requests returns the counts and times of the requests of clients.
func (c *Clients) Requests() meter.Load { return c.requests.Snapshot() }

// Configure applies a configuration that replaces another.
func (c *Clients) Configure(cfg, before *config.Config) {
	if c.tls != nil {
		c.tls.SetFiles(clientFiles(cfg))
	}
	if s := c.server.Load(); s != nil {
		s.api.SetWatchProgressInterval(cfg.Client.WatchProgressInterval)
	}
	if cfg.Store.AutoCompaction != before.Store.AutoCompaction {
		if err := c.compaction.keep(cfg.Store.AutoCompaction); err != nil {
			c.Fatal(core.ExitError, errors.Join(errors.New("automatic compaction"), err))
		}
	}
}

// Serve accepts clients from the shared listening socket. Clients may have been waiting in its
// queue since the last leader died. The caller has applied all entries up to the first of the
// epoch. gRPC clients are served when Serve returns. HTTP clients are served when serveHTTP is
// called.
func (c *Clients) Serve() (serveHTTP func(), err error) {
	l, err := net.FileListener(c.socket)
	if err != nil {
		return nil, fmt.Errorf("accept clients on %s: %w", c.Settings.Start.Client.Listen, err)
	}
	client := c.Settings.Start.Client
	api := api.New(api.Config{
		Store:    c.replica.Current().Store,
		Proposer: c.proposer,
		Cluster:  &cluster{c.Shared},
		Limits: api.Limits{MaxRequestBytes: int(client.MaxRequest), MaxStreams: uint32(client.MaxStreams),
			MaxTxnOps: client.MaxTxnOps},
		WatchProgressInterval: c.Settings.Now().Client.WatchProgressInterval,
		Logger:                c.Logs.Logger("client"),
		Meter:                 &c.requests,
		OnDamage:              c.StoreFailed,
	})
	options, split := api.ServerOptions(), c.split(l)
	if c.tls != nil {
		options = append(options, grpc.Creds(certs.Credentials()))
	}
	rpc := grpc.NewServer(options...)
	api.Register(rpc)
	http := web.New(web.Config{Node: node{c.replica}, AuthEnabled: node{c.replica}.AuthEnabled, GRPC: rpc, Metrics: c.metrics(), Logger: c.Logs.Logger("http"),
		MaxRequestBytes: int(client.MaxRequest)})
	c.server.Store(&server{api: api, grpc: rpc, http: http, split: split})
	go c.Guarded(func() { api.Run(c.Lifetime()) })
	for _, serve := range []func() error{split.Serve, func() error { return rpc.Serve(split.GRPC()) }} {
		go func() {
			if err := serve(); err != nil {
				c.Fatal(core.ExitError, fmt.Errorf("serve clients: %w", err))
			}
		}()
	}
	c.Log.Info("serving clients", "listen", client.Listen)
	return func() {
		c.compaction.lead()
		if err := http.Serve(split.HTTP()); err != nil {
			c.Fatal(core.ExitError, err)
		}
	}, nil
}

// Stop accepts no more requests and answers those that were accepted. The listening socket
// stays open for the next leader.
func (c *Clients) Stop() {
	if s := c.server.Load(); s != nil {
		s.stop()
	}
}

// Read reads the first key as a client's request would, without checking permissions.
func (c *Clients) Read(ctx context.Context) error { return node{c.replica}.Read(ctx) }

// TLS reports whether clients are served over TLS.
func (c *Clients) TLS() bool { return c.tls != nil }

// AuthEnabled reports whether requests need a user.
func (c *Clients) AuthEnabled() bool { return node{c.replica}.AuthEnabled() }
