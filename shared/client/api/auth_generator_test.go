package api

import (
	"fmt"
	"math/rand/v2"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/reflect/protoregistry"
)

// authGenerator makes requests over so few names that most of them concern something that
// exists.
type authGenerator struct{ *rand.Rand }

func (g *authGenerator) one(of ...string) string { return of[g.IntN(len(of))] }
func (g *authGenerator) user() string            { return g.one("root", "u1", "u1", "u2", "u3", "") }
func (g *authGenerator) role() string            { return g.one("root", "r1", "r1", "r2", "r3", "") }
func (g *authGenerator) key() []byte             { return []byte(g.one("a", "b", "c")) }
func (g *authGenerator) end() []byte             { return []byte(g.one("", "", "b", "c", "d", "\x00")) }

// The caller is mostly root, because otherwise nothing would ever be created.
func (g *authGenerator) who() string { return g.one("root", "root", "root", "u1", "u1", "") }

func (g *authGenerator) perm() *authpb.Permission {
	if g.IntN(20) == 0 {
		return nil
	}
	return &authpb.Permission{PermType: authpb.Permission_Type(g.IntN(3)), Key: g.key(), RangeEnd: g.end()}
}

func (g *authGenerator) request() (string, proto.Message) {
	if g.IntN(3) == 0 {
		return g.onKeys()
	}
	switch g.IntN(20) {
	case 0, 1:
		return "Auth/RoleAdd", &pb.AuthRoleAddRequest{Name: g.role()}
	case 2:
		return "Auth/RoleDelete", &pb.AuthRoleDeleteRequest{Role: g.role()}
	case 3:
		return "Auth/RoleGet", &pb.AuthRoleGetRequest{Role: g.role()}
	case 4:
		return "Auth/RoleList", &pb.AuthRoleListRequest{}
	case 5, 6, 7, 8:
		return "Auth/RoleGrantPermission", &pb.AuthRoleGrantPermissionRequest{Name: g.role(), Perm: g.perm()}
	case 9:
		return "Auth/RoleRevokePermission", &pb.AuthRoleRevokePermissionRequest{Role: g.role(), Key: g.key(), RangeEnd: g.end()}
	case 10:
		return "Auth/UserAdd", &pb.AuthUserAddRequest{Name: g.user(), Options: &authpb.UserAddOptions{NoPassword: true}}
	case 11:
		return "Auth/UserDelete", &pb.AuthUserDeleteRequest{Name: g.one("root", "u2", "u3", "")}
	case 12:
		return "Auth/UserGet", &pb.AuthUserGetRequest{Name: g.user()}
	case 13:
		return "Auth/UserList", &pb.AuthUserListRequest{}
	case 14, 15, 16:
		return "Auth/UserGrantRole", &pb.AuthUserGrantRoleRequest{User: g.user(), Role: g.role()}
	case 17:
		return "Auth/UserRevokeRole", &pb.AuthUserRevokeRoleRequest{Name: g.user(), Role: g.role()}
	case 18:
		return "Auth/AuthStatus", &pb.AuthStatusRequest{}
	}
	return g.rare()
}

func (g *authGenerator) rare() (string, proto.Message) {
	switch g.IntN(5) {
	case 0:
		return "Auth/AuthDisable", &pb.AuthDisableRequest{}
	case 1, 2:
		return "Auth/AuthEnable", &pb.AuthEnableRequest{}
	case 3:
		return "Auth/UserChangePassword", &pb.AuthUserChangePasswordRequest{Name: g.one("u1", "none"), Password: "p"}
	}
	return "Auth/UserAdd", &pb.AuthUserAddRequest{Name: g.user(), Password: "p"}
}

func (g *authGenerator) onKeys() (string, proto.Message) {
	switch g.IntN(8) {
	case 0, 1:
		return "KV/Range", &pb.RangeRequest{Key: g.key(), RangeEnd: g.end()}
	case 2, 3:
		return "KV/Put", &pb.PutRequest{Key: g.key(), PrevKv: g.IntN(2) == 0}
	case 4:
		return "KV/DeleteRange", &pb.DeleteRangeRequest{Key: g.key(), RangeEnd: g.end(), PrevKv: g.IntN(2) == 0}
	case 5:
		put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: g.key()}}}
		get := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: g.key()}}}
		return "KV/Txn", &pb.TxnRequest{
			Compare: []*pb.Compare{{Key: g.key(), Target: pb.Compare_CREATE, TargetUnion: &pb.Compare_CreateRevision{}}},
			Success: []*pb.RequestOp{put}, Failure: []*pb.RequestOp{get},
		}
	case 6:
		return "Maintenance/Alarm", &pb.AlarmRequest{Action: pb.AlarmRequest_AlarmAction(g.IntN(3)), MemberID: 7, Alarm: pb.AlarmType_NONE}
	}
	return "Maintenance/HashKV", &pb.HashKVRequest{Revision: int64(g.IntN(4))}
}

func newMessage(name protoreflect.FullName) proto.Message {
	t, err := protoregistry.GlobalTypes.FindMessageByName(name)
	if err != nil {
		panic(fmt.Errorf("%s: %w", name, err))
	}
	return t.New().Interface()
}
