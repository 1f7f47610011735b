package store

import (
	"bytes"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
)

// checkDecodePlain compares with the protobuf package. Refusing an entry only makes it slower.
func checkDecodePlain(t *testing.T, data []byte) (ok bool) {
	t.Helper()
	var p pb.PutRequest
	if !decodePlain(data, &p) {
		return false
	}
	var want pb.InternalRaftRequest
	if err := proto.Unmarshal(data, &want); err != nil {
		t.Fatalf("%x is read, and is malformed: %v", data, err)
	}
	got := &pb.InternalRaftRequest{Put: &p}
	if want.Header != nil {
		got.Header = &pb.RequestHeader{ID: want.Header.ID}
	}
	if !proto.Equal(got, &want) {
		t.Fatalf("%x is read as %v, and is %v", data, got, &want)
	}
	return true
}

func TestDecodePlain(t *testing.T) {
	header := &pb.RequestHeader{ID: 7}
	kv := &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}
	for name, c := range map[string]struct {
		r     *pb.InternalRaftRequest
		plain bool
	}{
		"key and value":    {&pb.InternalRaftRequest{Header: header, Put: kv}, true},
		"no value":         {&pb.InternalRaftRequest{Header: header, Put: &pb.PutRequest{Key: []byte("k")}}, true},
		"no header":        {&pb.InternalRaftRequest{Put: kv}, true},
		"no key":           {&pb.InternalRaftRequest{Header: header, Put: &pb.PutRequest{Value: []byte("v")}}, false},
		"a lease":          {&pb.InternalRaftRequest{Header: header, Put: &pb.PutRequest{Key: []byte("k"), Lease: 1}}, false},
		"a previous value": {&pb.InternalRaftRequest{Header: header, Put: &pb.PutRequest{Key: []byte("k"), PrevKv: true}}, false},
		"a user":           {&pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: 7, Username: "root"}, Put: kv}, false},
		"an old id":        {&pb.InternalRaftRequest{ID: 3, Put: kv}, false},
		"a range, too":     {&pb.InternalRaftRequest{Put: kv, Range: &pb.RangeRequest{Key: []byte("k")}}, false},
		"a transaction":    {&pb.InternalRaftRequest{Header: header, Txn: &pb.TxnRequest{}}, false},
		"nothing":          {&pb.InternalRaftRequest{Header: header}, false},
	} {
		data, err := proto.Marshal(c.r)
		if err != nil {
			t.Fatal(err)
		}
		if got := checkDecodePlain(t, data); got != c.plain {
			t.Errorf("%s: read %v, want %v", name, got, c.plain)
		}
		for n := range data {
			checkDecodePlain(t, data[:n])
		}
	}
}

// The index keeps the key, so the key must not keep the memory of a whole message alive.
func TestDecodePlainCopiesTheKey(t *testing.T) {
	data := put(t, "key", "value")
	var p pb.PutRequest
	if !decodePlain(data, &p) {
		t.Fatal("no plain put")
	}
	clear(data)
	if string(p.Key) != "key" || !bytes.Equal(p.Value, make([]byte, 5)) {
		t.Errorf("key %q, value %q", p.Key, p.Value)
	}
}

func FuzzDecodePlain(f *testing.F) {
	for _, r := range append(oddRequests, &pb.InternalRaftRequest{Header: &pb.RequestHeader{ID: 1 << 40},
		Put: &pb.PutRequest{Key: []byte("key"), Value: []byte("value")}}) {
		data, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(data)
	}
	f.Fuzz(func(t *testing.T, data []byte) { checkDecodePlain(t, data) })
}
