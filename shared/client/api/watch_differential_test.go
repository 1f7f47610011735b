package api

import (
	"context"
	"maps"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/proto"
)

// watched holds everything that came on one stream, by watch id. The grouping of events into
// responses is not compared.
type watched struct {
	stream pb.Watch_WatchClient
	mu     sync.Mutex
	byID   map[int64][]string
	more   chan struct{} // has an element when there is something new
}

func watchEverything(t *testing.T, ctx context.Context, conn *grpc.ClientConn) *watched {
	t.Helper()
	stream, err := pb.NewWatchClient(conn).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	w := &watched{stream: stream, byID: map[int64][]string{}, more: make(chan struct{}, 1)}
	go func() {
		for {
			r, err := stream.Recv()
			if err != nil {
				return
			}
			w.note(r)
		}
	}()
	return w
}

func (w *watched) note(r *pb.WatchResponse) {
	w.mu.Lock()
	defer w.mu.Unlock()
	log := w.byID[r.WatchId]
	if len(r.Events) == 0 || r.Canceled {
		bare := proto.Clone(r).(*pb.WatchResponse)
		bare.Events = nil
		bare.Header = &pb.ResponseHeader{Revision: r.Header.Revision}
		log = append(log, prototext.MarshalOptions{}.Format(bare))
	}
	for _, e := range r.Events {
		log = append(log, prototext.MarshalOptions{}.Format(e))
	}
	w.byID[r.WatchId] = log
	select {
	case w.more <- struct{}{}:
	default:
	}
}

func (w *watched) logs() map[int64][]string {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := map[int64][]string{}
	for id, log := range w.byID {
		out[id] = slices.Clone(log)
	}
	return out
}

// compareWatched waits until both streams have received the same.
func compareWatched(t *testing.T, seed uint64, ours, etcds *watched) {
	t.Helper()
	deadline := time.After(20 * time.Second)
	same := func(a, b []string) bool { return slices.Equal(evened(a), evened(b)) }
	for !maps.EqualFunc(ours.logs(), etcds.logs(), same) {
		select {
		case <-ours.more:
		case <-etcds.more:
		case <-deadline:
			our, their := ours.logs(), etcds.logs()
			for id := range their {
				if !same(our[id], their[id]) {
					t.Errorf("watch %d\nours:\n%s\netcd:\n%s", id, strings.Join(our[id], "\n"), strings.Join(their[id], "\n"))
				}
			}
			t.Fatalf("seed %d: different", seed)
		}
	}
}

// evened removes differences that the protobuf printing library does not guarantee to avoid.
func evened(log []string) []string {
	out := slices.Clone(log)
	for i := range out {
		out[i] = strings.ReplaceAll(out[i], "  ", " ")
	}
	return out
}

// TestWatchSameAsEtcd makes and cancels the same watches, of all kinds, on a stream of a real
// etcd and of an API, between the same random writes, and compares answers and events.
func TestWatchSameAsEtcd(t *testing.T) {
	seed := newSeed(t)
	s := serve(t, nil)
	ourConn, theirConn := dial(t, s.address), dial(t, startEtcd(t))
	grantLease(t, s)
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	our, their := watchEverything(t, ctx, ourConn), watchEverything(t, ctx, theirConn)
	g := &generator{Rand: rand.New(rand.NewPCG(seed, 2))}
	write := func(m proto.Message) {
		r := requestOf(m)
		want, wantErr := r.send(ctx, pb.NewKVClient(theirConn))
		_, gotErr := r.send(ctx, pb.NewKVClient(ourConn))
		if status.Convert(gotErr).Message() != status.Convert(wantErr).Message() {
			t.Fatalf("seed %d: %s: %v, etcd says %v", seed, r, gotErr, wantErr)
		}
		g.learn(want)
	}
	ask := func(r *pb.WatchRequest) {
		for _, w := range []*watched{our, their} {
			if err := w.stream.Send(r); err != nil {
				t.Fatal(err)
			}
		}
	}
	for round := range int64(12) {
		for range g.IntN(40) {
			write(g.writeForWatch())
		}
		write(&pb.PutRequest{Key: []byte("~")})
		// Canceling and compacting naturally race with events, so all events must have arrived
		// before. etcd serves the past of new watchers later; it has served all of them when it
		// has served the watcher that was made last.
		compareWatched(t, seed, our, their)
		for range 1 + g.IntN(4) {
			ask(g.watchRequest())
		}
		last := 1000 + round
		ask(creation(&pb.WatchCreateRequest{Key: []byte("~"), StartRevision: g.revision, WatchId: last}))
		for _, w := range []*watched{our, their} {
			for len(w.logs()[last]) < 2 {
				<-w.more
			}
		}
		compareWatched(t, seed, our, their)
	}
	events := 0
	for _, log := range our.logs() {
		events += len(log)
	}
	t.Logf("%d watchers, %d lines", len(our.logs()), events)
	if events < 100 {
		t.Errorf("only %d lines were compared", events)
	}
}

func (g *generator) writeForWatch() proto.Message {
	switch n := g.IntN(100); {
	case n < 60:
		return g.put()
	case n < 75:
		return g.delete()
	case n < 97:
		return g.txn(0)
	default:
		return &pb.CompactionRequest{Revision: g.oldRevision(), Physical: true}
	}
}

func (g *generator) watchRequest() *pb.WatchRequest {
	if g.chance(25) {
		return cancellation(g.Int64N(30) - 2)
	}
	r := &pb.WatchCreateRequest{Key: g.key(), RangeEnd: g.end(), PrevKv: g.chance(40), Fragment: g.chance(30)}
	if g.chance(60) {
		r.StartRevision = g.oldRevision()
	}
	if g.chance(30) {
		r.WatchId = g.Int64N(30)
	}
	if g.chance(30) {
		r.Filters = append(r.Filters, pb.WatchCreateRequest_FilterType(g.IntN(3))) // the third is none
	}
	if g.chance(10) {
		r.Filters = append(r.Filters, pb.WatchCreateRequest_NOPUT, pb.WatchCreateRequest_NODELETE)
	}
	return creation(r)
}
