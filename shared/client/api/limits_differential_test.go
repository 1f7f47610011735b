package api

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"
)

// TestLimitsSameAsEtcd sends requests at the limits and just beyond them, and requests that
// only a special client would send, to a real etcd and to an API. Answers and errors, with
// codes and texts, must be the same.
func TestLimitsSameAsEtcd(t *testing.T) {
	ours := serve(t, nil)
	their, our := dial(t, startEtcd(t)), dial(t, ours.address)
	grantLease(t, ours)
	refused := 0
	all := limits()
	for _, what := range slices.Sorted(maps.Keys(all)) {
		_, want := compare(t, what, kindOfStep{step: step{what, all[what]}}, our, their)
		if want.err != nil {
			refused++
		}
	}
	if refused < 40 {
		t.Errorf("only %d requests were refused", refused)
	}
}

type sender = func(context.Context, *grpc.ClientConn) (proto.Message, error)

// invoke sends one message of any service and method.
func invoke(method string, r proto.Message) sender {
	return func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
		resp := newAnswer(r)
		return resp, c.Invoke(ctx, "/etcdserverpb."+method, r, resp)
	}
}

// first sends one message on a stream and returns the first answer.
func first(method string, r proto.Message) sender {
	return func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
		ctx, cancel := context.WithTimeout(ctx, 20*time.Second)
		defer cancel()
		s, err := c.NewStream(ctx, &grpc.StreamDesc{ClientStreams: true, ServerStreams: true}, "/etcdserverpb."+method)
		if err != nil {
			return nil, err
		}
		if err := errors.Join(s.SendMsg(r), s.CloseSend()); err != nil {
			return nil, err
		}
		resp := newAnswer(r)
		return resp, s.RecvMsg(resp)
	}
}

func with(key, value string, s sender) sender {
	return func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
		return s(metadata.AppendToOutgoingContext(ctx, key, value), c)
	}
}

func limits() map[string]sender {
	all := map[string]sender{}
	for _, group := range []map[string]sender{limitsOfKV(), limitsOfTxn(), limitsOfStreams(), limitsOfAuth(), limitsOfOthers()} {
		maps.Copy(all, group)
	}
	return all
}

func limitsOfKV() map[string]sender {
	key, value := []byte("key"), func(n int) []byte { return make([]byte, n) }
	out := map[string]sender{
		"put without a key":                invoke("KV/Put", &pb.PutRequest{}),
		"put with a value to ignore":       invoke("KV/Put", &pb.PutRequest{Key: key, Value: key, IgnoreValue: true}),
		"put with a lease to ignore":       invoke("KV/Put", &pb.PutRequest{Key: key, Lease: 1, IgnoreLease: true}),
		"put with a lease that is none":    invoke("KV/Put", &pb.PutRequest{Key: key, Lease: 7}),
		"put with a negative lease":        invoke("KV/Put", &pb.PutRequest{Key: key, Lease: -7}),
		"put that ignores what is not":     invoke("KV/Put", &pb.PutRequest{Key: []byte("none"), IgnoreValue: true}),
		"a large value":                    invoke("KV/Put", &pb.PutRequest{Key: key, Value: value(DefaultMaxRequestBytes - 200)}),
		"a value too large":                invoke("KV/Put", &pb.PutRequest{Key: key, Value: value(DefaultMaxRequestBytes)}),
		"a large key":                      invoke("KV/Put", &pb.PutRequest{Key: value(DefaultMaxRequestBytes - 200)}),
		"a message too large":              invoke("KV/Put", &pb.PutRequest{Key: key, Value: value(4 << 20)}),
		"a message that is just too large": invoke("KV/Put", &pb.PutRequest{Key: key, Value: value(DefaultMaxRequestBytes + grpcOverheadBytes)}),
		"range without a key":              invoke("KV/Range", &pb.RangeRequest{RangeEnd: key}),
		"range with an unknown order":      invoke("KV/Range", &pb.RangeRequest{Key: key, SortOrder: 3}),
		"range with a negative order":      invoke("KV/Range", &pb.RangeRequest{Key: key, SortOrder: -1}),
		"range with an unknown target":     invoke("KV/Range", &pb.RangeRequest{Key: key, SortTarget: 5}),
		"range at a negative revision":     invoke("KV/Range", &pb.RangeRequest{Key: key, Revision: -1}),
		"range at a future revision":       invoke("KV/Range", &pb.RangeRequest{Key: key, Revision: 1 << 40}),
		"range with a negative limit":      invoke("KV/Range", &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, KeysOnly: true, Limit: -1}),
		"range with its end before it":     invoke("KV/Range", &pb.RangeRequest{Key: []byte("z"), RangeEnd: []byte("a")}),
		"range with negative filters":      invoke("KV/Range", &pb.RangeRequest{Key: key, MinModRevision: -5, MaxCreateRevision: -5}),
		"delete without a key":             invoke("KV/DeleteRange", &pb.DeleteRangeRequest{RangeEnd: []byte{0}}),
		"delete with its end before it":    invoke("KV/DeleteRange", &pb.DeleteRangeRequest{Key: []byte("z"), RangeEnd: []byte("a")}),
		"compaction of the future":         invoke("KV/Compact", &pb.CompactionRequest{Revision: 1 << 40}),
		"compaction of nothing":            invoke("KV/Compact", &pb.CompactionRequest{}),
		"compaction, negative":             invoke("KV/Compact", &pb.CompactionRequest{Revision: -1}),
	}
	return out
}

