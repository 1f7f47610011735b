package engine

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/lease"

	"github.com/dynast-io/dynast/shared/member/hosts"
)

// handleOwnership adds what only the leader of this host may ask.
func (e *Engine) handleOwnership(mux *http.ServeMux) {
	mux.HandleFunc(hosts.PathHold, answer(e.hold))
	mux.HandleFunc(hosts.PathRenew, answer(e.renew))
	mux.HandleFunc(hosts.PathRelease, answer(e.releaseOwnership))
}

// hold tries to get the ownership of a service: a key with a lease, which nobody else has.
func (e *Engine) hold(r *http.Request, q hosts.HoldRequest) (*hosts.HoldResponse, error) {
	if e.server.IsLearner() {
		return nil, errors.New("this host does not vote yet")
	}
	key := []byte(hosts.OwnerPrefix + q.Service)
	ctx := e.server.AuthStore().WithRoot(r.Context())
	// Most hosts wait for the one that owns it. Their own copy of the store is enough for that.
	for _, serializable := range []bool{true, false} {
		kv, err := e.ownerKey(ctx, key, serializable)
		if err != nil {
			return nil, err
		}
		if kv != nil {
			return e.taken(kv)
		}
	}
	granted, err := e.server.LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: int64(q.TTL / time.Second)})
	if err != nil {
		return nil, err
	}
	value, err := json.Marshal(hosts.Owner{Host: e.host.Name, Member: e.server.MemberID().String()})
	if err != nil {
		return nil, err
	}
	resp, err := e.server.Txn(ctx, &pb.TxnRequest{
		Compare: []*pb.Compare{{Key: key, Target: pb.Compare_CREATE, Result: pb.Compare_EQUAL, TargetUnion: &pb.Compare_CreateRevision{CreateRevision: 0}}},
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: key, Value: value, Lease: granted.ID}}}},
	})
	switch {
	case err != nil:
		return nil, errors.Join(err, e.revoke(ctx, granted.ID))
	case !resp.Succeeded: // another host was faster
		return &hosts.HoldResponse{}, e.revoke(ctx, granted.ID)
	}
	return &hosts.HoldResponse{Lease: granted.ID, Fence: resp.Header.Revision, Owner: e.host.Name}, nil
}

// ownerKey returns the key of an ownership, or nil.
func (e *Engine) ownerKey(ctx context.Context, key []byte, serializable bool) (*mvccpb.KeyValue, error) {
	resp, err := e.server.Range(ctx, &pb.RangeRequest{Key: key, Serializable: serializable})
	if err != nil || len(resp.Kvs) == 0 {
		return nil, err
	}
	return resp.Kvs[0], nil
}

// taken says who has the ownership.
func (e *Engine) taken(kv *mvccpb.KeyValue) (*hosts.HoldResponse, error) {
	var owner hosts.Owner
	if err := json.Unmarshal(kv.Value, &owner); err != nil || kv.Lease == 0 {
		return nil, fmt.Errorf("the key %q was written by somebody else, so nobody can own the service: delete it", kv.Key)
	}
	out := &hosts.HoldResponse{Owner: owner.Host}
	if owner.Member == e.server.MemberID().String() {
		out.Mine = kv.Lease
	}
	return out, nil
}

// renew renews an ownership.
//
// The read comes first and needs a majority. It confirms that the store's leader led after the request was
// sent, so every later leader counts the lease from a later moment. A renewal alone confirms nothing:
// etcd's leader renews leases by itself, also for some time after the others have chosen another one.
func (e *Engine) renew(r *http.Request, q hosts.RenewRequest) (*hosts.RenewResponse, error) {
	ctx := e.server.AuthStore().WithRoot(r.Context())
	kv, err := e.ownerKey(ctx, []byte(hosts.OwnerPrefix+q.Service), false)
	if err != nil {
		return nil, err
	}
	if kv == nil || kv.CreateRevision != q.Fence || kv.Lease != q.Lease {
		return &hosts.RenewResponse{}, nil
	}
	_, err = e.server.LeaseRenew(ctx, lease.LeaseID(q.Lease))
	if errors.Is(err, lease.ErrLeaseNotFound) {
		return &hosts.RenewResponse{}, nil
	}
	return &hosts.RenewResponse{Renewed: err == nil}, err
}

func (e *Engine) releaseOwnership(r *http.Request, q hosts.ReleaseRequest) (struct{}, error) {
	return struct{}{}, e.revoke(e.server.AuthStore().WithRoot(r.Context()), q.Lease)
}

// revoke ends a lease, and with it the key that is attached to it.
func (e *Engine) revoke(ctx context.Context, id int64) error {
	_, err := e.server.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: id})
	if errors.Is(err, lease.ErrLeaseNotFound) {
		return nil
	}
	return err
}
