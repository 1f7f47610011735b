package store

import (
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// maxTxnDepth bounds transactions within transactions. What a client may send
// is bounded by its number of operations.
const maxTxnDepth = 1000

// wellFormed reports what etcd's applier would panic on. The API lets nothing of
// it through, so that such an entry is another program's or damaged: it would
// break every member that applies it, and none may pass over it.
func wellFormed(r *pb.InternalRaftRequest) error {
	switch {
	case r.Range != nil:
		return wellFormedRange(r.Range)
	case r.Txn != nil:
		return wellFormedTxn(r.Txn, 0)
	}
	return nil
}

func wellFormedRange(r *pb.RangeRequest) error {
	_, order := pb.RangeRequest_SortOrder_name[int32(r.GetSortOrder())]
	_, target := pb.RangeRequest_SortTarget_name[int32(r.GetSortTarget())]
	if r == nil || !order || !target {
		return fmt.Errorf("a range sorted by %d in order %d", r.GetSortTarget(), r.GetSortOrder())
	}
	return nil
}

func wellFormedTxn(r *pb.TxnRequest, depth int) error {
	if r == nil || depth > maxTxnDepth {
		return errors.New("a transaction that is none, or within too many others")
	}
	for _, c := range r.Compare {
		if c == nil {
			return errors.New("a comparison that is none")
		}
	}
	for _, branch := range [][]*pb.RequestOp{r.Success, r.Failure} {
		for _, op := range branch {
			if err := wellFormedOp(op, depth); err != nil {
				return err
			}
		}
	}
	return nil
}

func wellFormedOp(op *pb.RequestOp, depth int) error {
	missing := false
	switch op := op.GetRequest().(type) {
	case *pb.RequestOp_RequestRange:
		return wellFormedRange(op.RequestRange)
	case *pb.RequestOp_RequestTxn:
		return wellFormedTxn(op.RequestTxn, depth+1)
	case *pb.RequestOp_RequestPut:
		missing = op.RequestPut == nil
	case *pb.RequestOp_RequestDeleteRange:
		missing = op.RequestDeleteRange == nil
	default:
		missing = true
	}
	if missing {
		return errors.New("an operation that is none")
	}
	return nil
}
