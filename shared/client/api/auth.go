package api

import (
	"context"
	"encoding/base64"
	"runtime"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"golang.org/x/crypto/bcrypt"
	"google.golang.org/grpc"
	"google.golang.org/protobuf/proto"
)

// authServer is the service Auth. The store has the users and roles. Permissions are checked
// where requests are applied. Passwords do not leave this process: only their hashes are
// replicated.
type authServer struct {
	*API
	pb.UnsafeAuthServer
	// hashing bounds how many passwords are hashed or compared at a time. Each takes a
	// processor for tens of milliseconds. Other requests and the members' heartbeats must not
	// wait for them.
	hashing chan struct{}
}

func newAuthServer(a *API) *authServer {
	return &authServer{API: a, hashing: make(chan struct{}, max(1, runtime.GOMAXPROCS(0)/2))}
}

func (s *authServer) register(g *grpc.Server) { pb.RegisterAuthServer(g, s) }

// run tells all members which tokens are in use.
func (s *authServer) run(ctx context.Context) {
	tick := time.NewTicker(s.store.TouchInterval())
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		r := s.store.Touch()
		if r == nil {
			continue
		}
		r.Header = &pb.RequestHeader{ID: s.ids.Next()}
		if _, err := s.proposer.Propose(ctx, r); err != nil {
			s.logger.Debug("could not record the use of tokens", "error", err)
		}
	}
}

// answer is the interface of all responses of this service.
type answer interface {
	proto.Message
	GetHeader() *pb.ResponseHeader
}

// replicated replicates a request of this service, even if it only reads. Permissions are
// checked where requests are applied, and users are rarely read.
func replicated[R answer](ctx context.Context, s *authServer, r *pb.InternalRaftRequest) (R, error) {
	var none R
	res, err := s.propose(ctx, r)
	if err != nil {
		return none, toStatus(err)
	}
	resp := res.Resp.(R)
	if h := resp.GetHeader(); h != nil {
		s.fill(h)
	}
	return resp, nil
}

// hash returns the form in which a password is stored.
func (s *authServer) hash(ctx context.Context, password string) (string, error) {
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
	case <-ctx.Done():
		return "", ctx.Err()
	}
	hashed, err := bcrypt.GenerateFromPassword([]byte(password), s.store.Auth().BcryptCost())
	return base64.StdEncoding.EncodeToString(hashed), err
}

