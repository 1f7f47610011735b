package api

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// smallWatches makes watchers fall behind all the time.
func (s *server) smallWatches(t *testing.T) {
	t.Helper()
	for _, sv := range s.api.services {
		if w, ok := sv.(*watchServer); ok {
			w.queueMessages, w.queueBytes, w.readRevisions, w.readBytes = 4, 4<<10, 7, 2<<10
		}
	}
}

// writes puts keys k0 to k9 in turn, one event in each revision.
func (s *server) writes(t *testing.T, n int, valueBytes int) {
	t.Helper()
	value := strings.Repeat("x", valueBytes)
	for i := range n {
		s.put(t, fmt.Sprint("k", i%10), value)
	}
}

// gapless checks that watchers see each revision once and in order.
type gapless map[int64]int64 // by watch id, the next revision

func (g gapless) check(r *pb.WatchResponse) error {
	if r.Canceled {
		return fmt.Errorf("canceled: %s", line(r))
	}
	for _, e := range r.Events {
		if e.Kv.ModRevision != g[r.WatchId] {
			return fmt.Errorf("watcher %d: revision %d, want %d", r.WatchId, e.Kv.ModRevision, g[r.WatchId])
		}
		g[r.WatchId]++
	}
	if len(r.Events) > 0 || r.Created {
		return nil
	}
	for id, next := range g { // progress: all that came before was sent
		if (r.WatchId == id || r.WatchId == -1) && next != r.Header.Revision+1 {
			return fmt.Errorf("watcher %d: progress %d before revision %d was sent", id, r.Header.Revision, next)
		}
	}
	return nil
}

func (g gapless) see(t *testing.T, r *pb.WatchResponse) {
	t.Helper()
	if err := g.check(r); err != nil {
		t.Fatal(err)
	}
}

// One client does not read at all. Another one and the writer are not affected. When the first
// one reads at last, it gets everything.
func TestSlowWatcherLosesNothingAndDelaysNobody(t *testing.T) {
	s := serve(t, nil)
	slow, quick := openWatch(t, t.Context(), s.address), openWatch(t, t.Context(), s.address)
	slow.create(&pb.WatchCreateRequest{})
	quick.create(&pb.WatchCreateRequest{})
	const n, valueBytes = 600, 16 << 10 // 10 MB, more than what a stream's queue takes
	g := gapless{0: 2}
	for i := range int64(n) {
		s.writes(t, 1, valueBytes)
		for g[0] != i+3 {
			g.see(t, quick.recv())
		}
	}
	g = gapless{0: 2}
	for g[0] != n+2 {
		g.see(t, slow.recv())
	}
	s.writes(t, 1, 1)
	g.see(t, slow.recv())
	if g[0] != n+3 {
		t.Fatalf("it is not live again: %d", g[0])
	}
}

// A slow watcher is told when its events were compacted before it read them.
func TestSlowWatcherIsCompacted(t *testing.T) {
	s := serve(t, nil)
	s.smallWatches(t)
	w := openWatch(t, t.Context(), s.address)
	w.create(&pb.WatchCreateRequest{})
	const n = 400
	s.writes(t, n, 16<<10) // more than the transport buffers
	s.must(t, &pb.InternalRaftRequest{Compaction: &pb.CompactionRequest{Revision: n}})
	g := gapless{0: 2}
	for {
		r := w.recv()
		if !r.Canceled {
			g.see(t, r)
			continue
		}
		if line(r) != fmt.Sprintf("0@0 canceled compacted %d", n) || g[0] >= n {
			t.Fatalf("%s, after revision %d", line(r), g[0])
		}
		break
	}
	// As with etcd, its id is free after the client has canceled it.
	w.send(creation(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: 5}))
	w.send(creation(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: 5}))
	w.send(cancellation(0))
	w.want("5@401 created", "-1@401 created canceled mvcc: duplicate watch ID provided on the WatchStream", "0@401 canceled")
	w.send(progressRequest())
	w.want("-1@401")
}

