package api

import (
	"os"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/shared/rules/entry"
)

// FuzzAcceptedRequests: a request that passes the checks is in the log of every member for
// good. None may break a member that applies it.
func FuzzAcceptedRequests(f *testing.F) {
	if os.Getenv("ETCD_VERIFY") != "none" {
		f.Cleanup(func() { os.Setenv("ETCD_VERIFY", "all") })
		os.Setenv("ETCD_VERIFY", "none")
	}
	k := []byte("k")
	nested := &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("z"), RangeEnd: []byte("a")}}}}}}}}}
	for i, m := range []proto.Message{
		&pb.TxnRequest{}, nested,
		&pb.TxnRequest{Compare: []*pb.Compare{{Key: k, Result: 9, Target: 7}}, Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: k, Lease: 5}}}}},
		&pb.TxnRequest{Compare: []*pb.Compare{{Key: k, Target: pb.Compare_VALUE}}, Failure: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: k, Revision: 1 << 50}}}}},
		&pb.TxnRequest{Success: []*pb.RequestOp{{}}},
		&pb.PutRequest{Key: k, IgnoreValue: true}, &pb.PutRequest{}, &pb.PutRequest{Key: k, Lease: -1, PrevKv: true},
		&pb.DeleteRangeRequest{Key: []byte("z"), RangeEnd: []byte{0}, PrevKv: true},
	} {
		b, err := proto.Marshal(m)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(uint8(i), b)
		f.Add(uint8(0), b)
	}
	f.Fuzz(func(t *testing.T, kind uint8, b []byte) {
		r := accepted(kind, b)
		if r == nil {
			return
		}
		r.Header = &pb.RequestHeader{ID: 1}
		d, err := proto.Marshal(r)
		if err != nil {
			t.Fatal(err)
		}
		s, err := store.Open(store.Config{Dir: t.TempDir(), CommitInterval: time.Hour})
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		s.Promote(time.Second)
		if _, err := s.Apply(entry.Entry{Index: 1, Epoch: 1, Data: d}); err != nil {
			t.Fatalf("accepted from a client, and the end of every member: %v (%v)", err, r)
		}
		if _, err := s.Apply(entry.Entry{Index: 2, Epoch: 1, Data: d}); err != nil {
			t.Fatalf("accepted from a client, and the end of every member when sent again: %v (%v)", err, r)
		}
	})
}

// accepted returns the entry that a client's request would become, or nil if it is refused.
func accepted(kind uint8, b []byte) *pb.InternalRaftRequest {
	var err error
	r := &pb.InternalRaftRequest{}
	switch kind % 3 {
	case 0:
		r.Txn = &pb.TxnRequest{}
		if err = proto.Unmarshal(b, r.Txn); err == nil {
			err = checkTxn(r.Txn, DefaultMaxTxnOps)
		}
	case 1:
		r.Put = &pb.PutRequest{}
		if err = proto.Unmarshal(b, r.Put); err == nil {
			err = checkPut(r.Put)
		}
	default:
		r.DeleteRange = &pb.DeleteRangeRequest{}
		if err = proto.Unmarshal(b, r.DeleteRange); err == nil {
			err = checkDelete(r.DeleteRange)
		}
	}
	if err != nil {
		return nil
	}
	return r
}
