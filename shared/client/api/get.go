package api

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// rangeOf answers a range from the store.
//
// etcd reads from a copy of the writes since the last commit, so that a long read does not
// hold up writers. The first read after each write makes the copy. Commits are rarer here
// than in etcd, because a write's durability does not depend on them. So the copy is
// larger: up to half a megabyte for each read that follows a write. A read of one key
// takes less time than the copy, so it reads the original under the lock.
func (a *API) rangeOf(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	if len(r.RangeEnd) == 0 {
		return a.get(ctx, r)
	}
	resp, _, err := txn.Range(ctx, a.store.Logger(), a.store.KV(), r, true)
	return resp, err
}

// get is a range of one key. It needs no sorting, and no limit has an effect.
func (a *API) get(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	tx := a.store.KV().Read(mvcc.SharedBufReadTxMode, traceutil.TODO())
	found, err := tx.Range(ctx, r.Key, nil, mvcc.RangeOptions{
		Rev: r.Revision, CountOnly: r.CountOnly, WithTotalCount: true,
		FastKeysOnly: r.KeysOnly && r.SortTarget != pb.RangeRequest_VALUE,
	})
	tx.End()
	if err != nil {
		return nil, err
	}
	resp := &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: found.Rev}, Count: int64(found.Count)}
	for _, kv := range found.KVs {
		if !inRevisions(r, kv) {
			continue
		}
		if r.KeysOnly {
			kv.Value = nil
		}
		resp.Kvs = append(resp.Kvs, kv)
	}
	return resp, nil
}

// inRevisions applies the bounds of a range on revisions; 0 means no bound.
func inRevisions(r *pb.RangeRequest, kv *mvccpb.KeyValue) bool {
	within := func(rev, low, high int64) bool {
		return (low == 0 || rev >= low) && (high == 0 || rev <= high)
	}
	return within(kv.ModRevision, r.MinModRevision, r.MaxModRevision) &&
		within(kv.CreateRevision, r.MinCreateRevision, r.MaxCreateRevision)
}
