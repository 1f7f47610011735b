package clientapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/auth"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/protobuf/proto"
)

// propose has a request replicated on behalf of the caller, and returns its
// result or its error. The result may be there together with an error that the
// request itself made.
func (a *API) propose(ctx context.Context, r *pb.InternalRaftRequest) (*apply.Result, error) {
	r.Header = &pb.RequestHeader{ID: a.ids.Next()}
	if r.Authenticate == nil {
		who, err := a.caller(ctx)
		if err != nil {
			return nil, err
		}
		if who != nil {
			// Permissions are checked when the entry is applied, by every
			// member alike.
			r.Header.Username, r.Header.AuthRevision = who.Username, who.Revision
		}
	}
	if proto.Size(r) > a.limits.MaxRequestBytes {
		return nil, etcderrors.ErrRequestTooLarge
	}
	res, err := a.proposer.Propose(ctx, r)
	if err != nil {
		return nil, err
	}
	return res, res.Err
}

// caller says who asks, by the token or else by the client's certificate. nil:
// nobody in particular.
func (a *API) caller(ctx context.Context) (*auth.AuthInfo, error) {
	who, err := a.store.Auth().AuthInfoFromCtx(ctx)
	if who != nil || err != nil || !a.store.Auth().IsAuthEnabled() {
		return who, err
	}
	// A chain is there only if the client's certificate was verified. (etcd's
	// function knows no connections but TLS's.)
	if p, ok := peer.FromContext(ctx); ok {
		if _, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			return a.store.Auth().AuthInfoFromTLS(ctx), nil
		}
	}
	return nil, nil
}

// read runs get if the caller may, and fails if its permissions changed
// meanwhile.
//
// Linearizable and serializable reads are the same thing here, and need no
// word from anyone. A read must see every write that was acknowledged before it
// began. All of those were acknowledged by this process or by an earlier
// leader. This process acknowledges a write after it has applied it to the very
// store that is read here. An earlier leader is dead: leaders hold the cluster's
// lock until the kernel takes it from them with their last thread, and this
// process got the lock after that; then it applied every write of the earlier
// leader's log before it began to serve. And there is no later leader as long as
// this code runs, for the same reason. What etcd asks its quorum for, "am I
// still the leader?", the kernel answers by letting us execute.
func (a *API) read(ctx context.Context, permitted func(*auth.AuthInfo) error, get func() error) error {
	who, err := a.caller(ctx)
	if err != nil {
		return err
	}
	if who == nil {
		who = &auth.AuthInfo{}
	}
	if err := permitted(who); err != nil {
		return err
	}
	err = get()
	if who.Revision != 0 && who.Revision != a.store.Auth().Revision() {
		return auth.ErrAuthOldRevision
	}
	return err
}
