package store

import (
	"bytes"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// checkDecode compares with the protobuf package. Refusing an entry only makes it slower.
func checkDecode(t *testing.T, d *requestDecoder, data []byte) (ok bool) {
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

// usual returns the i-th request of a random sequence of puts and transactions.
func usual(g *txnGenerator, i int) *pb.InternalRaftRequest {
	if i%2 == 0 {
		return randomRequest(g.Rand, uint64(1000+i))
	}
	return g.request(i)
}

func TestDecode(t *testing.T) {
	g := &txnGenerator{rand.New(rand.NewPCG(1, 1))}
	d := new(requestDecoder) // one, so that nothing may be left from the entry before
	read := 0
	const entries = 3000
	for i := range entries {
		b := data(t, usual(g, i))
		if checkDecode(t, d, b) {
			read++
		}
		for range 5 {
			n := g.IntN(len(b))
			checkDecode(t, d, b[:n])
			b[n] ^= byte(1 << g.IntN(8))
			checkDecode(t, d, b)
		}
	}
	if read < entries/3 {
		t.Errorf("%d of %d entries were read: too few", read, entries)
	}
}

func TestDecodeRefuses(t *testing.T) {
	kv := &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}
	onePut := func(p *pb.PutRequest) *pb.TxnRequest {
		return &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: p}}}}
	}
	header := &pb.RequestHeader{ID: 7}
	root := &pb.RequestHeader{ID: 7, Username: "root"}
	previous := &pb.PutRequest{Key: []byte("k"), PrevKv: true}
	txn := onePut(kv)
	for name, c := range map[string]struct {
		r     *pb.InternalRaftRequest
		usual bool
	}{
		"key and value":                {&pb.InternalRaftRequest{Header: header, Put: kv}, true},
		"no value":                     {&pb.InternalRaftRequest{Header: header, Put: &pb.PutRequest{Key: []byte("k")}}, true},
		"no header":                    {&pb.InternalRaftRequest{Put: kv}, true},
		"a lease":                      {&pb.InternalRaftRequest{Header: header, Put: &pb.PutRequest{Key: []byte("k"), Lease: 1}}, true},
		"a previous value":             {&pb.InternalRaftRequest{Header: header, Put: previous}, false},
		"a user":                       {&pb.InternalRaftRequest{Header: root, Put: kv}, false},
		"an old id":                    {&pb.InternalRaftRequest{ID: 3, Put: kv}, false},
		"a range, too":                 {&pb.InternalRaftRequest{Put: kv, Range: &pb.RangeRequest{Key: []byte("k")}}, false},
		"nothing":                      {&pb.InternalRaftRequest{Header: header}, false},
		"a transaction":                {&pb.InternalRaftRequest{Header: header, Txn: txn}, true},
		"a transaction of a user":      {&pb.InternalRaftRequest{Header: root, Txn: txn}, false},
		"a transaction with an old id": {&pb.InternalRaftRequest{ID: 3, Txn: txn}, false},
		"a put and a transaction":      {&pb.InternalRaftRequest{Put: kv, Txn: txn}, false},
		"a previous value in it":       {&pb.InternalRaftRequest{Txn: onePut(previous)}, false},
		"an inner transaction":         {&pb.InternalRaftRequest{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: txn}}}}}, false},
		"an empty operation":           {&pb.InternalRaftRequest{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{{}}}}, false},
		"an empty transaction":         {&pb.InternalRaftRequest{Header: header, Txn: &pb.TxnRequest{}}, false},
	} {
		b, err := proto.Marshal(c.r)
		if err != nil {
			t.Fatal(err)
		}
		if got := checkDecode(t, new(requestDecoder), b); got != c.usual {
			t.Errorf("%s: read %v, want %v", name, got, c.usual)
		}
		for n := range b {
			checkDecode(t, new(requestDecoder), b[:n])
		}
	}
}

// Protobuf merges a field that occurs twice, and the last of two operations counts.
func TestDecodeRefusesRepetition(t *testing.T) {
	one := data(t, &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}})
	two := data(t, &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("other")}})
	if d := new(requestDecoder); d.decode(append(one, two...)) != nil {
		t.Error("an entry with two puts was read")
	}
}

// The index keeps the key of a put. So the key must not keep the memory of a whole message alive,
// and the next entry must not change it.
func TestDecodeCopiesTheKeys(t *testing.T) {
	put := &pb.PutRequest{Key: []byte("key"), Value: []byte("value")}
	for _, r := range []*pb.InternalRaftRequest{{Put: put},
		{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: put}}}}}} {
		b := data(t, r)
		got := new(requestDecoder).decode(b)
		p := got.Put
		if r.Txn != nil {
			p = got.Txn.Success[0].GetRequestPut()
		}
		clear(b)
		if string(p.Key) != "key" || !bytes.Equal(p.Value, make([]byte, 5)) {
			t.Errorf("key %q, value %q", p.Key, p.Value)
		}
	}
}

// A follower decodes each entry, so the parts are reused. Only the key is copied.
func TestDecodeAllocatesLittle(t *testing.T) {
	b := data(t, &pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: 1}, Put: &pb.PutRequest{Key: []byte("key"), Value: []byte("value")}})
	d := new(requestDecoder)
	if n := testing.AllocsPerRun(100, func() { d.decode(b) }); n != 1 {
		t.Errorf("decoding a put takes %v allocations, want 1, for the key", n)
	}
}

func FuzzDecode(f *testing.F) {
	g := &txnGenerator{rand.New(rand.NewPCG(2, 2))}
	for i := range 50 {
		b, err := proto.Marshal(usual(g, i))
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	for _, r := range oddRequests {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b)
	}
	d := new(requestDecoder)
	f.Fuzz(func(t *testing.T, b []byte) { checkDecode(t, d, b) })
}
