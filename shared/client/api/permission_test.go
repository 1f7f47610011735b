package api

import (
	"context"
	"fmt"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/metadata"
	"google.golang.org/grpc/status"
)

// must proposes without a user, which is allowed until authentication is enabled.
func (s *server) must(t *testing.T, r *pb.InternalRaftRequest) {
	t.Helper()
	if res, err := s.proposer.Propose(t.Context(), r); err != nil || res.Err != nil {
		t.Fatal(err, res)
	}
}

// login returns a context with a user's token.
func (s *server) login(t *testing.T, user string) context.Context {
	t.Helper()
	prefix, err := s.store.Auth().GenTokenPrefix()
	if err != nil {
		t.Fatal(err)
	}
	res, err := s.proposer.Propose(t.Context(), &pb.InternalRaftRequest{Authenticate: &pb.InternalAuthenticateRequest{Name: user, SimpleToken: prefix}})
	if err != nil || res.Err != nil {
		t.Fatal(err, res)
	}
	return withToken(t, res.Resp.(*pb.AuthenticateResponse).Token)
}

func withToken(t *testing.T, token string) context.Context {
	return metadata.AppendToOutgoingContext(t.Context(), rpctypes.TokenFieldNameGRPC, token)
}

// withUsers enables authentication with two users: root, and reader, who may read and write
// keys with the prefix "r/".
func withUsers(t *testing.T) *server {
	t.Helper()
	s := serve(t, nil)
	s.must(t, &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte("secret"), Value: []byte("x")}})
	for _, user := range []string{"root", "reader"} {
		s.must(t, &pb.InternalRaftRequest{AuthUserAdd: &pb.AuthUserAddRequest{Name: user, HashedPassword: "eA=="}})
		s.must(t, &pb.InternalRaftRequest{AuthRoleAdd: &pb.AuthRoleAddRequest{Name: user}})
		s.must(t, &pb.InternalRaftRequest{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: user, Role: user}})
	}
	s.must(t, &pb.InternalRaftRequest{AuthRoleGrantPermission: &pb.AuthRoleGrantPermissionRequest{Name: "reader",
		Perm: &authpb.Permission{PermType: authpb.Permission_READWRITE, Key: []byte("r/"), RangeEnd: []byte("r0")}}})
	s.must(t, &pb.InternalRaftRequest{AuthEnable: &pb.AuthEnableRequest{}})
	return s
}

func TestPermissions(t *testing.T) {
	s := withUsers(t)
	conn := dial(t, s.address)
	kv, members := pb.NewKVClient(conn), pb.NewClusterClient(conn)
	nobody, reader, root := t.Context(), s.login(t, "reader"), s.login(t, "root")
	forged := metadata.AppendToOutgoingContext(t.Context(), rpctypes.TokenFieldNameGRPC, "forged.1")
	secret, own := []byte("secret"), []byte("r/1")
	for _, c := range []struct {
		name string
		who  context.Context
		key  []byte
		want error
	}{
		{"nobody", nobody, own, rpctypes.ErrGRPCUserEmpty},
		{"forged", forged, own, rpctypes.ErrGRPCInvalidAuthToken},
		{"reader's own", reader, own, nil},
		{"reader's not", reader, secret, rpctypes.ErrGRPCPermissionDenied},
		{"root", root, secret, nil},
	} {
		put := &pb.PutRequest{Key: c.key, Value: []byte("1")}
		get := &pb.RangeRequest{Key: c.key}
		errs := map[string]error{}
		_, errs["put"] = kv.Put(c.who, put)
		_, errs["range"] = kv.Range(c.who, get)
		_, errs["delete"] = kv.DeleteRange(c.who, &pb.DeleteRangeRequest{Key: c.key})
		_, errs["txn"] = kv.Txn(c.who, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: put}}}})
		_, errs["read-only txn"] = kv.Txn(c.who, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: get}}}})
		stream, err := kv.RangeStream(c.who, get)
		if err == nil {
			_, err = stream.Recv()
		}
		errs["stream"] = err
		for op, err := range errs {
			if status.Convert(err).Message() != status.Convert(c.want).Message() || status.Code(err) != status.Code(c.want) {
				t.Errorf("%s: %s: got %v, want %v", c.name, op, err, c.want)
			}
		}
	}
	compact := &pb.CompactionRequest{Revision: 2}
	if _, err := kv.Compact(reader, compact); status.Convert(err).Message() != status.Convert(rpctypes.ErrGRPCPermissionDenied).Message() {
		t.Errorf("reader compacts: %v", err)
	}
	if _, err := kv.Compact(root, compact); err != nil {
		t.Errorf("root compacts: %v", err)
	}
	if _, err := members.MemberList(nobody, &pb.MemberListRequest{}); err == nil {
		t.Error("nobody lists the members")
	}
	if _, err := members.MemberList(reader, &pb.MemberListRequest{}); err != nil {
		t.Error(err)
	}
}

// A token is valid in every store that applied the login, under any later leader.
func TestTokenIsReplicated(t *testing.T) {
	a, b := serve(t, nil), serve(t, nil)
	both := func(r *pb.InternalRaftRequest) {
		a.must(t, r)
		b.must(t, r)
	}
	both(&pb.InternalRaftRequest{AuthUserAdd: &pb.AuthUserAddRequest{Name: "root", HashedPassword: "eA=="}})
	both(&pb.InternalRaftRequest{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}})
	both(&pb.InternalRaftRequest{AuthEnable: &pb.AuthEnableRequest{}})
	both(&pb.InternalRaftRequest{Authenticate: &pb.InternalAuthenticateRequest{Name: "root", SimpleToken: "prefix"}})
	token := metadata.AppendToOutgoingContext(t.Context(), rpctypes.TokenFieldNameGRPC, fmt.Sprint("prefix.", a.store.Applied().Index-1))
	for _, s := range []*server{a, b} {
		if _, err := pb.NewKVClient(dial(t, s.address)).Put(token, &pb.PutRequest{Key: []byte("a")}); err != nil {
			t.Error(err)
		}
	}
}
