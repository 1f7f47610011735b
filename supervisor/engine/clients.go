package engine

import (
	"context"
	"encoding/json"
	"net"
	"net/http"
	"sync/atomic"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/etcdserver/api/etcdhttp"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/client/api"
	"github.com/dynast-io/dynast/shared/client/certs"
	"github.com/dynast-io/dynast/shared/client/gate"
	"github.com/dynast-io/dynast/shared/client/web"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/metrics"
)

// clients serves clients on the socket that all members of this host share.
type clients struct {
	grpc  *grpc.Server
	http  *web.Server
	split *web.Split
	// requests counts the requests under way that end by themselves.
	requests atomic.Int64
}

// patience is how long a connection may be open before its first request.
const patience = 20 * time.Second

// keepaliveMin is how often a client may ping, as etcd allows it.
const keepaliveMin = 5 * time.Second

func (e *Engine) clientServer(l net.Listener) (*clients, error) {
	g := gate.New("clients", gate.Limits{Unproven: e.settings.Client.MaxConnections, Total: e.settings.Client.MaxConnections, Patience: patience}, e.log)
	e.gate.Store(g)
	c := &clients{}
	options := []grpc.ServerOption{grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMin})}
	if cfg := e.settings.Client; cfg.TLS() {
		files := certs.New(certs.Files{Cert: cfg.CertFile, Key: cfg.KeyFile, ClientCA: cfg.ClientCAFile}, e.log)
		if err := files.Load(); err != nil {
			e.log.Warn("cannot use the TLS files for clients; they are read again when a client connects", "error", err)
		}
		options = append(options, grpc.Creds(certs.Credentials()))
		c.split = web.NewSplit(l, files.Config(), g)
	} else {
		c.split = web.NewSplit(l, nil, g)
	}
	c.grpc = v3rpc.Server(e.server, nil, func(ctx context.Context, req any, info *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
		// A transaction that crashes etcd would crash every engine, again and again: it is in the log.
		if r, ok := req.(*pb.TxnRequest); ok {
			if err := api.CheckKept(r); err != nil {
				return nil, err
			}
		}
		resp, err := c.counted(ctx, req, info, handler)
		return resp, e.explained(ctx, err)
	}, options...)
	local := v3client.New(e.server)
	v3lockpb.RegisterLockServer(c.grpc, v3lock.NewLockServer(local))
	v3electionpb.RegisterElectionServer(c.grpc, v3election.NewElectionServer(local))
	c.http = web.New(web.Config{Health: e.health, AuthEnabled: func() bool { return e.server.AuthStore().IsAuthEnabled() }, Metrics: metrics.WithHost(e.hostMetrics), GRPC: c.grpc, Logger: e.logs.Logger("http"), MaxRequestBytes: int(e.settings.Client.MaxRequest)})
	return c, nil
}

// health adds etcd's own paths for the health and the version, because they distinguish what this host
// can do alone from what needs a majority.
func (e *Engine) health(mux *http.ServeMux) {
	etcdhttp.HandleHealth(e.logs.Zap("health"), mux, e.server)
	etcdhttp.HandleVersion(mux, e.server)
}

// hostMetrics asks the leader of this host for its metrics.
func (e *Engine) hostMetrics() (text string, err error) {
	err = e.askLeader(context.Background(), metricsTimeout, func(ctx context.Context, a wire.AdminClient) error {
		resp, err := a.Hosts(ctx, &wire.HostsRequest{Path: hosts.PathMetrics})
		if err != nil {
			return err
		}
		return json.Unmarshal(resp.GetJson(), &text)
	})
	return text, err
}

// metricsTimeout bounds how long a scrape waits for the leader of this host.
const metricsTimeout = time.Second

// serve accepts clients. Errors go to failed.
func (c *clients) serve(failed chan<- error) {
	for _, serve := range []func() error{c.split.Serve, func() error { return c.grpc.Serve(c.split.GRPC()) }, func() error { return c.http.Serve(c.split.HTTP()) }} {
		go func() {
			if err := serve(); err != nil {
				failed <- err
			}
		}()
	}
}

// explained replaces the error of a request that etcd's server gave up after its own limit, while the
// client would have waited longer. etcd answers "context deadline exceeded". That does not say why, and
// a stock client takes it for an end of its own attempt and sends the request again and again, even a
// write.
func (e *Engine) explained(ctx context.Context, err error) error {
	switch {
	case err == nil || ctx.Err() != nil || status.FromContextError(err).Code() != codes.DeadlineExceeded:
		return err
	case e.server.Leader() == 0:
		return rpctypes.ErrGRPCNoLeader
	}
	return rpctypes.ErrGRPCTimeout
}

func (c *clients) counted(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	c.requests.Add(1)
	defer c.requests.Add(-1)
	return handler(ctx, req)
}

// drain bounds how long a stop waits for requests under way.
const drain = 2 * time.Second

// linger is how long no request must have been under way before streams are ended.
const linger = 100 * time.Millisecond

// stop answers what was accepted. The socket stays open for the next engine.
func (c *clients) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	c.split.Drain(ctx)
	c.http.Shutdown(ctx)
	done := make(chan struct{})
	go func() { c.grpc.GracefulStop(); close(done) }()
	for t, quiet := time.NewTicker(linger/4), 0; ; {
		select {
		case <-done:
			t.Stop()
			return
		case <-ctx.Done():
			quiet = 4
		case <-t.C:
			if quiet++; c.requests.Load() > 0 {
				quiet = 0
			}
		}
		if quiet >= 4 { // what is left are watches and other streams, which do not end by themselves
			t.Stop()
			c.grpc.Stop()
			return
		}
	}
}
