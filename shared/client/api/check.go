package api

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/pkg/v3/adt"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// These checks look at the request alone, before the store is asked. Their order is etcd's,
// because it decides which error a request gets that is wrong in two ways.

func checkRange(r *pb.RangeRequest) error {
	if len(r.Key) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	_, order := pb.RangeRequest_SortOrder_name[int32(r.SortOrder)]
	_, target := pb.RangeRequest_SortTarget_name[int32(r.SortTarget)]
	if !order || !target {
		return rpctypes.ErrGRPCInvalidSortOption
	}
	return nil
}

func checkRangeStream(r *pb.RangeRequest) error {
	if err := checkRange(r); err != nil {
		return err
	}
	if !txn.IsDefaultOrdering(r.SortTarget, r.SortOrder) {
		return status.Error(codes.Unimplemented, "RangeStream does not support custom sort orders")
	}
	if txn.HasRevisionFilters(r) {
		return status.Error(codes.Unimplemented, "RangeStream does not support revision filters")
	}
	return nil
}

func checkPut(r *pb.PutRequest) error {
	switch {
	case len(r.Key) == 0:
		return rpctypes.ErrGRPCEmptyKey
	case r.IgnoreValue && len(r.Value) != 0:
		return rpctypes.ErrGRPCValueProvided
	case r.IgnoreLease && r.Lease != 0:
		return rpctypes.ErrGRPCLeaseProvided
	}
	return nil
}

func checkDelete(r *pb.DeleteRangeRequest) error {
	if len(r.Key) == 0 {
		return rpctypes.ErrGRPCEmptyKey
	}
	return nil
}

func checkTxn(r *pb.TxnRequest, maxOps int) error {
	if err := checkTxnOps(r, maxOps); err != nil {
		return err
	}
	// This comes after checkTxnOps, which bounds the number of operations.
	for _, branch := range [][]*pb.RequestOp{r.Success, r.Failure} {
		if !mayConflict(branch) {
			continue
		}
		if _, err := writesOf(branch); err != nil {
			return err
		}
	}
	return CheckKept(r)
}

// mayConflict reports whether a list of operations has more than one write. Most transactions
// have one, and need not be searched for two that concern the same key.
func mayConflict(ops []*pb.RequestOp) bool {
	writes := 0
	for _, op := range ops {
		switch op.Request.(type) {
		case *pb.RequestOp_RequestTxn:
			return true
		case *pb.RequestOp_RequestPut, *pb.RequestOp_RequestDeleteRange:
			writes++
		}
	}
	return writes > 1
}

// checkTxnOps checks each operation and the number of operations. An inner transaction may have
// as many as the outer one has left.
func checkTxnOps(r *pb.TxnRequest, maxOps int) error {
	ops := max(len(r.Compare), len(r.Success), len(r.Failure))
	if ops > maxOps {
		return rpctypes.ErrGRPCTooManyOps
	}
	for _, c := range r.Compare {
		if len(c.Key) == 0 {
			return rpctypes.ErrGRPCEmptyKey
		}
	}
	for _, branch := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range branch {
			if err := checkOp(op, maxOps-ops); err != nil {
				return err
			}
		}
	}
	return nil
}

func checkOp(op *pb.RequestOp, maxOps int) error {
	switch op := op.Request.(type) {
	case *pb.RequestOp_RequestRange:
		return checkRange(op.RequestRange)
	case *pb.RequestOp_RequestPut:
		return checkPut(op.RequestPut)
	case *pb.RequestOp_RequestDeleteRange:
		return checkDelete(op.RequestDeleteRange)
	case *pb.RequestOp_RequestTxn:
		return checkTxnOps(op.RequestTxn, maxOps)
	}
	return rpctypes.ErrGRPCKeyNotFound // an empty operation
}

// writes holds the keys that a list of operations may put or delete, whichever branches its
// inner transactions take.
type writes struct {
	puts map[string]struct{}
	dels adt.IntervalTree
}

// put adds a key. A second put of the same key, and a put of a deleted key, have no defined
// result and are refused.
func (w *writes) put(key string) error {
	if _, twice := w.puts[key]; twice || w.dels.Intersects(adt.NewStringAffinePoint(key)) {
		return rpctypes.ErrGRPCDuplicateKey
	}
	w.puts[key] = struct{}{}
	return nil
}

// writesOf collects the writes of a list of operations. The order is etcd's, and it matters
// where etcd is not strict: first the deletions of the list, then its inner transactions one
// after the other (their puts are compared with all deletions so far), then its puts.
func writesOf(ops []*pb.RequestOp) (*writes, error) {
	w := &writes{puts: map[string]struct{}{}, dels: adt.NewIntervalTree()}
	for _, op := range ops {
		if d := op.GetRequestDeleteRange(); d != nil {
			w.dels.Insert(interval(d), struct{}{})
		}
	}
	for _, op := range ops {
		if t := op.GetRequestTxn(); t != nil {
			if err := w.merge(t); err != nil {
				return nil, err
			}
		}
	}
	for _, op := range ops {
		if p := op.GetRequestPut(); p != nil {
			if err := w.put(string(p.Key)); err != nil {
				return nil, err
			}
		}
	}
	return w, nil
}

func interval(d *pb.DeleteRangeRequest) adt.Interval {
	if len(d.RangeEnd) == 0 {
		return adt.NewStringAffinePoint(string(d.Key))
	}
	return adt.NewStringAffineInterval(string(d.Key), string(d.RangeEnd))
}

// merge adds an inner transaction. Its two branches may put the same key, because only one of
// them is executed.
func (w *writes) merge(t *pb.TxnRequest) error {
	then, err := writesOf(t.Success)
	if err != nil {
		return err
	}
	otherwise, err := writesOf(t.Failure)
	if err != nil {
		return err
	}
	for key := range then.puts {
		if err := w.put(key); err != nil {
			return err
		}
	}
	for key := range otherwise.puts {
		if _, both := then.puts[key]; both {
			continue // already checked against the same deletions
		}
		if err := w.put(key); err != nil {
			return err
		}
	}
	everything := adt.NewStringAffineInterval("\x00", "")
	w.dels.Union(then.dels, everything)
	w.dels.Union(otherwise.dels, everything)
	return nil
}
