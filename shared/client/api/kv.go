package api

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/auth"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"google.golang.org/grpc"
)

// kvServer is the service KV.
type kvServer struct {
	*API
	// This is not the embeddable type that answers "unimplemented", so that the compiler
	// reports a method that etcd adds.
	pb.UnsafeKVServer
	foreground
}

func (s *kvServer) register(g *grpc.Server) { pb.RegisterKVServer(g, s) }

func (s *kvServer) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if err := checkRange(r); err != nil {
		return nil, err
	}
	var resp *pb.RangeResponse
	err := s.read(ctx, s.mayRange(r), func() (err error) {
		resp, err = s.rangeOf(ctx, r)
		return err
	})
	if err != nil {
		return nil, toStatus(err)
	}
	s.fill(resp.Header)
	return resp, nil
}

func (s *kvServer) mayRange(r *pb.RangeRequest) func(*auth.AuthInfo) error {
	return func(who *auth.AuthInfo) error {
		return s.store.Auth().IsRangePermitted(who, r.Key, r.RangeEnd)
	}
}

func (s *kvServer) Put(ctx context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	if err := s.checkQuota(ctx, r); err != nil {
		return nil, err
	}
	if err := checkPut(r); err != nil {
		return nil, err
	}
	res, err := s.propose(ctx, &pb.InternalRaftRequest{Put: r})
	if err != nil {
		return nil, toStatus(err)
	}
	resp := res.Resp.(*pb.PutResponse)
	s.fill(resp.Header)
	return resp, nil
}

func (s *kvServer) DeleteRange(ctx context.Context, r *pb.DeleteRangeRequest) (*pb.DeleteRangeResponse, error) {
	if err := checkDelete(r); err != nil {
		return nil, err
	}
	res, err := s.propose(ctx, &pb.InternalRaftRequest{DeleteRange: r})
	if err != nil {
		return nil, toStatus(err)
	}
	resp := res.Resp.(*pb.DeleteRangeResponse)
	s.fill(resp.Header)
	return resp, nil
}

func (s *kvServer) Txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if err := s.checkQuota(ctx, r); err != nil {
		return nil, err
	}
	if err := checkTxn(r, s.limits.MaxTxnOps); err != nil {
		return nil, err
	}
	resp, err := s.txn(ctx, r)
	if err != nil {
		return nil, toStatus(err)
	}
	s.fill(resp.Header)
	return resp, nil
}

// txn executes a transaction. A transaction that only reads does not go through the log.
func (s *kvServer) txn(ctx context.Context, r *pb.TxnRequest) (*pb.TxnResponse, error) {
	if !txn.IsTxnReadonly(r) {
		res, err := s.propose(ctx, &pb.InternalRaftRequest{Txn: r})
		if err != nil {
			return nil, err
		}
		return res.Resp.(*pb.TxnResponse), nil
	}
	permitted := func(who *auth.AuthInfo) error {
		return apply.CheckTxnAuth(s.store.Auth(), who, s.store.Lessor(), r)
	}
	var resp *pb.TxnResponse
	err := s.read(ctx, permitted, func() (err error) {
		resp, _, err = txn.Txn(ctx, s.store.Logger(), r, false, s.store.KV(), s.store.Lessor(), false)
		return err
	})
	return resp, err
}

func (s *kvServer) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	if err := s.requireAdmin(ctx); err != nil {
		return nil, toStatus(err)
	}
	res, err := s.propose(ctx, &pb.InternalRaftRequest{Compaction: r})
	if r.Physical && res != nil && res.Physc != nil {
		// This also applies if the revision was compacted before. Then the wait is for that
		// compaction.
		if err := s.waitCompacted(ctx, res.Physc); err != nil {
			return nil, toStatus(err)
		}
	}
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.CompactionResponse{Header: &pb.ResponseHeader{Revision: s.store.Revision()}}
	s.fill(resp.Header)
	return resp, nil
}

// waitCompacted waits until the old revisions are removed from the disk. Without the commit,
// they could be back after a crash until the compaction is resumed.
func (s *kvServer) waitCompacted(ctx context.Context, done <-chan struct{}) error {
	select {
	case <-done:
	case <-ctx.Done():
		return ctx.Err()
	}
	s.store.Commit()
	return nil
}

// requireAdmin lets root pass, and everybody if authentication is disabled.
func (a *API) requireAdmin(ctx context.Context) error {
	who, err := a.caller(ctx)
	if err != nil {
		return err
	}
	return a.store.Auth().IsAdminPermitted(who)
}
