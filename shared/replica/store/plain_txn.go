package store

import (
	"bytes"
	"cmp"
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// plainTxn reports whether a transaction can fail in no way and needs nothing but the key-value
// store and its leases. It has no inner transactions and at least one write. All other
// transactions go through etcd's applier.
func (s *Store) plainTxn(r *pb.InternalRaftRequest) bool {
	if r.Txn == nil || r.Range != nil || r.Put != nil || r.DeleteRange != nil || !s.unrestricted() {
		return false
	}
	writes, ok := s.plainOps(r.Txn.Success)
	if !ok {
		return false
	}
	more, ok := s.plainOps(r.Txn.Failure)
	return ok && writes+more > 0
}

// plainOps counts the writes of a branch. ok is false if an operation is not plain.
func (s *Store) plainOps(ops []*pb.RequestOp) (writes int, ok bool) {
	for _, op := range ops {
		switch op := op.GetRequest().(type) {
		case *pb.RequestOp_RequestRange:
			if !s.plainRange(op.RequestRange) {
				return 0, false
			}
		case *pb.RequestOp_RequestPut:
			writes++
			if !s.plainPut(op.RequestPut) {
				return 0, false
			}
		case *pb.RequestOp_RequestDeleteRange:
			writes++
			if op.RequestDeleteRange.PrevKv {
				return 0, false
			}
		default:
			return 0, false
		}
	}
	return writes, true
}

// plainRange reports whether a range reads all its keys as they are now. A follower does not
// execute ranges, so there only the revision matters, which may be out of reach.
func (s *Store) plainRange(r *pb.RangeRequest) bool {
	if !s.leading.Load() {
		return r.Revision == 0
	}
	return r.Revision == 0 && r.Limit == 0 && r.SortOrder == pb.RangeRequest_NONE && r.SortTarget == pb.RangeRequest_KEY &&
		!r.KeysOnly && !r.CountOnly && !txn.HasRevisionFilters(r)
}

// txnPlain does what etcd's applier does with a plain transaction. In a follower it returns no
// result, because nobody waits for one. What it saves is the trace of each operation, and
// reading values from the database that a comparison does not need.
func (s *Store) txnPlain(t *pb.TxnRequest) (res *apply.Result) {
	began := time.Now()
	succeeded := s.compareAll(t.Compare)
	ops := t.Success
	if !succeeded {
		ops = t.Failure
	}
	if writes, _ := s.plainOps(ops); writes == 0 {
		res = s.readPlain(ops, succeeded)
	} else {
		res = s.writePlain(ops, succeeded)
	}
	txn.ApplySecObserve("v3", "Txn", true, time.Since(began))
	return res
}

// writePlain executes a branch with a write. After a panic the transaction must not end, because
// a commit could then write a part of it.
func (s *Store) writePlain(ops []*pb.RequestOp, succeeded bool) (res *apply.Result) {
	tx := s.kv.Write(untraced)
	if s.leading.Load() {
		res = executeAll(tx, ops, succeeded)
	} else {
		for _, op := range ops {
			executeWrite(tx, op)
		}
	}
	tx.End()
	return res
}

// readPlain executes a branch without a write. It needs no write transaction, at whose end etcd's
// backend would sort all changes that are not committed, because there is no new one. The
// entry counts as a change, so that the next commit includes its index.
func (s *Store) readPlain(ops []*pb.RequestOp, succeeded bool) *apply.Result {
	s.counting.Lock()
	s.countEntry()
	s.counting.Unlock()
	if !s.leading.Load() {
		return nil
	}
	tx := mvcc.NewReadOnlyTxnWrite(s.kv.Read(mvcc.SharedBufReadTxMode, untraced))
	defer tx.End()
	return executeAll(tx, ops, succeeded)
}

// executeAll executes operations for a client.
func executeAll(tx mvcc.TxnWrite, ops []*pb.RequestOp, succeeded bool) *apply.Result {
	resp := &pb.TxnResponse{Header: &pb.ResponseHeader{}, Succeeded: succeeded, Responses: make([]*pb.ResponseOp, len(ops))}
	for i, op := range ops {
		resp.Responses[i] = execute(tx, op)
	}
	resp.Header.Revision = revisionAfter(tx)
	return &apply.Result{Resp: resp}
}

func revisionAfter(tx mvcc.TxnWrite) int64 {
	if len(tx.Changes()) > 0 {
		return tx.Rev() + 1
	}
	return tx.Rev()
}

// execute executes one operation for a client.
func execute(tx mvcc.TxnWrite, op *pb.RequestOp) *pb.ResponseOp {
	if r := op.GetRequestRange(); r != nil {
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseRange{ResponseRange: rangeAll(tx, r)}}
	}
	deleted, revision := executeWrite(tx, op)
	header := &pb.ResponseHeader{Revision: revision}
	if op.GetRequestPut() != nil {
		return &pb.ResponseOp{Response: &pb.ResponseOp_ResponsePut{ResponsePut: &pb.PutResponse{Header: header}}}
	}
	return &pb.ResponseOp{Response: &pb.ResponseOp_ResponseDeleteRange{
		ResponseDeleteRange: &pb.DeleteRangeResponse{Header: header, Deleted: deleted}}}
}

