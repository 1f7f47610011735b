package engine

import (
	"context"
	"net"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3client"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3rpc"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/grpc"
	"google.golang.org/grpc/keepalive"

	"github.com/dynast-io/dynast/shared/client/certs"
	"github.com/dynast-io/dynast/shared/client/gate"
	"github.com/dynast-io/dynast/shared/client/web"
)

// clients serves clients on the socket that all members of this host share.
type clients struct {
	grpc  *grpc.Server
	http  *web.Server
	split *web.Split
}

// patience is how long a connection may be open before its first request.
const patience = 20 * time.Second

// keepaliveMin is how often a client may ping, as etcd allows it.
const keepaliveMin = 5 * time.Second

func (e *Engine) clientServer(l net.Listener) (*clients, error) {
	g := gate.New("clients", gate.Limits{Unproven: e.settings.Client.MaxConnections, Total: e.settings.Client.MaxConnections, Patience: patience}, e.log)
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
	c.grpc = v3rpc.Server(e.server, nil, nil, options...)
	local := v3client.New(e.server)
	v3lockpb.RegisterLockServer(c.grpc, v3lock.NewLockServer(local))
	v3electionpb.RegisterElectionServer(c.grpc, v3election.NewElectionServer(local))
	c.http = web.New(web.Config{Node: node{e.server}, GRPC: c.grpc, Logger: e.logs.Logger("http"), MaxRequestBytes: int(e.settings.Client.MaxRequest)})
	return c, nil
}

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

// drain bounds how long a stop waits for requests under way.
const drain = 2 * time.Second

// stop answers what was accepted. The socket stays open for the next engine.
func (c *clients) stop() {
	ctx, cancel := context.WithTimeout(context.Background(), drain)
	defer cancel()
	c.split.Drain(ctx)
	c.http.Shutdown(ctx)
	done := make(chan struct{})
	go func() { c.grpc.GracefulStop(); close(done) }()
	select {
	case <-done:
	case <-ctx.Done(): // watches do not end by themselves
		c.grpc.Stop()
	}
}

// node is the engine as health checks see it.
type node struct{ server *etcdserver.EtcdServer }

var _ web.Node = node{}

func (n node) Alarms() []*pb.AlarmMember { return n.server.Alarms() }

// Read reads the first key, as a linearizable request.
func (n node) Read(ctx context.Context) error {
	if err := n.server.LinearizableReadNotify(ctx); err != nil {
		return err
	}
	_, err := n.server.KV().Range(ctx, []byte{0}, []byte{0}, mvcc.RangeOptions{Limit: 1})
	return err
}

func (n node) AuthEnabled() bool { return n.server.AuthStore().IsAuthEnabled() }