func limitsOfTxn() map[string]sender {
	put := func(key string) *pb.RequestOp {
		return &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte(key)}}}
	}
	puts := func(n int) (ops []*pb.RequestOp) {
		for i := range n {
			ops = append(ops, put(fmt.Sprint("txn", i)))
		}
		return ops
	}
	compares := func(n int) (cs []*pb.Compare) {
		for range n {
			cs = append(cs, &pb.Compare{Key: []byte("a")})
		}
		return cs
	}
	inner := func(depth, n int) *pb.TxnRequest {
		r := &pb.TxnRequest{Success: puts(n)}
		for range depth {
			r = &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: r}}}}
		}
		return r
	}
	txn := func(r *pb.TxnRequest) sender { return invoke("KV/Txn", r) }
	del := &pb.RequestOp{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("t"), RangeEnd: []byte("u")}}}
	return map[string]sender{
		"txn of nothing":            txn(&pb.TxnRequest{}),
		"txn of 128":                txn(&pb.TxnRequest{Success: puts(128)}),
		"txn of 129":                txn(&pb.TxnRequest{Success: puts(129)}),
		"txn of 129 otherwise":      txn(&pb.TxnRequest{Failure: puts(129)}),
		"txn of 129 comparisons":    txn(&pb.TxnRequest{Compare: compares(129)}),
		"txn of 128 comparisons":    txn(&pb.TxnRequest{Compare: compares(128)}),
		"inner txn of 127":          txn(inner(1, 127)),
		"inner txn of 128":          txn(inner(1, 128)),
		"inner txns, 127 deep":      txn(inner(127, 1)),
		"inner txns, 128 deep":      txn(inner(128, 1)),
		"inner txns, 300 deep":      txn(inner(300, 1)),
		"txn with an empty op":      txn(&pb.TxnRequest{Failure: []*pb.RequestOp{{}}}),
		"txn without a key":         txn(&pb.TxnRequest{Success: []*pb.RequestOp{put("")}}),
		"comparison without a key":  txn(&pb.TxnRequest{Compare: []*pb.Compare{{}}}),
		"txn that puts twice":       txn(&pb.TxnRequest{Success: []*pb.RequestOp{put("a"), put("a")}}),
		"txn that puts what it del": txn(&pb.TxnRequest{Success: []*pb.RequestOp{put("ta"), del}}),
		"txn that puts in both":     txn(&pb.TxnRequest{Success: []*pb.RequestOp{put("a")}, Failure: []*pb.RequestOp{put("a")}}),
		"unknown comparison":        txn(&pb.TxnRequest{Compare: []*pb.Compare{{Key: []byte("a"), Result: 9, Target: 9}}}),
	}
}

func limitsOfStreams() map[string]sender {
	stream := func(r *pb.RangeRequest) sender {
		s := streamOf(r)
		return func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			all, err := s.send(ctx, pb.NewKVClient(c))
			if err != nil {
				return nil, err
			}
			return all[len(all)-1], nil
		}
	}
	watch := func(r *pb.WatchCreateRequest) sender {
		return first("Watch/Watch", &pb.WatchRequest{RequestUnion: &pb.WatchRequest_CreateRequest{CreateRequest: r}})
	}
	return map[string]sender{
		"stream without a key":       stream(&pb.RangeRequest{}),
		"stream of a sorted range":   stream(&pb.RangeRequest{Key: []byte("a"), SortOrder: pb.RangeRequest_DESCEND}),
		"stream sorted by value":     stream(&pb.RangeRequest{Key: []byte("a"), SortTarget: pb.RangeRequest_VALUE, SortOrder: pb.RangeRequest_ASCEND}),
		"stream of a filtered range": stream(&pb.RangeRequest{Key: []byte("a"), MinModRevision: 2}),
		"stream at the future":       stream(&pb.RangeRequest{Key: []byte("a"), Revision: 1 << 40}),
		"stream of what is not":      stream(&pb.RangeRequest{Key: []byte("none")}),
		"stream that counts":         stream(&pb.RangeRequest{Key: []byte("none"), CountOnly: true}),
		"watch of an empty range":    watch(&pb.WatchCreateRequest{Key: []byte("b"), RangeEnd: []byte("a")}),
		"watch from -1":              watch(&pb.WatchCreateRequest{Key: []byte("b"), StartRevision: -1}),
		"watch with a negative id":   watch(&pb.WatchCreateRequest{Key: []byte("b"), WatchId: -3}),
		"watch without a key":        watch(&pb.WatchCreateRequest{}),
		"keepalive of no lease":      first("Lease/LeaseKeepAlive", &pb.LeaseKeepAliveRequest{ID: 7}),
	}
}

