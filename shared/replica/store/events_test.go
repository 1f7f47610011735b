package store

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"runtime"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// told renders a history as text, one word per event.
func told(h History) string {
	out := ""
	for _, e := range h.Events {
		out += fmt.Sprintf("%s %s=%s@%d ", e.Type, e.Kv.Key, e.Kv.Value, e.Kv.ModRevision)
	}
	return out + fmt.Sprintf("next %d of %d", h.Next, h.Revision)
}

func TestHistory(t *testing.T) {
	s := open(t, t.TempDir())
	op := func(k, v string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(k), Value: []byte(v)}}}
	}
	feed(t, s, 1, put(t, "a", "1"))                                                                                            // 2
	feed(t, s, 1, data(t, &pb.InternalRaftRequest{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{op("b", "2"), op("c", "3")}}})) // 3
	feed(t, s, 1, data(t, &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte("a")}}))                     // 4
	feed(t, s, 1, put(t, "a", "5"))                                                                                            // 5
	for _, c := range []struct {
		from, revisions int64
		bytes           int
		want            string
	}{
		{1, 100, 1 << 20, "PUT a=1@2 PUT b=2@3 PUT c=3@3 DELETE a=@4 PUT a=5@5 next 6 of 5"},
		{2, 2, 1 << 20, "PUT a=1@2 PUT b=2@3 PUT c=3@3 next 4 of 5"},
		{3, 100, 1, "PUT b=2@3 PUT c=3@3 next 4 of 5"}, // never half a revision
		{2, 100, 0, "PUT a=1@2 next 3 of 5"},           // nor nothing
		{5, 0, 1, "PUT a=5@5 next 6 of 5"},
		{6, 10, 1 << 20, "next 6 of 5"},
		{math.MaxInt64, 10, 1 << 20, "next 9223372036854775807 of 5"},
	} {
		for range 2 { // out of the buffer, then out of the file
			h, err := s.History(c.from, c.revisions, c.bytes)
			if err != nil || told(h) != c.want {
				t.Errorf("from %d, %d revisions, %d bytes: %s, %v; want %s", c.from, c.revisions, c.bytes, told(h), err, c.want)
			}
			s.Commit()
		}
	}
	feed(t, s, 1, data(t, &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: 4, Physical: true}}))
	if _, err := s.History(3, 10, 1<<20); !errors.Is(err, mvcc.ErrCompacted) {
		t.Errorf("of a compacted revision: %v", err)
	}
	if h, err := s.History(4, 10, 1<<20); err != nil || told(h) != "DELETE a=@4 PUT a=5@5 next 6 of 5" {
		t.Errorf("from the compacted revision on: %s, %v", told(h), err)
	}
}

// TestHistoryReadersAreBounded: there are as many readers as processors, so that a write waits
// for few of them.
func TestHistoryReadersAreBounded(t *testing.T) {
	s := open(t, t.TempDir())
	feed(t, s, 1, put(t, "a", "1"))
	for range cap(s.readers) {
		s.readers <- struct{}{}
	}
	done := make(chan error)
	go func() {
		_, err := s.History(2, 10, 10)
		done <- err
	}()
	for waits := false; !waits; { // until it is seen to wait for its turn
		select {
		case err := <-done:
			t.Fatalf("read beside %d others: %v", cap(s.readers), err)
		default:
		}
		stacks := make([]byte, 1<<20)
		for _, g := range bytes.Split(stacks[:runtime.Stack(stacks, true)], []byte("\n\n")) {
			waits = waits || bytes.Contains(g, []byte("[chan send")) && bytes.Contains(g, []byte("readHistory"))
		}
	}
	<-s.readers
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}
