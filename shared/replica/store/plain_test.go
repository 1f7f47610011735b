package store

import (
	"fmt"
	"maps"
	"math/rand/v2"
	"slices"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"go.etcd.io/etcd/server/v3/lease"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/rules/entry"
)

// A put that takes the short way has the same result as on etcd's way. A put that asks for the
// previous value goes etcd's way and makes the same changes.
func TestPlainPutsAreEtcdsPuts(t *testing.T) {
	short, long := open(t, t.TempDir()), open(t, t.TempDir())
	r := rand.New(rand.NewPCG(1, 2))
	taken := 0
	for i := range uint64(600) {
		request := randomRequest(r, i)
		request.Header = &pb.RequestHeader{ID: i + 1}
		other := proto.Clone(request).(*pb.InternalRaftRequest)
		if other.Put != nil {
			other.Put.PrevKv = true
		}
		if short.plain(request) {
			taken++
		}
		if long.plain(other) {
			t.Fatal("a put with the previous value is no plain one")
		}
		a, b := applyNext(t, short, request), applyNext(t, long, other)
		if p, ok := b.Resp.(*pb.PutResponse); ok && p != nil {
			p.PrevKv = nil
		}
		if text(a) != text(b) {
			t.Fatalf("entry %d, %v:\n%s\n%s", i, request, text(a), text(b))
		}
	}
	if taken < 100 || taken > 500 {
		t.Errorf("%d of 600 went the short way: too few, or nothing but those", taken)
	}
	x, err := short.Digest(t.Context(), 0)
	y, err2 := long.Digest(t.Context(), 0)
	if err != nil || err2 != nil || x != y {
		t.Errorf("%+v and %+v; %v, %v", x, y, err, err2)
	}
	for id := lease.LeaseID(1); id <= 3; id++ {
		if a, b := keysOf(short, id), keysOf(long, id); !slices.Equal(a, b) {
			t.Errorf("lease %d holds %v and %v", id, a, b)
		}
	}
}

// randomRequest is mostly a put. The others change what a put may do.
func randomRequest(r *rand.Rand, i uint64) *pb.InternalRaftRequest {
	key := []byte(fmt.Sprint("k", r.IntN(20)))
	leases := []int64{0, 0, 0, 0, 1, 2, 3, 4}
	put := &pb.PutRequest{Key: key, Value: []byte(fmt.Sprint(i)), Lease: leases[r.IntN(len(leases))]}
	switch {
	case i < 3:
		return &pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: int64(i + 1), TTL: 1000}}
	case i%200 == 100, i%200 == 120:
		action := pb.AlarmRequest_ACTIVATE
		if i%200 == 120 {
			action = pb.AlarmRequest_DEACTIVATE
		}
		return &pb.InternalRaftRequest{Alarm: &pb.AlarmRequest{Action: action, MemberID: 3, Alarm: pb.AlarmType_NOSPACE}}
	case i == 500:
		return &pb.InternalRaftRequest{AuthUserAdd: &pb.AuthUserAddRequest{Name: "root", Options: &authpb.UserAddOptions{NoPassword: true}}}
	case i == 501:
		return &pb.InternalRaftRequest{AuthRoleAdd: &pb.AuthRoleAddRequest{Name: "root"}}
	case i == 502:
		return &pb.InternalRaftRequest{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}}
	case i == 503:
		return &pb.InternalRaftRequest{AuthEnable: &pb.AuthEnableRequest{}}
	}
	switch r.IntN(10) {
	case 0:
		return &pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{Key: key}}
	case 1:
		put.Value, put.IgnoreValue = nil, true
	case 2:
		put.Lease, put.IgnoreLease = 0, true
	}
	return &pb.InternalRaftRequest{Put: put}
}

func applyNext(t *testing.T, s *Store, r *pb.InternalRaftRequest) *apply.Result {
	t.Helper()
	b, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.Apply(entry.Entry{Index: s.Applied().Index + 1, Epoch: 1, Data: b})
	if err != nil {
		t.Fatal(err)
	}
	return res
}

func text(r *apply.Result) string { return fmt.Sprintf("%v, %v", r.Resp, r.Err) }

func keysOf(s *Store, id lease.LeaseID) []string {
	keys := map[string]bool{}
	if l := s.Lessor().Lookup(id); l != nil {
		for _, k := range l.Keys() {
			keys[k] = true
		}
	}
	return slices.Sorted(maps.Keys(keys))
}

// In an etcd in which this trick fails, the trace of all puts would grow for ever.
func TestUntracedKeepsNoSteps(t *testing.T) {
	if n := testing.AllocsPerRun(1000, func() { untraced.Step("step") }); n != 0 {
		t.Errorf("a step takes %v allocations", n)
	}
}