func (s *authServer) checkPassword(ctx context.Context, r *pb.AuthenticateRequest) (revision uint64, err error) {
	select {
	case s.hashing <- struct{}{}:
		defer func() { <-s.hashing }()
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	return s.store.Auth().CheckPassword(r.Name, r.Password)
}

// Authenticate logs a user in. It compares the password before it replicates the login, and
// again if the users changed meanwhile.
func (s *authServer) Authenticate(ctx context.Context, r *pb.AuthenticateRequest) (*pb.AuthenticateResponse, error) {
	for {
		revision, err := s.checkPassword(ctx, r)
		if err != nil {
			return nil, toStatus(err)
		}
		prefix, err := s.store.Auth().GenTokenPrefix()
		if err != nil {
			return nil, toStatus(err)
		}
		resp, err := replicated[*pb.AuthenticateResponse](ctx, s, &pb.InternalRaftRequest{
			Authenticate: &pb.InternalAuthenticateRequest{Name: r.Name, SimpleToken: prefix},
		})
		if err != nil || revision == s.store.Auth().Revision() {
			return resp, err
		}
	}
}

func (s *authServer) UserAdd(ctx context.Context, r *pb.AuthUserAddRequest) (*pb.AuthUserAddResponse, error) {
	if r.Options == nil || !r.Options.NoPassword {
		hashed, err := s.hash(ctx, r.Password)
		if err != nil {
			return nil, toStatus(err)
		}
		r.HashedPassword = hashed
	}
	r.Password = ""
	return replicated[*pb.AuthUserAddResponse](ctx, s, &pb.InternalRaftRequest{AuthUserAdd: r})
}

func (s *authServer) UserChangePassword(ctx context.Context, r *pb.AuthUserChangePasswordRequest) (*pb.AuthUserChangePasswordResponse, error) {
	if r.Password != "" {
		hashed, err := s.hash(ctx, r.Password)
		if err != nil {
			return nil, toStatus(err)
		}
		r.HashedPassword, r.Password = hashed, ""
	}
	return replicated[*pb.AuthUserChangePasswordResponse](ctx, s, &pb.InternalRaftRequest{AuthUserChangePassword: r})
}

func (s *authServer) AuthEnable(ctx context.Context, r *pb.AuthEnableRequest) (*pb.AuthEnableResponse, error) {
	return replicated[*pb.AuthEnableResponse](ctx, s, &pb.InternalRaftRequest{AuthEnable: r})
}

func (s *authServer) AuthDisable(ctx context.Context, r *pb.AuthDisableRequest) (*pb.AuthDisableResponse, error) {
	return replicated[*pb.AuthDisableResponse](ctx, s, &pb.InternalRaftRequest{AuthDisable: r})
}

func (s *authServer) AuthStatus(ctx context.Context, r *pb.AuthStatusRequest) (*pb.AuthStatusResponse, error) {
	return replicated[*pb.AuthStatusResponse](ctx, s, &pb.InternalRaftRequest{AuthStatus: r})
}

func (s *authServer) UserGet(ctx context.Context, r *pb.AuthUserGetRequest) (*pb.AuthUserGetResponse, error) {
	return replicated[*pb.AuthUserGetResponse](ctx, s, &pb.InternalRaftRequest{AuthUserGet: r})
}

func (s *authServer) UserList(ctx context.Context, r *pb.AuthUserListRequest) (*pb.AuthUserListResponse, error) {
	return replicated[*pb.AuthUserListResponse](ctx, s, &pb.InternalRaftRequest{AuthUserList: r})
}

func (s *authServer) UserDelete(ctx context.Context, r *pb.AuthUserDeleteRequest) (*pb.AuthUserDeleteResponse, error) {
	return replicated[*pb.AuthUserDeleteResponse](ctx, s, &pb.InternalRaftRequest{AuthUserDelete: r})
}

func (s *authServer) UserGrantRole(ctx context.Context, r *pb.AuthUserGrantRoleRequest) (*pb.AuthUserGrantRoleResponse, error) {
	return replicated[*pb.AuthUserGrantRoleResponse](ctx, s, &pb.InternalRaftRequest{AuthUserGrantRole: r})
}

func (s *authServer) UserRevokeRole(ctx context.Context, r *pb.AuthUserRevokeRoleRequest) (*pb.AuthUserRevokeRoleResponse, error) {
	return replicated[*pb.AuthUserRevokeRoleResponse](ctx, s, &pb.InternalRaftRequest{AuthUserRevokeRole: r})
}

func (s *authServer) RoleAdd(ctx context.Context, r *pb.AuthRoleAddRequest) (*pb.AuthRoleAddResponse, error) {
	return replicated[*pb.AuthRoleAddResponse](ctx, s, &pb.InternalRaftRequest{AuthRoleAdd: r})
}

func (s *authServer) RoleGet(ctx context.Context, r *pb.AuthRoleGetRequest) (*pb.AuthRoleGetResponse, error) {
	return replicated[*pb.AuthRoleGetResponse](ctx, s, &pb.InternalRaftRequest{AuthRoleGet: r})
}

func (s *authServer) RoleList(ctx context.Context, r *pb.AuthRoleListRequest) (*pb.AuthRoleListResponse, error) {
	return replicated[*pb.AuthRoleListResponse](ctx, s, &pb.InternalRaftRequest{AuthRoleList: r})
}

func (s *authServer) RoleDelete(ctx context.Context, r *pb.AuthRoleDeleteRequest) (*pb.AuthRoleDeleteResponse, error) {
	return replicated[*pb.AuthRoleDeleteResponse](ctx, s, &pb.InternalRaftRequest{AuthRoleDelete: r})
}

func (s *authServer) RoleGrantPermission(ctx context.Context, r *pb.AuthRoleGrantPermissionRequest) (*pb.AuthRoleGrantPermissionResponse, error) {
	return replicated[*pb.AuthRoleGrantPermissionResponse](ctx, s, &pb.InternalRaftRequest{AuthRoleGrantPermission: r})
}

func (s *authServer) RoleRevokePermission(ctx context.Context, r *pb.AuthRoleRevokePermissionRequest) (*pb.AuthRoleRevokePermissionResponse, error) {
	return replicated[*pb.AuthRoleRevokePermissionResponse](ctx, s, &pb.InternalRaftRequest{AuthRoleRevokePermission: r})
}
