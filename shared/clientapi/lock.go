package clientapi

import (
	"context"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"go.etcd.io/etcd/server/v3/proxy/grpcproxy/adapter"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// inProcess makes clients of this API without a network: their calls are
// function calls of the handlers here. (That a handler makes no gRPC call is a rule
// about calls between processes, which can wait for each other in a circle; these
// end in the same handlers, at the same store and log, as those of any client.)
type inProcess struct {
	kv       pb.KVClient
	lease    pb.LeaseClient
	watch    pb.WatchClient
	stopping <-chan struct{}
}

// newInProcess takes the services that locks and elections are made of from
// the list of all.
func newInProcess(a *API, services []service) inProcess {
	p := inProcess{stopping: a.stopping}
	for _, s := range services {
		switch s := s.(type) {
		case pb.KVServer:
			p.kv = adapter.KvServerToKvClient(patientKV{s})
		case pb.LeaseServer:
			p.lease = adapter.LeaseServerToLeaseClient(s)
		case pb.WatchServer:
			p.watch = adapter.WatchServerToWatchClient(s)
		}
	}
	return p
}

// patientKV does not begin a write for who does not wait for it any more.
type patientKV struct{ pb.KVServer }

func (kv patientKV) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return kv.KVServer.DeleteRange(ctx, r)
}

func (kv patientKV) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if ctx.Err() != nil {
		return nil, ctx.Err()
	}
	return kv.KVServer.Txn(ctx, r)
}

// call answers one request with a client of its own: it asks with the
// credentials of who sent the request, also for what it cleans up when that one has
// hung up (a client's watches share a stream, which has the credentials of the
// first). When this process stops, a request that waits for a lock ends without
// cleaning up: its place in the queue is there for the next try, at the next
// leader.
func call[Response any](p inProcess, request context.Context, f func(context.Context, *clientv3.Client) (Response, error)) (Response, error) {
	ctx, cancel := context.WithCancel(request)
	defer cancel()
	// The client's own context is the one that it cleans up with.
	own, cancelOwn := context.WithCancel(context.WithoutCancel(request))
	defer cancelOwn()
	c := clientv3.NewCtxClient(own)
	c.KV = clientv3.NewKVFromKVClient(p.kv, c)
	c.Lease = clientv3.NewLeaseFromLeaseClient(p.lease, c, 0)
	c.Watcher = clientv3.NewWatchFromWatchClient(p.watch, c)
	defer c.Close()
	stopped := make(chan bool, 1)
	go func() {
		select {
		case <-p.stopping:
			cancelOwn() // before the request ends: what it would clean up stays
			cancel()
			stopped <- true
		case <-ctx.Done():
			stopped <- false
		}
	}()
	resp, err := f(ctx, c)
	cancel()
	if <-stopped && err != nil {
		err = rpctypes.ErrGRPCStopped
	}
	return resp, fromClient(err)
}

// fromClient makes the error of a client one that can be sent. As in etcd it
// loses its code, clients know it by its text; but for "try again", by which
// they live through a takeover.
func fromClient(err error) error {
	var e rpctypes.EtcdError
	if errors.As(err, &e) && e.Code() == codes.Unavailable {
		return status.Error(e.Code(), e.Error())
	}
	return err
}

// lockServer is the service Lock, etcd's own. A lock is a key with a lease, and
// so outlives the leader that granted it.
type lockServer struct {
	v3lockpb.UnsafeLockServer
	foreground
	inProcess
}

func (s *lockServer) register(g *grpc.Server) { v3lockpb.RegisterLockServer(g, s) }

func (s *lockServer) Lock(ctx context.Context, r *v3lockpb.LockRequest) (*v3lockpb.LockResponse, error) {
	return call(s.inProcess, ctx, func(ctx context.Context, c *clientv3.Client) (*v3lockpb.LockResponse, error) {
		return v3lock.NewLockServer(c).Lock(ctx, r)
	})
}

func (s *lockServer) Unlock(ctx context.Context, r *v3lockpb.UnlockRequest) (*v3lockpb.UnlockResponse, error) {
	return call(s.inProcess, ctx, func(ctx context.Context, c *clientv3.Client) (*v3lockpb.UnlockResponse, error) {
		return v3lock.NewLockServer(c).Unlock(ctx, r)
	})
}

// electionServer is the service Election, etcd's own. Candidates are keys with
// leases, in the order of their creation.
type electionServer struct {
	v3electionpb.UnsafeElectionServer
	foreground
	inProcess
}

func (s *electionServer) register(g *grpc.Server) { v3electionpb.RegisterElectionServer(g, s) }

func (s *electionServer) Campaign(ctx context.Context, r *v3electionpb.CampaignRequest) (*v3electionpb.CampaignResponse, error) {
	return call(s.inProcess, ctx, func(ctx context.Context, c *clientv3.Client) (*v3electionpb.CampaignResponse, error) {
		return v3election.NewElectionServer(c).Campaign(ctx, r)
	})
}

func (s *electionServer) Proclaim(ctx context.Context, r *v3electionpb.ProclaimRequest) (*v3electionpb.ProclaimResponse, error) {
	return call(s.inProcess, ctx, func(ctx context.Context, c *clientv3.Client) (*v3electionpb.ProclaimResponse, error) {
		return v3election.NewElectionServer(c).Proclaim(ctx, r)
	})
}

func (s *electionServer) Leader(ctx context.Context, r *v3electionpb.LeaderRequest) (*v3electionpb.LeaderResponse, error) {
	return call(s.inProcess, ctx, func(ctx context.Context, c *clientv3.Client) (*v3electionpb.LeaderResponse, error) {
		return v3election.NewElectionServer(c).Leader(ctx, r)
	})
}

func (s *electionServer) Observe(r *v3electionpb.LeaderRequest, stream grpc.ServerStreamingServer[v3electionpb.LeaderResponse]) error {
	_, err := call(s.inProcess, stream.Context(), func(ctx context.Context, c *clientv3.Client) (any, error) {
		return nil, v3election.NewElectionServer(c).Observe(r, leaderStream{stream, ctx})
	})
	return err
}

// leaderStream is a stream that also ends with ctx.
type leaderStream struct {
	grpc.ServerStreamingServer[v3electionpb.LeaderResponse]
	ctx context.Context
}

func (s leaderStream) Context() context.Context { return s.ctx }

func (s *electionServer) Resign(ctx context.Context, r *v3electionpb.ResignRequest) (*v3electionpb.ResignResponse, error) {
	return call(s.inProcess, ctx, func(ctx context.Context, c *clientv3.Client) (*v3electionpb.ResignResponse, error) {
		return v3election.NewElectionServer(c).Resign(ctx, r)
	})
}