// executeWrite executes an operation unless it is a range.
func executeWrite(tx mvcc.TxnWrite, op *pb.RequestOp) (deleted, revision int64) {
	switch op := op.Request.(type) {
	case *pb.RequestOp_RequestPut:
		p := op.RequestPut
		return 0, tx.Put(p.Key, p.Value, lease.LeaseID(p.Lease))
	case *pb.RequestOp_RequestDeleteRange:
		return tx.DeleteRange(op.RequestDeleteRange.Key, endOf(op.RequestDeleteRange.RangeEnd))
	}
	return 0, 0
}

// rangeAll executes a plain range.
func rangeAll(tx mvcc.ReadView, r *pb.RangeRequest) *pb.RangeResponse {
	got, err := tx.Range(context.Background(), r.Key, endOf(r.RangeEnd), mvcc.RangeOptions{WithTotalCount: true})
	if err != nil {
		panic(err) // as in etcd, because a transaction that has begun cannot be undone
	}
	return &pb.RangeResponse{Header: &pb.ResponseHeader{Revision: got.Rev}, Count: int64(got.Count), Kvs: got.KVs}
}

// endOf translates the end of a range of all keys from a key on, as etcd does.
func endOf(rangeEnd []byte) []byte {
	if len(rangeEnd) == 1 && rangeEnd[0] == 0 {
		return []byte{}
	}
	return rangeEnd
}

// compareAll reports whether all comparisons hold.
func (s *Store) compareAll(cs []*pb.Compare) bool {
	if len(cs) == 0 {
		return true
	}
	tx := s.kv.Read(mvcc.SharedBufReadTxMode, untraced)
	defer tx.End()
	for _, c := range cs {
		if !compareKeys(tx, c) {
			return false
		}
	}
	return true
}

// compareKeys reports whether a comparison holds for all its keys. A key that does not exist has
// zeros for everything but its value, with which nothing can be compared.
func compareKeys(tx mvcc.ReadView, c *pb.Compare) bool {
	// The index knows everything but the value and the lease.
	indexed := c.Target != pb.Compare_VALUE && c.Target != pb.Compare_LEASE
	got, err := tx.Range(context.Background(), c.Key, endOf(c.RangeEnd), mvcc.RangeOptions{FastKeysOnly: indexed})
	if err != nil {
		return false
	}
	if len(got.KVs) == 0 {
		return c.Target != pb.Compare_VALUE && compareKey(c, &mvccpb.KeyValue{})
	}
	for _, kv := range got.KVs {
		if !compareKey(c, kv) {
			return false
		}
	}
	return true
}

func compareKey(c *pb.Compare, kv *mvccpb.KeyValue) bool {
	order := 0
	switch c.Target {
	case pb.Compare_VALUE:
		order = bytes.Compare(kv.Value, c.GetValue())
	case pb.Compare_CREATE:
		order = cmp.Compare(kv.CreateRevision, c.GetCreateRevision())
	case pb.Compare_MOD:
		order = cmp.Compare(kv.ModRevision, c.GetModRevision())
	case pb.Compare_VERSION:
		order = cmp.Compare(kv.Version, c.GetVersion())
	case pb.Compare_LEASE:
		order = cmp.Compare(kv.Lease, c.GetLease())
	}
	switch c.Result {
	case pb.Compare_EQUAL:
		return order == 0
	case pb.Compare_NOT_EQUAL:
		return order != 0
	case pb.Compare_GREATER:
		return order > 0
	case pb.Compare_LESS:
		return order < 0
	}
	return true
}
