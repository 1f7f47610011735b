package api

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

// propose replicates a request on behalf of the caller, and returns its result or its error.
// There may be a result together with an error of the request itself.
func (a *API) propose(ctx context.Context, r *pb.InternalRaftRequest) (*apply.Result, error) {
	r.Header = &pb.RequestHeader{ID: a.ids.Next()}
	if r.Authenticate == nil {
		who, err := a.caller(ctx)
		if err != nil {
			return nil, err
		}
		if who != nil {
			// Every member checks permissions in the same way when it applies the entry.
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

// caller identifies the caller by its token, or by the client's certificate. It returns nil for
// an anonymous caller.
func (a *API) caller(ctx context.Context) (*auth.AuthInfo, error) {
	if !a.store.Auth().IsAuthEnabled() {
		return nil, nil
	}
	who, err := a.store.Auth().AuthInfoFromCtx(ctx)
	if who != nil || err != nil {
		return who, err
	}
	// p.AuthInfo has a certificate chain only if the client's certificate was verified. The
	// check for TLS comes first because etcd's function supports only TLS connections.
	if p, ok := peer.FromContext(ctx); ok {
		if _, ok := p.AuthInfo.(credentials.TLSInfo); ok {
			return a.store.Auth().AuthInfoFromTLS(ctx), nil
		}
	}
	return nil, nil
}

// read runs get if the caller is permitted, and fails if the permissions changed
// meanwhile.
//
// Linearizable and serializable reads are the same here, and no other process has to be
// asked. A read must see every write that was acknowledged before the read began. Either
// this process or an earlier leader acknowledged that write.
//
//   - This process acknowledges a write after it has applied it to the store that is read
//     here.
//   - An earlier leader is dead. A leader holds the cluster's lock until the kernel takes
//     it away together with its last thread, and this process got the lock after that. It
//     then applied every write in the earlier leader's log before it began to serve.
//   - There is no later leader while this code runs, for the same reason.
//
// etcd asks its quorum "am I still the leader?". Here the kernel answers by letting this
// process run.
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
