package clientapi

import (
	"bytes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// checkKept refuses the one transaction that etcd takes and dies of. A
// deletion "from this key on" (range_end is one zero byte) is not seen when
// etcd looks for puts of deleted keys. A put after it that keeps its key's old
// value or lease finds no key, and the applier panics, in one member after the
// other. Everything else that etcd takes is taken.
func checkKept(r *pb.TxnRequest) error {
	for _, branch := range [][]*pb.RequestOp{r.Success, r.Failure} {
		if _, err := keptAfter(branch, nil); err != nil {
			return err
		}
	}
	return nil
}

// keptAfter walks operations in the order of their execution. from is the
// lowest key from which on everything may be deleted by then, nil if none; it
// returns the same for after the operations.
func keptAfter(ops []*pb.RequestOp, from []byte) ([]byte, error) {
	for _, op := range ops {
		switch op := op.Request.(type) {
		case *pb.RequestOp_RequestDeleteRange:
			if d := op.RequestDeleteRange; bytes.Equal(d.RangeEnd, []byte{0}) {
				from = lower(from, d.Key)
			}
		case *pb.RequestOp_RequestPut:
			p := op.RequestPut
			if (p.IgnoreValue || p.IgnoreLease) && from != nil && bytes.Compare(p.Key, from) >= 0 {
				return nil, rpctypes.ErrGRPCDuplicateKey
			}
		case *pb.RequestOp_RequestTxn:
			then, err := keptAfter(op.RequestTxn.Success, from)
			if err != nil {
				return nil, err
			}
			otherwise, err := keptAfter(op.RequestTxn.Failure, from)
			if err != nil {
				return nil, err
			}
			from = lower(then, otherwise)
		}
	}
	return from, nil
}

// lower returns the lower of two keys; nil is none.
func lower(a, b []byte) []byte {
	if a == nil || b != nil && bytes.Compare(b, a) < 0 {
		return b
	}
	return a
}
