package store

import (
	"bytes"
	"fmt"
	"runtime/pprof"
	"slices"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// received returns the responses in the channel.
func received(w *WatchStream) (out []string) {
	for {
		select {
		case r := <-w.Chan():
			text := fmt.Sprintf("%d@%d", r.WatchID, r.Revision)
			for _, e := range r.Events {
				text += fmt.Sprintf(" %s %s=%s", e.Type, e.Kv.Key, e.Kv.Value)
				if e.Kv.ModRevision != r.Revision {
					text += fmt.Sprintf(" at %d", e.Kv.ModRevision)
				}
			}
			out = append(out, text)
		default:
			slices.Sort(out) // watchers of one change have no order
			return out
		}
	}
}

func expect(t *testing.T, w *WatchStream, want ...string) {
	t.Helper()
	slices.Sort(want)
	if got := received(w); !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

func watch(t *testing.T, w *WatchStream, id mvcc.WatchID, key string, end []byte, filters ...mvcc.FilterFunc) {
	t.Helper()
	if err := w.Watch(id, []byte(key), end, filters...); err != nil {
		t.Fatal(err)
	}
}

func TestWatch(t *testing.T) {
	s := open(t, t.TempDir())
	w := s.NewWatchStream()
	defer w.Close()
	feed(t, s, 1, put(t, "a", "before"))
	watch(t, w, 1, "a", nil)
	watch(t, w, 2, "a", []byte("b"))
	watch(t, w, 3, "a", []byte("b"))
	watch(t, w, 4, "b", []byte{}) // to the end
	watch(t, w, 5, "a", nil, func(e *mvccpb.Event) bool { return e.Type == mvccpb.Event_DELETE })
	feed(t, s, 1, put(t, "a", "x"))
	expect(t, w, "1@3 PUT a=x", "2@3 PUT a=x", "3@3 PUT a=x", "5@3 PUT a=x")
	feed(t, s, 1, put(t, "ab", "y"))
	expect(t, w, "2@4 PUT ab=y", "3@4 PUT ab=y")
	w.Cancel(3)
	w.Cancel(3)
	w.Cancel(1000)
	feed(t, s, 1, data(t, &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte("a"), RangeEnd: []byte("b")}}))
	expect(t, w, "1@5 DELETE a=", "2@5 DELETE a= DELETE ab=")
	feed(t, s, 1, data(t, &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte("a")}})) // changes nothing
	expect(t, w)

	feed(t, s, 1, data(t, &pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: 7, TTL: 60}}))
	feed(t, s, 1, data(t, &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("c"), Value: []byte("z"), Lease: 7}}))
	feed(t, s, 1, data(t, &pb.InternalRaftRequest{LeaseRevoke: &pb.LeaseRevokeRequest{ID: 7}}))
	expect(t, w, "4@6 PUT c=z", "4@7 DELETE c=")
}

// TestWatchSeesWritesWithoutATransaction is for etcd's code that writes without a transaction.
func TestWatchSeesWritesWithoutATransaction(t *testing.T) {
	t.Setenv("ETCD_VERIFY", "") // it checks that entries alone write
	s := open(t, t.TempDir())
	w := s.NewWatchStream()
	defer w.Close()
	watch(t, w, 1, "d", nil)
	s.KV().Put([]byte("d"), []byte("1"), 0)
	s.KV().DeleteRange([]byte("d"), nil)
	expect(t, w, "1@2 PUT d=1", "1@3 DELETE d=")
}

func TestWatchRefuses(t *testing.T) {
	s := open(t, t.TempDir())
	w := s.NewWatchStream()
	watch(t, w, 1, "a", nil)
	if w.Watch(1, []byte("b"), nil) == nil {
		t.Error("an id was taken twice")
	}
	if w.Watch(2, []byte("b"), []byte("a")) == nil {
		t.Error("a range that ends before it begins was taken")
	}
	w.Close()
	if w.Watch(3, []byte("a"), nil) == nil {
		t.Error("a closed stream took a watcher")
	}
	feed(t, s, 1, put(t, "a", "x")) // to nobody
}

