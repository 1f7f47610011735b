package api

import (
	"errors"
	"fmt"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/replica/store"
)

func TestStockClient(t *testing.T) {
	s := serve(t, nil)
	c, ctx := s.stock(t), t.Context()
	put, err := c.Put(ctx, "a", "1")
	if err != nil {
		t.Fatal(err)
	}
	h := put.Header
	if h.ClusterId != 5 || h.MemberId != testMemberID || h.RaftTerm != testEpoch || h.Revision != 2 {
		t.Fatalf("header %v", h)
	}
	got, err := c.Get(ctx, "a")
	if err != nil || len(got.Kvs) != 1 || string(got.Kvs[0].Value) != "1" || got.Header.Revision != 2 {
		t.Fatalf("%v %v", got, err)
	}
	txn, err := c.Txn(ctx).If(clientv3.Compare(clientv3.Value("a"), "=", "1")).
		Then(clientv3.OpPut("b", "2"), clientv3.OpGet("a")).Commit()
	if err != nil || !txn.Succeeded || len(txn.Responses[1].GetResponseRange().Kvs) != 1 {
		t.Fatalf("%v %v", txn, err)
	}
	del, err := c.Delete(ctx, "", clientv3.WithFromKey(), clientv3.WithPrevKV())
	if err != nil || del.Deleted != 2 || len(del.PrevKvs) != 2 {
		t.Fatalf("%v %v", del, err)
	}
	if _, err := c.Compact(ctx, del.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if s.store.Durable() != s.store.Applied() {
		t.Fatalf("after a physical compaction %s of %s is on disk", s.store.Durable(), s.store.Applied())
	}
	if _, err := c.Get(ctx, "a", clientv3.WithRev(2)); !errors.Is(err, rpctypes.ErrCompacted) {
		t.Fatal(err)
	}
	if _, err := c.Get(ctx, "a", clientv3.WithRev(100)); !errors.Is(err, rpctypes.ErrFutureRev) {
		t.Fatal(err)
	}
}

func TestErrors(t *testing.T) {
	s := serve(t, nil)
	kv, ctx := pb.NewKVClient(dial(t, s.address)), t.Context()
	if _, err := kv.Put(ctx, &pb.PutRequest{Key: []byte("a"), Value: []byte("1")}); err != nil {
		t.Fatal(err)
	}
	del := func(key, end string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte(key), RangeEnd: []byte(end)}}}
	}
	put := func(r *pb.PutRequest) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: r}}
	}
	key := func(k string) *pb.PutRequest { return &pb.PutRequest{Key: []byte(k)} }
	many := make([]*pb.RequestOp, 129)
	for i := range many {
		many[i] = del("x", "")
	}
	txn := func(ops ...*pb.RequestOp) error {
		_, err := kv.Txn(ctx, &pb.TxnRequest{Success: ops})
		return err
	}
	putErr := func(r *pb.PutRequest) error { _, err := kv.Put(ctx, r); return err }
	rangeErr := func(r *pb.RangeRequest) error { _, err := kv.Range(ctx, r); return err }
	compactErr := func(rev int64) error {
		_, err := kv.Compact(ctx, &pb.CompactionRequest{Revision: rev, Physical: true})
		return err
	}
	for _, c := range []struct {
		name string
		got  error
		want error
	}{
		{"put no key", putErr(key("")), rpctypes.ErrGRPCEmptyKey},
		{"put value to ignore", putErr(&pb.PutRequest{Key: []byte("a"), Value: []byte("x"), IgnoreValue: true}), rpctypes.ErrGRPCValueProvided},
		{"put lease to ignore", putErr(&pb.PutRequest{Key: []byte("a"), Lease: 1, IgnoreLease: true}), rpctypes.ErrGRPCLeaseProvided},
		{"put no lease", putErr(&pb.PutRequest{Key: []byte("a"), Lease: 1}), rpctypes.ErrGRPCLeaseNotFound},
		{"put nothing to keep", putErr(&pb.PutRequest{Key: []byte("none"), IgnoreValue: true}), rpctypes.ErrGRPCKeyNotFound},
		{"put too large", putErr(&pb.PutRequest{Key: []byte("a"), Value: make([]byte, DefaultMaxRequestBytes)}), rpctypes.ErrGRPCRequestTooLarge},
		{"range no key", rangeErr(&pb.RangeRequest{}), rpctypes.ErrGRPCEmptyKey},
		{"range bad order", rangeErr(&pb.RangeRequest{Key: []byte("a"), SortOrder: 9}), rpctypes.ErrGRPCInvalidSortOption},
		{"range bad target", rangeErr(&pb.RangeRequest{Key: []byte("a"), SortTarget: -1}), rpctypes.ErrGRPCInvalidSortOption},
		{"range future", rangeErr(&pb.RangeRequest{Key: []byte("a"), Revision: 50}), rpctypes.ErrGRPCFutureRev},
		{"txn too many", txn(many...), rpctypes.ErrGRPCTooManyOps},
		{"txn twice", txn(put(key("a")), put(key("a"))), rpctypes.ErrGRPCDuplicateKey},
		{"txn put deleted", txn(del("a", "c"), put(key("b"))), rpctypes.ErrGRPCDuplicateKey},
		{"txn empty op", txn(&pb.RequestOp{}), rpctypes.ErrGRPCKeyNotFound},
		{"txn kept from key", txn(del("a", "\x00"), put(&pb.PutRequest{Key: []byte("a"), IgnoreValue: true})), rpctypes.ErrGRPCDuplicateKey},
		{"txn kept, then from key", txn(put(&pb.PutRequest{Key: []byte("a"), IgnoreValue: true}), del("a", "\x00")), nil},
		{"compact future", compactErr(50), rpctypes.ErrGRPCFutureRev},
		{"compact", compactErr(2), nil},
		{"compact again", compactErr(2), rpctypes.ErrGRPCCompacted},
		{"range compacted", rangeErr(&pb.RangeRequest{Key: []byte("a"), Revision: 1}), rpctypes.ErrGRPCCompacted},
		{"message too large", status.Error(status.Code(putErr(&pb.PutRequest{Key: []byte("a"), Value: make([]byte, 4<<20)})), ""), status.Error(codes.ResourceExhausted, "")},
	} {
		if status.Code(c.got) != status.Code(c.want) || status.Convert(c.got).Message() != status.Convert(c.want).Message() {
			t.Errorf("%s: got %v, want %v", c.name, c.got, c.want)
		}
	}
}

