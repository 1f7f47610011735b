package api

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

// inProcess makes clients of this API without a network. Their calls are function calls of the
// handlers in this process. (The rule that a handler makes no gRPC call is about calls between
// processes, which could wait for each other in a circle. These calls end in the same handlers,
// store and log as those of any client.)
type inProcess struct {
	kv       pb.KVClient
	lease    pb.LeaseClient
	watch    pb.WatchClient
	stopping <-chan struct{}
}

// newInProcess picks the services that locks and elections need from the list of all services.
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

// patientKV does not begin a write if its caller no longer waits for it.
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

// call answers one request with a client of its own. That client uses the credentials of
// the request, also for the clean-up after the caller has hung up. (The watches of a
// shared client would share a stream, which has the credentials of the first caller.)
// When this process stops, a request that waits for a lock ends without a clean-up. So its
// place in the queue still exists when the caller tries again at the next leader.
func call[Response any](p inProcess, request context.Context, f func(context.Context, *clientv3.Client) (Response, error)) (Response, error) {
	ctx, cancel := context.WithCancel(request)
	defer cancel()
	// The client uses its own context for the clean-up.
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
			cancelOwn() // before the request ends, so that nothing is cleaned up
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

// forward calls one method of etcd's own server, which is made for the call's client.
func forward[Server, Request, Response any](p inProcess, ctx context.Context, r Request, newServer func(*clientv3.Client) Server,
	method func(Server, context.Context, Request) (Response, error)) (Response, error) {
	return call(p, ctx, func(ctx context.Context, c *clientv3.Client) (Response, error) { return method(newServer(c), ctx, r) })
}

// fromClient turns a client's error into one that can be sent. As in etcd, the error loses its
// code, because clients recognize it by its text. The exception is "unavailable": it makes
// clients try again, so that they survive a takeover.
func fromClient(err error) error {
	var e rpctypes.EtcdError
	if errors.As(err, &e) && e.Code() == codes.Unavailable {
		return status.Error(e.Code(), e.Error())
	}
	return err
}

// lockServer is the service Lock, with etcd's own code. A lock is a key with a lease, and so it
// outlives the leader that granted it.
type lockServer struct {
	v3lockpb.UnsafeLockServer
	foreground
	inProcess
}

func (s *lockServer) register(g *grpc.Server) { v3lockpb.RegisterLockServer(g, s) }

func (s *lockServer) Lock(ctx context.Context, r *v3lockpb.LockRequest) (*v3lockpb.LockResponse, error) {
	return forward(s.inProcess, ctx, r, v3lock.NewLockServer, v3lockpb.LockServer.Lock)
}

func (s *lockServer) Unlock(ctx context.Context, r *v3lockpb.UnlockRequest) (*v3lockpb.UnlockResponse, error) {
	return forward(s.inProcess, ctx, r, v3lock.NewLockServer, v3lockpb.LockServer.Unlock)
}

// electionServer is the service Election, with etcd's own code. Candidates are keys with
// leases, in the order of their creation.
type electionServer struct {
	v3electionpb.UnsafeElectionServer
	foreground
	inProcess
}

func (s *electionServer) register(g *grpc.Server) { v3electionpb.RegisterElectionServer(g, s) }

func (s *electionServer) Campaign(ctx context.Context, r *v3electionpb.CampaignRequest) (*v3electionpb.CampaignResponse, error) {
	return forward(s.inProcess, ctx, r, v3election.NewElectionServer, v3electionpb.ElectionServer.Campaign)
}

func (s *electionServer) Proclaim(ctx context.Context, r *v3electionpb.ProclaimRequest) (*v3electionpb.ProclaimResponse, error) {
	return forward(s.inProcess, ctx, r, v3election.NewElectionServer, v3electionpb.ElectionServer.Proclaim)
}

func (s *electionServer) Leader(ctx context.Context, r *v3electionpb.LeaderRequest) (*v3electionpb.LeaderResponse, error) {
	return forward(s.inProcess, ctx, r, v3election.NewElectionServer, v3electionpb.ElectionServer.Leader)
}

func (s *electionServer) Observe(r *v3electionpb.LeaderRequest, stream grpc.ServerStreamingServer[v3electionpb.LeaderResponse]) error {
	_, err := call(s.inProcess, stream.Context(), func(ctx context.Context, c *clientv3.Client) (any, error) {
		return nil, v3election.NewElectionServer(c).Observe(r, leaderStream{stream, ctx})
	})
	return err
}

// leaderStream is a stream that also ends when ctx ends.
type leaderStream struct {
	grpc.ServerStreamingServer[v3electionpb.LeaderResponse]
	ctx context.Context
}

func (s leaderStream) Context() context.Context { return s.ctx }

func (s *electionServer) Resign(ctx context.Context, r *v3electionpb.ResignRequest) (*v3electionpb.ResignResponse, error) {
	return forward(s.inProcess, ctx, r, v3election.NewElectionServer, v3electionpb.ElectionServer.Resign)
}