func TestWatchProgress(t *testing.T) {
	s := open(t, t.TempDir())
	w := s.NewWatchStream()
	defer w.Close()
	w.RequestProgressAll()
	w.RequestProgress(1)
	expect(t, w)
	watch(t, w, 1, "a", nil)
	watch(t, w, 2, "b", nil)
	feed(t, s, 1, put(t, "c", "x"))
	w.RequestProgress(2)
	expect(t, w, "2@2")
	w.RequestProgressAll()
	expect(t, w, fmt.Sprintf("%d@2", clientv3.InvalidWatchID))
}

// TestWatcherIsLost: a receiver that is too slow learns which watchers miss events, and gets no
// progress reports until then.
func TestWatcherIsLost(t *testing.T) {
	s := open(t, t.TempDir())
	w := s.NewWatchStream()
	defer w.Close()
	watch(t, w, 1, "a", nil)
	watch(t, w, 2, "b", nil)
	for range watchBuffer {
		feed(t, s, 1, put(t, "a", "x"))
	}
	if lost := w.Lost(); len(lost) != 0 {
		t.Fatalf("%v are lost before the channel is full", lost)
	}
	feed(t, s, 1, put(t, "a", "lost"))
	if n := len(received(w)); n != watchBuffer {
		t.Errorf("%d responses, want %d", n, watchBuffer)
	}
	w.RequestProgressAll()
	expect(t, w)
	if lost := w.Lost(); !slices.Equal(lost, []mvcc.WatchID{1}) {
		t.Errorf("%v are lost, want 1", lost)
	}
	if lost := w.Lost(); len(lost) != 0 {
		t.Errorf("%v are lost again", lost)
	}
	feed(t, s, 1, put(t, "a", "y"))
	feed(t, s, 1, put(t, "b", "y"))
	expect(t, w, fmt.Sprintf("2@%d PUT b=y", s.Revision()))
	watch(t, w, 1, "a", nil) // the id is free
	feed(t, s, 1, put(t, "a", "z"))
	expect(t, w, fmt.Sprintf("1@%d PUT a=z", s.Revision()))
}

// TestIdleStoreDoesNotPollForWatchers: an idle store does not wake up to look for watchers.
func TestIdleStoreDoesNotPollForWatchers(t *testing.T) {
	s := open(t, t.TempDir())
	w := s.NewWatchStream()
	defer w.Close()
	watch(t, w, 1, "a", nil)
	var stacks bytes.Buffer
	if err := pprof.Lookup("goroutine").WriteTo(&stacks, 2); err != nil {
		t.Fatal(err)
	}
	for _, loop := range []string{"syncWatchersLoop", "syncVictimsLoop"} {
		if strings.Contains(stacks.String(), loop) {
			t.Errorf("%s runs", loop)
		}
	}
}

// The counts follow deletions, transactions and a compaction, and a store that is opened again has the
// same ones.
func TestCounts(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	keys := func(when string, want int64) {
		t.Helper()
		if got, _ := Counts(); got != want {
			t.Errorf("%s: %d keys, want %d", when, got, want)
		}
	}
	keys("empty", 0)
	for _, k := range []string{"a", "b", "c", "b"} {
		feed(t, s, 1, put(t, k, "v"))
	}
	keys("three keys, one of them changed", 3)
	remove := func(key string) *pb.InternalRaftRequest {
		return &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: []byte(key)}}
	}
	feed(t, s, 1, data(t, remove("a")))
	feed(t, s, 1, data(t, remove("nothing")))
	keys("one deleted", 2)
	feed(t, s, 1, put(t, "a", "again"))
	keys("put again", 3)
	feed(t, s, 1, data(t, remove("a")))
	feed(t, s, 1, data(t, &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: s.Revision(), Physical: true}}))
	keys("compacted", 2)

	_, before := Counts()
	w := s.NewWatchStream()
	watch(t, w, 1, "a", nil)
	watch(t, w, 2, "a", []byte("z"))
	if _, now := Counts(); now != before+2 {
		t.Errorf("%d watchers, want two more than %d", now, before)
	}
	w.Close()
	if _, now := Counts(); now != before {
		t.Errorf("%d watchers, want %d", now, before)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	open(t, dir)
	keys("opened again", 2)
}