func TestMetadataOnFirstResponse(t *testing.T) {
	s := serve(t, nil)
	ctx := t.Context()
	check := func(name string, md metadata.MD) {
		t.Helper()
		if got := strings.Join(md.Get("dynast-leader"), " "); got != "127.0.0.1:7400" {
			t.Errorf("%s: dynast-leader is %q in %v", name, got, md)
		}
	}
	var md metadata.MD
	if _, err := pb.NewKVClient(dial(t, s.address)).Range(ctx, &pb.RangeRequest{Key: []byte("a")}, grpc.Header(&md)); err != nil {
		t.Fatal(err)
	}
	check("range", md)
	md = nil
	kv := pb.NewKVClient(dial(t, s.address))
	if _, err := kv.Range(ctx, &pb.RangeRequest{}, grpc.Header(&md)); err == nil {
		t.Fatal("no key and no error")
	}
	check("refused range", md)
	for range 2 {
		stream, err := kv.RangeStream(ctx, &pb.RangeRequest{Key: []byte("a")})
		if err != nil {
			t.Fatal(err)
		}
		if _, err := stream.Recv(); err != nil {
			t.Fatal(err)
		}
		md, _ = stream.Header()
		check("stream", md)
	}
	old := metadata.AppendToOutgoingContext(ctx, rpctypes.MetadataClientAPIVersionKey, "3.7")
	if _, err := kv.Range(old, &pb.RangeRequest{Key: []byte("a")}); err != nil {
		t.Fatal(err)
	}
}

// A connection gets the metadata when it changed, and not with each response.
func TestMetadataWhenItChanged(t *testing.T) {
	var versions atomic.Uint64
	s := serve(t, func(_ *store.Config, c *Config) { c.Cluster = testCluster{&versions} })
	kv := pb.NewKVClient(dial(t, s.address))
	read := func() string {
		t.Helper()
		var md metadata.MD
		if _, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("a")}, grpc.Header(&md)); err != nil {
			t.Fatal(err)
		}
		return strings.Join(md.Get("dynast-epoch"), " ")
	}
	without := 0
	for i := range 100 {
		versions.Store(uint64(i))
		if got, want := read(), fmt.Sprint(i+1); got != want {
			t.Fatalf("metadata %q after a change, want %q", got, want)
		}
		if read() == "" { // it is repeated from time to time
			without++
		}
	}
	if without == 0 {
		t.Error("all responses carry metadata that has not changed")
	}
}

