package api

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/auth"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/replica/store"
)

// rawWatch is a watch stream without a client library around it.
type rawWatch struct {
	t      testing.TB
	stream pb.Watch_WatchClient
}

func openWatch(t testing.TB, ctx context.Context, address string) *rawWatch {
	t.Helper()
	ctx, cancel := context.WithTimeout(ctx, time.Minute)
	t.Cleanup(cancel)
	stream, err := pb.NewWatchClient(dial(t, address)).Watch(ctx)
	if err != nil {
		t.Fatal(err)
	}
	return &rawWatch{t, stream}
}

func (w *rawWatch) send(r *pb.WatchRequest) {
	w.t.Helper()
	if err := w.stream.Send(r); err != nil {
		w.t.Fatal(err)
	}
}

func (w *rawWatch) recv() *pb.WatchResponse {
	w.t.Helper()
	r, err := w.stream.Recv()
	if err != nil {
		w.t.Fatal(err)
	}
	return r
}

func creation(r *pb.WatchCreateRequest) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}}
}

func cancellation(id int64) *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CancelRequest{CancelRequest: &pb.WatchCancelRequest{WatchId: id}}}
}

func progressRequest() *pb.WatchRequest {
	return &pb.WatchRequest{RequestUnion: &pb.WatchRequest_ProgressRequest{ProgressRequest: &pb.WatchProgressRequest{}}}
}

// create makes a watcher of all keys, except for what r changes, and returns its id.
func (w *rawWatch) create(r *pb.WatchCreateRequest) int64 {
	w.t.Helper()
	if len(r.Key) == 0 {
		r.Key, r.RangeEnd = []byte{0}, []byte{0}
	}
	w.send(creation(r))
	for {
		a := w.recv()
		if a.Created {
			if a.Canceled {
				w.t.Fatalf("refused: %v", a)
			}
			return a.WatchId
		}
	}
}

func (s *server) put(t *testing.T, key, value string) {
	t.Helper()
	s.must(t, &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte(key), Value: []byte(value)}})
}

// line renders a response as text.
func line(r *pb.WatchResponse) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%d@%d", r.WatchId, r.Header.Revision)
	for _, f := range []struct {
		set  bool
		name string
	}{{r.Created, "created"}, {r.Canceled, "canceled"}, {r.Fragment, "fragment"}, {r.CancelReason != "", r.CancelReason}} {
		if f.set {
			b.WriteString(" " + f.name)
		}
	}
	if r.CompactRevision != 0 {
		fmt.Fprintf(&b, " compacted %d", r.CompactRevision)
	}
	for _, e := range r.Events {
		fmt.Fprintf(&b, " %s %s=%s", e.Type, e.Kv.Key, e.Kv.Value)
		if e.PrevKv != nil {
			fmt.Fprintf(&b, " (was %s)", e.PrevKv.Value)
		}
	}
	return b.String()
}