func limitsOfAuth() map[string]sender {
	long := strings.Repeat("x", 73) // more than bcrypt takes
	return map[string]sender{
		"user without a name":             invoke("Auth/UserAdd", &pb.AuthUserAddRequest{Password: "p"}),
		"user with a long password":       invoke("Auth/UserAdd", &pb.AuthUserAddRequest{Name: "long", Password: long}),
		"user without password":           invoke("Auth/UserAdd", &pb.AuthUserAddRequest{Name: "u", Options: &authpb.UserAddOptions{NoPassword: true}}),
		"user with an empty password":     invoke("Auth/UserAdd", &pb.AuthUserAddRequest{Name: "empty"}),
		"role without a name":             invoke("Auth/RoleAdd", &pb.AuthRoleAddRequest{}),
		"no such user":                    invoke("Auth/UserGet", &pb.AuthUserGetRequest{Name: "none"}),
		"no such role":                    invoke("Auth/RoleGet", &pb.AuthRoleGetRequest{Role: "none"}),
		"delete no user":                  invoke("Auth/UserDelete", &pb.AuthUserDeleteRequest{Name: "none"}),
		"delete no role":                  invoke("Auth/RoleDelete", &pb.AuthRoleDeleteRequest{Role: "none"}),
		"password of no user":             invoke("Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: "none", Password: "p"}),
		"a role of no user":               invoke("Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: "none", Role: "root"}),
		"take a role from no user":        invoke("Auth/UserRevokeRole", &pb.AuthUserRevokeRoleRequest{Name: "none", Role: "root"}),
		"a right without a permission":    invoke("Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "none"}),
		"a right of no role":              invoke("Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: "none", Perm: &authpb.Permission{Key: []byte("a")}}),
		"take a right from no role":       invoke("Auth/RoleRevokePermission", &pb.AuthRoleRevokePermissionRequest{Role: "none"}),
		"login while there are no users":  invoke("Auth/Authenticate", &pb.AuthenticateRequest{Name: "a", Password: "b"}),
		"enable without root":             invoke("Auth/AuthEnable", &pb.AuthEnableRequest{}),
		"disable what is not enabled":     invoke("Auth/AuthDisable", &pb.AuthDisableRequest{}),
		"status of users":                 invoke("Auth/AuthStatus", &pb.AuthStatusRequest{}),
		"a token while there are none":    with(rpctypes.TokenFieldNameGRPC, "nonsense", invoke("KV/Range", &pb.RangeRequest{Key: []byte("none")})),
		"a client's version that is none": with(rpctypes.MetadataClientAPIVersionKey, "\xff", invoke("KV/Range", &pb.RangeRequest{Key: []byte("none")})),
		"a client that wants a leader":    with(rpctypes.MetadataRequireLeaderKey, rpctypes.MetadataHasLeader, invoke("KV/Range", &pb.RangeRequest{Key: []byte("none")})),
	}
}

func limitsOfOthers() map[string]sender {
	return map[string]sender{
		"lease of 0 s":           invoke("Lease/LeaseGrant", &pb.LeaseGrantRequest{ID: 31}),
		"lease too long":         invoke("Lease/LeaseGrant", &pb.LeaseGrantRequest{ID: 32, TTL: 9_000_000_001}),
		"the same lease":         invoke("Lease/LeaseGrant", &pb.LeaseGrantRequest{ID: leaseID, TTL: 10}),
		"revoke no lease":        invoke("Lease/LeaseRevoke", &pb.LeaseRevokeRequest{ID: 7}),
		"time of no lease":       invoke("Lease/LeaseTimeToLive", &pb.LeaseTimeToLiveRequest{ID: 7}),
		"hash of the future":     invoke("Maintenance/HashKV", &pb.HashKVRequest{Revision: 1 << 40}),
		"hash at -1":             invoke("Maintenance/HashKV", &pb.HashKVRequest{Revision: -1}),
		"downgrade to nothing":   invoke("Maintenance/Downgrade", &pb.DowngradeRequest{}),
		"downgrade to itself":    invoke("Maintenance/Downgrade", &pb.DowngradeRequest{Version: "3.7.0"}),
		"unknown downgrade":      invoke("Maintenance/Downgrade", &pb.DowngradeRequest{Action: 7}),
		"alarms that are none":   invoke("Maintenance/Alarm", &pb.AlarmRequest{Alarm: 9}),
		"a method that is none":  invoke("KV/Nothing", &pb.RangeRequest{}),
		"a service that is none": invoke("Nothing/Range", &pb.RangeRequest{}),
		"a list of leases":       invoke("Lease/LeaseLeases", &pb.LeaseLeasesRequest{}),
		"another message than is": func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			resp := &pb.PutResponse{}
			// Field 1 is a key, but here it is a number.
			return resp, c.Invoke(ctx, "/etcdserverpb.KV/Put", &pb.LeaseRevokeRequest{ID: 5}, resp)
		},
	}
}