// Many watchers fall behind and catch up all the time, on streams that are read at different
// speeds, while there are writes.
func TestWatchersSeeEachRevisionOnce(t *testing.T) {
	s := serve(t, nil)
	s.smallWatches(t)
	const streams, perStream, revisions = 5, 4, 600
	s.writes(t, 50, 10)
	var wg sync.WaitGroup
	for range streams {
		wg.Go(func() { watchAll(t, s.address, perStream, revisions) })
	}
	for s.store.Revision() < revisions {
		s.writes(t, 1+rand.IntN(20), rand.IntN(2000))
		if rand.IntN(5) == 0 {
			<-time.After(time.Duration(rand.IntN(2000)) * time.Microsecond) // pauses, in which they catch up
		}
	}
	wg.Wait()
}

// watchAll reads revisions up to upTo on n watchers of a stream. It sometimes pauses and asks
// for progress.
func watchAll(t *testing.T, address string, n int, upTo int64) {
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	stream, err := pb.NewWatchClient(dial(t, address)).Watch(ctx)
	if err != nil {
		t.Error(err)
		return
	}
	g := gapless{}
	for i := range n {
		from := int64(2 + i*40) // some from the past, some from the future
		g[int64(i+1)] = from
		err = stream.Send(creation(&pb.WatchCreateRequest{
			Key: []byte("k"), RangeEnd: []byte("l"), WatchId: int64(i + 1), StartRevision: from, PrevKv: i == 2, Fragment: i == 3,
		}))
		if err != nil {
			t.Error(err)
			return
		}
	}
	done := func() bool {
		for _, next := range g {
			if next <= upTo {
				return false
			}
		}
		return true
	}
	for !done() {
		r, err := stream.Recv()
		if err != nil {
			t.Error(err)
			return
		}
		if err := g.check(r); err != nil {
			t.Error(err)
			return
		}
		switch rand.IntN(300) {
		case 0:
			<-time.After(time.Duration(rand.IntN(20)) * time.Millisecond)
		case 1:
			_ = stream.Send(progressRequest())
		}
	}
}

// A canceled watcher gets nothing more, and its id can be reused at once.
func TestCancelWhileBehind(t *testing.T) {
	s := serve(t, nil)
	s.smallWatches(t)
	w := openWatch(t, t.Context(), s.address)
	s.writes(t, 300, 1<<10)
	for i := range 50 {
		id := int64(7)
		w.send(creation(&pb.WatchCreateRequest{Key: []byte("k"), RangeEnd: []byte("l"), StartRevision: int64(2 + i), WatchId: id}))
		g := gapless{id: int64(2 + i)}
		if r := w.recv(); !r.Created || r.WatchId != id {
			t.Fatalf("not created: %v", r)
		}
		for range rand.IntN(8) {
			g.see(t, w.recv())
		}
		w.send(cancellation(id))
		for {
			r := w.recv()
			if r.Canceled {
				break
			}
			g.see(t, r)
		}
	}
}

// TestWatcherLostByTheStoreIsBehind: events came faster than they were received from the store.
// The watcher reads the missing ones.
func TestWatcherLostByTheStoreIsBehind(t *testing.T) {
	s := serve(t, nil)
	ws := &watchStream{
		watchServer: newWatchServer(s.api), live: s.store.NewWatchStream(), registered: map[mvcc.WatchID]*watcher{},
		wake: make(chan struct{}, 1), over: make(chan struct{}),
	}
	ws.queueMessages = 1 << 20
	w := &watcher{key: []byte("k"), end: []byte("l"), next: 2}
	if err := ws.goLive(w); err != nil {
		t.Fatal(err)
	}
	n := cap(ws.live.Chan())
	s.writes(t, n+10, 1)
	ws.live.Close()
	ws.pump()
	if w.registered != 0 || len(ws.behind) != 1 {
		t.Fatalf("registered as %d, %d are behind", w.registered, len(ws.behind))
	}
	if w.next > int64(n)+2 {
		t.Errorf("it goes on at revision %d, and never saw %d", w.next, n+2)
	}
}