// A client that makes many requests at the same time ends up with the newest metadata.
func TestMetadataOfConcurrentResponses(t *testing.T) {
	var versions atomic.Uint64
	s := serve(t, func(_ *store.Config, c *Config) { c.Cluster = testCluster{&versions} })
	kv := pb.NewKVClient(dial(t, s.address))
	var (
		wg   sync.WaitGroup
		seen atomic.Uint64
	)
	for range 8 {
		wg.Go(func() {
			for range 200 {
				versions.Add(1)
				var md metadata.MD
				if _, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("a")}, grpc.Header(&md)); err != nil {
					t.Error(err)
					return
				}
				for _, v := range md.Get("dynast-epoch") {
					got, _ := strconv.ParseUint(v, 10, 64)
					for old := seen.Load(); old < got && !seen.CompareAndSwap(old, got); old = seen.Load() {
					}
				}
			}
		})
	}
	wg.Wait()
	if got, want := seen.Load(), versions.Load()+1; got != want {
		t.Errorf("the newest metadata that was received is %d, want %d", got, want)
	}
}

func TestMemberList(t *testing.T) {
	s := serve(t, nil)
	c := s.stock(t)
	list, err := c.MemberList(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	if len(list.Members) != 2 || list.Members[0].ID != list.Header.MemberId || list.Members[0].Name == "" {
		t.Fatalf("%v", list)
	}
	if len(list.Members[0].ClientURLs) != 1 || len(list.Members[1].ClientURLs) != 0 {
		t.Fatalf("client URLs are the leader's only: %v", list.Members)
	}
	if err := c.Sync(t.Context()); err != nil {
		t.Fatal(err)
	}
	if e := c.Endpoints(); len(e) != 1 || e[0] != "http://127.0.0.1:2379" {
		t.Fatalf("endpoints after Sync: %v", e)
	}
	_, err = pb.NewClusterClient(dial(t, s.address)).MemberAdd(t.Context(), &pb.MemberAddRequest{})
	if status.Code(err) != codes.Unimplemented {
		t.Fatal(err)
	}
}

func TestHealth(t *testing.T) {
	s := serve(t, nil)
	h := healthpb.NewHealthClient(dial(t, s.address))
	check := func(want healthpb.HealthCheckResponse_ServingStatus) {
		t.Helper()
		r, err := h.Check(t.Context(), &healthpb.HealthCheckRequest{})
		if err != nil || r.Status != want {
			t.Fatalf("%v %v", r, err)
		}
	}
	check(healthpb.HealthCheckResponse_SERVING)
	s.api.Shutdown()
	check(healthpb.HealthCheckResponse_NOT_SERVING)
}

func TestPanicIsAnError(t *testing.T) {
	s := serve(t, nil)
	s.proposer.before = func(*pb.InternalRaftRequest) error { panic("on purpose") }
	kv := pb.NewKVClient(dial(t, s.address))
	if _, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("a")}); status.Code(err) != codes.Internal {
		t.Fatal(err)
	}
	if _, err := kv.Range(t.Context(), &pb.RangeRequest{Key: []byte("a")}); err != nil {
		t.Fatal(err)
	}
}

// A Proposer's error reaches the client unchanged, and as etcd's error.
func TestProposerErrors(t *testing.T) {
	s := serve(t, nil)
	c := s.stock(t)
	for _, e := range []error{rpctypes.ErrGRPCRequestTooManyRequests, rpctypes.ErrTooManyRequests} {
		s.proposer.mu.Lock()
		s.proposer.before = func(*pb.InternalRaftRequest) error { return e }
		s.proposer.mu.Unlock()
		_, err := c.Put(t.Context(), "a", "1")
		if !errors.Is(err, rpctypes.ErrTooManyRequests) {
			t.Errorf("%v became %v", e, err)
		}
	}
}
