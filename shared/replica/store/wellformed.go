package store

import (
	"errors"
	"fmt"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// maxTxnDepth bounds the nesting of transactions. For clients, the limit on the number of
// operations bounds it earlier.
const maxTxnDepth = 1000

// wellFormed returns an error for a request on which etcd's applier would panic. The API lets
// no such request through, so the entry is damaged or another program wrote it. It would break
// every member that applies it, and no member may skip it.
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
		return fmt.Errorf("a range with the invalid sort target %d or sort order %d", r.GetSortTarget(), r.GetSortOrder())
	}
	return nil
}

func wellFormedTxn(r *pb.TxnRequest, depth int) error {
	if r == nil || depth > maxTxnDepth {
		return errors.New("a transaction that is empty or nested too deeply")
	}
	for _, c := range r.Compare {
		if c == nil {
			return errors.New("a transaction with an empty comparison")
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
		return errors.New("a transaction with an empty operation")
	}
	return nil
}