func (w *rawWatch) want(lines ...string) {
	w.t.Helper()
	for _, want := range lines {
		if got := line(w.recv()); got != want {
			w.t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
}

func TestWatchWithTheStockClient(t *testing.T) {
	s := serve(t, nil)
	c, ctx := s.stock(t), t.Context()
	past := c.Watch(ctx, "a", clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithPrevKV())
	now := c.Watch(ctx, "a", clientv3.WithPrefix(), clientv3.WithCreatedNotify(), clientv3.WithFilterPut())
	if r := <-now; !r.Created {
		t.Fatalf("%+v", r)
	}
	for _, v := range []string{"1", "2"} {
		if _, err := c.Put(ctx, "a", v); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := c.Delete(ctx, "a"); err != nil {
		t.Fatal(err)
	}
	var got []string
	for len(got) < 3 {
		r := <-past
		for _, e := range r.Events {
			prev := ""
			if e.PrevKv != nil {
				prev = string(e.PrevKv.Value)
			}
			got = append(got, fmt.Sprintf("%s %s %s<%s", e.Type, e.Kv.Key, e.Kv.Value, prev))
		}
	}
	if s := fmt.Sprint(got); s != "[PUT a 1< PUT a 2<1 DELETE a <2]" {
		t.Fatal(s)
	}
	if r := <-now; len(r.Events) != 1 || r.Events[0].Type != clientv3.EventTypeDelete || r.Header.Revision != 4 {
		t.Fatalf("%+v", r)
	}
	if _, err := c.Compact(ctx, 4); err != nil {
		t.Fatal(err)
	}
	r := <-c.Watch(ctx, "a", clientv3.WithRev(2))
	if !errors.Is(r.Err(), rpctypes.ErrCompacted) || r.CompactRevision != 4 {
		t.Fatalf("%+v", r)
	}
}

func TestWatchIDs(t *testing.T) {
	s := serve(t, nil)
	w := openWatch(t, t.Context(), s.address)
	key := func(id int64) *pb.WatchRequest {
		return creation(&pb.WatchCreateRequest{Key: []byte("a"), WatchId: id})
	}
	for _, r := range []*pb.WatchRequest{key(0), key(2), key(0), key(0), key(2), cancellation(1), cancellation(77), key(1), key(0)} {
		w.send(r)
	}
	w.want("0@1 created", "2@1 created", "1@1 created", "3@1 created",
		"-1@1 created canceled mvcc: duplicate watch ID provided on the WatchStream",
		"1@1 canceled", "1@1 created", "4@1 created")
	w.send(&pb.WatchRequest{}) // nothing, and no harm
	w.send(creation(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")}))
	w.want("-1@1 created canceled mvcc: watcher range is empty")
	w.send(creation(&pb.WatchCreateRequest{Key: []byte("b"), StartRevision: -1}))
	w.want("-1@1 created canceled etcdserver: mvcc: required revision has been compacted")
}

func TestWatchFromTheFuture(t *testing.T) {
	s := serve(t, nil)
	w := openWatch(t, t.Context(), s.address)
	w.create(&pb.WatchCreateRequest{StartRevision: 4})
	w.send(progressRequest())                          // nothing to say yet
	w.create(&pb.WatchCreateRequest{Key: []byte("z")}) // answered after that
	for i := range 4 {
		s.put(t, "a", fmt.Sprint(i))
	}
	w.want("0@4 PUT a=2", "0@5 PUT a=3")
	w.send(progressRequest())
	w.want("-1@5")
}

func TestWatchProgress(t *testing.T) {
	s := serve(t, func(_ *store.Config, c *Config) { c.WatchProgressInterval = time.Nanosecond })
	s.put(t, "a", "1")
	w := openWatch(t, t.Context(), s.address)
	w.create(&pb.WatchCreateRequest{Key: []byte("x")}) // does not want to know
	w.create(&pb.WatchCreateRequest{StartRevision: 2, ProgressNotify: true})
	w.want("1@2 PUT a=1", "1@2", "1@2")
	s.put(t, "b", "2")
	// At most one progress report was on its way before the event.
	r := w.recv()
	if len(r.Events) == 0 {
		r = w.recv()
	}
	if line(r) != "1@3 PUT b=2" {
		t.Fatal(line(r))
	}
	w.want("1@3")
}

func TestWatchFragments(t *testing.T) {
	s := serve(t, func(_ *store.Config, c *Config) { c.Limits.MaxRequestBytes = 1000 })
	value := strings.Repeat("x", 60<<10)
	r := &pb.TxnRequest{}
	for i := range 20 {
		r.Success = append(r.Success, &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: fmt.Append(nil, i), Value: []byte(value)}}})
	}
	cut, whole := openWatch(t, t.Context(), s.address), openWatch(t, t.Context(), s.address)
	cut.create(&pb.WatchCreateRequest{Fragment: true})
	whole.create(&pb.WatchCreateRequest{})
	s.must(t, &pb.InternalRaftRequest{Txn: r})
	all := whole.recv()
	if len(all.Events) != 20 || all.Fragment {
		t.Fatalf("%d events", len(all.Events))
	}
	events := 0
	for n := 1; ; n++ {
		f := cut.recv()
		if size := proto.Size(f); size >= 1000+grpcOverheadBytes {
			t.Errorf("fragment of %d bytes", size)
		}
		for _, e := range f.Events {
			if !proto.Equal(e, all.Events[events]) {
				t.Fatalf("event %d is %s", events, e.Kv.Key)
			}
			events++
		}
		if !f.Fragment {
			if events != 20 || n < 2 {
				t.Fatalf("%d events in %d fragments", events, n)
			}
			return
		}
	}
}

func TestWatchPermissions(t *testing.T) {
	s := serve(t, nil)
	for _, r := range []*pb.InternalRaftRequest{
		{AuthUserAdd: &pb.AuthUserAddRequest{Name: "root", HashedPassword: "eA=="}},
		{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}},
		{AuthUserAdd: &pb.AuthUserAddRequest{Name: "u", HashedPassword: "eA=="}},
		{AuthRoleAdd: &pb.AuthRoleAddRequest{Name: "r"}},
		{AuthRoleGrantPermission: &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: &authpb.Permission{Key: []byte("a"), RangeEnd: []byte("b")}}},
		{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: "u", Role: "r"}},
		{AuthEnable: &pb.AuthEnableRequest{}},
	} {
		s.must(t, r)
	}
	watch := func(token, key, end string) string {
		ctx := t.Context()
		if token != "" {
			ctx = metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
		}
		w := openWatch(t, ctx, s.address)
		w.send(creation(&pb.WatchCreateRequest{Key: []byte(key), RangeEnd: []byte(end)}))
		return line(w.recv())
	}
	s.must(t, &pb.InternalRaftRequest{Authenticate: &pb.InternalAuthenticateRequest{Name: "u", SimpleToken: "t"}})
	token := fmt.Sprint("t.", s.store.Applied().Index-1)
	for _, c := range []struct{ token, key, end, want string }{
		{token, "a", "", "0@1 created"},
		{token, "a", "b", "0@1 created"},
		{token, "a", "\x00", "-1@1 created canceled " + rpctypes.ErrGRPCPermissionDenied.Error()},
		{token, "c", "", "-1@1 created canceled " + rpctypes.ErrGRPCPermissionDenied.Error()},
		{"wrong", "a", "", "-1@1 created canceled " + rpctypes.ErrGRPCInvalidAuthToken.Error()},
		{"", "a", "", "-1@1 created canceled " + rpctypes.ErrGRPCUserEmpty.Error()},
	} {
		if got := watch(c.token, c.key, c.end); got != c.want {
			t.Errorf("token %q key %q end %q: %s, want %s", c.token, c.key, c.end, got, c.want)
		}
	}
	// Clients get a new token when they see exactly these words.
	if got := refusalReason(auth.ErrAuthOldRevision); got != rpctypes.ErrGRPCAuthOldRevision.Error() {
		t.Error(got)
	}
}

