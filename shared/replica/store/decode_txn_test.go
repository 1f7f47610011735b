package store

import (
	"bytes"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// checkDecodeTxn compares with the protobuf package. Refusing an entry only makes it slower.
func checkDecodeTxn(t *testing.T, d *txnDecoder, data []byte) (ok bool) {
	t.Helper()
	got := d.decode(data)
	if got == nil {
		return false
	}
	var want pb.InternalRaftRequest
	if err := proto.Unmarshal(data, &want); err != nil {
		t.Fatalf("%x is read, and is malformed: %v", data, err)
	}
	want.Header = nil // it has only an id, which nobody needs
	if !proto.Equal(got, &want) {
		t.Fatalf("%x is read as %v, and is %v", data, got, &want)
	}
	return true
}

func TestDecodeTxn(t *testing.T) {
	g := &txnGenerator{rand.New(rand.NewPCG(1, 1))}
	d := newTxnDecoder() // one, so that nothing may be left from the entry before
	read := 0
	const entries = 2000
	for i := range entries {
		b := data(t, g.request(i))
		if checkDecodeTxn(t, d, b) {
			read++
		}
		for range 5 {
			n := g.IntN(len(b))
			checkDecodeTxn(t, d, b[:n])
			b[n] ^= byte(1 << g.IntN(8))
			checkDecodeTxn(t, d, b)
		}
	}
	if read < entries/3 {
		t.Errorf("%d of %d entries were read: too few", read, entries)
	}
}

func TestDecodeTxnRefuses(t *testing.T) {
	op := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k")}}}
	txn := &pb.TxnRequest{Success: []*pb.RequestOp{op}}
	keep := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k"), PrevKv: true}}}
	for name, c := range map[string]struct {
		r     *pb.InternalRaftRequest
		plain bool
	}{
		"a put":                {&pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: 3}, Txn: txn}, true},
		"a user":               {&pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: 3, Username: "root"}, Txn: txn}, false},
		"an old id":            {&pb.InternalRaftRequest{ID: 3, Txn: txn}, false},
		"also a put":           {&pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("k")}, Txn: txn}, false},
		"the previous value":   {&pb.InternalRaftRequest{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{keep}}}, false},
		"an inner transaction": {&pb.InternalRaftRequest{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: txn}}}}}, false},
		"an empty operation":   {&pb.InternalRaftRequest{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{{}}}}, false},
		"no transaction":       {&pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: 3}}, false},
	} {
		b, err := proto.Marshal(c.r)
		if err != nil {
			t.Fatal(err)
		}
		if got := checkDecodeTxn(t, newTxnDecoder(), b); got != c.plain {
			t.Errorf("%s: read %v, want %v", name, got, c.plain)
		}
	}
}

// The index keeps the key of a put, and the next entry reuses the rest.
func TestDecodeTxnCopiesTheKeys(t *testing.T) {
	b := data(t, &pb.InternalRaftRequest{Txn: &pb.TxnRequest{
		Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("key"), Value: []byte("value")}}}}}})
	d := newTxnDecoder()
	p := d.decode(b).Txn.Success[0].GetRequestPut()
	clear(b)
	if string(p.Key) != "key" || !bytes.Equal(p.Value, make([]byte, 5)) {
		t.Errorf("key %q, value %q", p.Key, p.Value)
	}
}

func FuzzDecodeTxn(f *testing.F) {
	g := &txnGenerator{rand.New(rand.NewPCG(2, 2))}
	for i := range 50 {
		b, err := proto.Marshal(g.request(i))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	d := newTxnDecoder()
	f.Fuzz(func(t *testing.T, b []byte) { checkDecodeTxn(t, d, b) })
}
