package api

import (
	"context"
	"errors"
	"io"
	"math"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/auth"
	"go.etcd.io/etcd/server/v3/lease"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// leaseServer is the service Lease. The leaseKeeper, which runs in the background, keeps the
// promises about time.
type leaseServer struct {
	*API
	pb.UnsafeLeaseServer
	keeper *leaseKeeper
}

func newLeaseServer(a *API) *leaseServer {
	return &leaseServer{API: a, keeper: newLeaseKeeper(a)}
}

func (s *leaseServer) register(g *grpc.Server) { pb.RegisterLeaseServer(g, s) }

func (s *leaseServer) run(ctx context.Context) { s.keeper.run(ctx) }

func (s *leaseServer) LeaseGrant(ctx context.Context, r *pb.LeaseGrantRequest) (*pb.LeaseGrantResponse, error) {
	if err := s.checkQuota(ctx, r); err != nil {
		return nil, err
	}
	for r.ID == int64(lease.NoLease) {
		r.ID = int64(s.ids.Next() & math.MaxInt64)
	}
	if err := s.requireCaller(ctx); err != nil {
		return nil, toStatus(err)
	}
	res, err := s.propose(ctx, &pb.InternalRaftRequest{LeaseGrant: r})
	if err != nil {
		return nil, toStatus(err)
	}
	resp := res.Resp.(*pb.LeaseGrantResponse)
	s.fill(resp.Header)
	return resp, nil
}

func (s *leaseServer) LeaseRevoke(ctx context.Context, r *pb.LeaseRevokeRequest) (*pb.LeaseRevokeResponse, error) {
	if err := s.requireCaller(ctx); err != nil {
		return nil, toStatus(err)
	}
	defer s.keeper.revoking(ctx, lease.LeaseID(r.ID))()
	res, err := s.propose(ctx, &pb.InternalRaftRequest{LeaseRevoke: r})
	if err != nil {
		return nil, toStatus(err)
	}
	resp := res.Resp.(*pb.LeaseRevokeResponse)
	s.fill(resp.Header)
	return resp, nil
}

// errNextLeader ends a stream of renewals. It must not be etcd's "server stopped". etcd's
// client recognizes that text as one of etcd's own errors, ignores the code, and fails a single
// renewal that it would otherwise have repeated.
var errNextLeader = status.Error(codes.Unavailable, "dynast: this process stops serving; try again at the next leader")

// LeaseKeepAlive answers each request of a stream with the lease's time to live from now on, or
// 0 if the lease does not exist. It ends with an error only if the answer is not known, and
// that error makes clients try again.
func (s *leaseServer) LeaseKeepAlive(stream grpc.BidiStreamingServer[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse]) error {
	ended := make(chan error, 1)
	heard, forget := s.firsts.expect()
	defer forget()
	go func() { ended <- s.keepAlive(stream, forget) }() // ends with the stream at the latest
	select {
	case err := <-ended:
		return err
	case <-stream.Context().Done():
		return stream.Context().Err()
	case <-s.stopping:
	}
	// To etcd's client a stream that ends before its first request was answered is a failure. A
	// stream that ends later is not.
	select {
	case err := <-ended:
		return err
	case <-stream.Context().Done():
		return stream.Context().Err()
	case <-heard:
	}
	return errNextLeader
}

func (s *leaseServer) keepAlive(stream grpc.BidiStreamingServer[pb.LeaseKeepAliveRequest, pb.LeaseKeepAliveResponse], answered func()) error {
	ctx := stream.Context()
	for {
		r, err := stream.Recv()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		// The header is made first, because its revision must be one at which the lease was
		// alive.
		resp := &pb.LeaseKeepAliveResponse{ID: r.ID, Header: &pb.ResponseHeader{}}
		s.fill(resp.Header)
		resp.TTL, err = s.renew(ctx, lease.LeaseID(r.ID))
		if err != nil {
			return toStatus(err)
		}
		if err := stream.Send(resp); err != nil {
			return err
		}
		answered()
	}
}

// renew returns the new time to live in seconds, or 0 if there is no such lease.
func (s *leaseServer) renew(ctx context.Context, id lease.LeaseID) (int64, error) {
	err := s.checkKeys(ctx, s.store.Auth().IsPutPermitted, s.store.Lessor().Lookup(id))
	if err != nil {
		return 0, err
	}
	ttl, err := s.keeper.renew(ctx, id)
	switch {
	case errors.Is(err, lease.ErrLeaseNotFound):
		return 0, nil
	case errors.Is(err, lease.ErrNotPrimary):
		return 0, rpctypes.ErrGRPCStopped // the store is closed because the process is ending
	}
	return ttl, err
}

func (s *leaseServer) LeaseTimeToLive(ctx context.Context, r *pb.LeaseTimeToLiveRequest) (*pb.LeaseTimeToLiveResponse, error) {
	if err := s.requireCaller(ctx); err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.LeaseTimeToLiveResponse{Header: &pb.ResponseHeader{}, ID: r.ID, TTL: -1}
	l := s.store.Lessor().Lookup(lease.LeaseID(r.ID))
	if r.Keys {
		if err := s.checkKeys(ctx, s.mayRead, l); err != nil {
			return nil, toStatus(err)
		}
	}
	if l != nil {
		resp.TTL, resp.GrantedTTL = int64(s.store.Lessor().Remaining(l).Seconds()), l.TTL()
		if r.Keys {
			resp.Keys = sortedKeys(l)
		}
	}
	s.fill(resp.Header)
	return resp, nil
}

// sortedKeys returns the keys of a lease, sorted. etcd returns them in any order.
func sortedKeys(l *lease.Lease) [][]byte {
	keys := l.Keys()
	slices.Sort(keys)
	out := make([][]byte, len(keys))
	for i, k := range keys {
		out[i] = []byte(k)
	}
	return out
}

func (s *leaseServer) LeaseLeases(ctx context.Context, _ *pb.LeaseLeasesRequest) (*pb.LeaseLeasesResponse, error) {
	leases := s.store.Lessor().Leases()
	if err := s.checkKeys(ctx, s.mayRead, leases...); err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.LeaseLeasesResponse{Header: &pb.ResponseHeader{}, Leases: make([]*pb.LeaseStatus, len(leases))}
	for i, l := range leases {
		resp.Leases[i] = &pb.LeaseStatus{ID: int64(l.ID)}
	}
	s.fill(resp.Header)
	return resp, nil
}

func (s *leaseServer) mayRead(who *auth.AuthInfo, key []byte) error {
	return s.store.Auth().IsRangePermitted(who, key, nil)
}

// checkKeys lets root pass, everybody if authentication is disabled, and whoever is permitted
// all the keys of some leases. A nil lease has no keys.
func (s *leaseServer) checkKeys(ctx context.Context, permitted func(*auth.AuthInfo, []byte) error, leases ...*lease.Lease) error {
	users := s.store.Auth()
	revision := users.Revision()
	if !users.IsAuthEnabled() {
		return nil
	}
	who, err := s.caller(ctx)
	if err == nil && who == nil {
		err = auth.ErrUserEmpty
	}
	if err != nil {
		return err
	}
	if users.IsAdminPermitted(who) == nil {
		return nil
	}
	for _, l := range leases {
		if l == nil {
			continue
		}
		for _, key := range l.Keys() {
			if err := permitted(who, []byte(key)); err != nil {
				return err
			}
		}
	}
	if revision != users.Revision() {
		return auth.ErrAuthOldRevision
	}
	return nil
}