// A client must be able to distinguish a server that stops from one that refuses.
func TestWatchEndsWithTheServer(t *testing.T) {
	s := serve(t, nil)
	idle, reading := openWatch(t, t.Context(), s.address), openWatch(t, t.Context(), s.address)
	reading.create(&pb.WatchCreateRequest{})
	s.api.Shutdown()
	s.api.Shutdown()
	for _, w := range []*rawWatch{idle, reading} {
		if _, err := w.stream.Recv(); status.Code(err) != codes.Unavailable {
			t.Error(err)
		}
	}
}

func TestWatchAfterTheClientsLastRequest(t *testing.T) {
	s := serve(t, nil)
	w := openWatch(t, t.Context(), s.address)
	w.create(&pb.WatchCreateRequest{})
	if err := w.stream.CloseSend(); err != nil {
		t.Fatal(err)
	}
	s.put(t, "a", "1")
	w.want("0@2 PUT a=1")
}

func TestFragmentsAreWhole(t *testing.T) {
	r := &pb.WatchResponse{Header: &pb.ResponseHeader{Revision: 7}, WatchId: 300}
	for i := range 100 {
		r.Events = append(r.Events, &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: fmt.Append(nil, i), Value: bytes.Repeat([]byte("v"), i*3)}})
	}
	for _, limit := range []int{1, 50, 200, 1000, 20000, 1 << 20} {
		n := 0
		out := fragments(r, limit)
		for i, f := range out {
			if f.Fragment != (i < len(out)-1) || len(f.Events) == 0 || len(f.Events) > 1 && proto.Size(f) >= limit {
				t.Errorf("limit %d: fragment %d of %d has %d events, %d bytes", limit, i, len(out), len(f.Events), proto.Size(f))
			}
			for _, e := range f.Events {
				if e != r.Events[n] {
					t.Fatalf("limit %d: event %d", limit, n)
				}
				n++
			}
		}
		if n != len(r.Events) {
			t.Errorf("limit %d: %d events", limit, n)
		}
	}
}

// Existing watchers get reports at the new interval.
func TestWatchProgressIntervalChanges(t *testing.T) {
	s := serve(t, func(_ *store.Config, c *Config) { c.WatchProgressInterval = time.Hour })
	s.put(t, "a", "1")
	w := openWatch(t, t.Context(), s.address)
	w.create(&pb.WatchCreateRequest{StartRevision: 2, ProgressNotify: true})
	w.want("0@2 PUT a=1")
	s.api.SetWatchProgressInterval(time.Nanosecond)
	w.want("0@2", "0@2")
}
