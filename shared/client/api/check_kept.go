package api

import (
	"bytes"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
)

// CheckKept refuses the one kind of transaction that etcd accepts although it crashes on it.
// When etcd looks for puts of deleted keys, it misses a deletion "from this key on" (range_end
// is one zero byte). A later put that keeps its key's old value or lease then finds no key, and
// the applier panics, in one member after the other. Everything else that etcd accepts is
// accepted.
func CheckKept(r *pb.TxnRequest) error {
	for _, branch := range [][]*pb.RequestOp{r.Success, r.Failure} {
		if _, err := keptAfter(branch, nil); err != nil {
			return err
		}
	}
	return nil
}

// keptAfter walks through operations in the order of their execution. from is the lowest key
// such that everything from it on may be deleted at that point; nil means none. keptAfter
// returns the same for the point after the operations.
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

// lower returns the lower of two keys; nil means no key.
func lower(a, b []byte) []byte {
	if a == nil || b != nil && bytes.Compare(b, a) < 0 {
		return b
	}
	return a
}
