package worker

import (
	"context"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/gate"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/wire"
)

// admin answers the commands of operators, on a Unix socket in the data
// directory: who may enter the directory may look; who owns the cluster may
// change it.
type admin struct {
	wire.UnimplementedAdminServer
	m *Member
}

func (m *Member) serveAdmin() error {
	l, err := m.dir.ListenAdmin()
	if err != nil {
		return err
	}
	s := grpc.NewServer(append(wire.GuardServer(), grpc.Creds(gate.Credentials(peerCredentials{})),
		grpc.ConnectionTimeout(strangerPatience), grpc.MaxConcurrentStreams(maxMemberStreams),
		grpc.MaxHeaderListSize(maxMemberHeaderBytes), grpc.MaxRecvMsgSize(maxAdminRequest),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: adminIdle}))...)
	wire.RegisterAdminServer(s, &admin{m: m})
	m.adminServer.Store(s)
	go func() { _ = s.Serve(newDoor(l, m.logger)) }()
	return nil
}

// Tree describes the processes of the cluster.
func (a *admin) Tree(context.Context, *wire.TreeRequest) (*wire.TreeResponse, error) {
	t, err := a.m.look()
	if err != nil {
		return nil, err
	}
	b, err := t.Encode()
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode the tree: %v", err)
	}
	return &wire.TreeResponse{Json: b}, nil
}

// owner refuses who may look and not change anything.
func (a *admin) owner(ctx context.Context) (callerInfo, error) {
	p, _ := peer.FromContext(ctx)
	caller, ok := p.AuthInfo.(callerInfo)
	if !ok || (caller.uid != os.Getuid() && caller.uid != 0) {
		return caller, status.Errorf(codes.PermissionDenied, "only the user who runs the cluster (uid %d) and root may do that", os.Getuid())
	}
	return caller, nil
}

// Stop begins an orderly end of the whole cluster and returns who has to go.
func (a *admin) Stop(ctx context.Context, _ *wire.StopRequest) (*wire.StopResponse, error) {
	caller, err := a.owner(ctx)
	if err != nil {
		return nil, err
	}
	resp := &wire.StopResponse{}
	for _, m := range a.m.roster().Members {
		resp.Members = append(resp.Members, wire.FromMember(m))
	}
	a.m.post(core.StopRequested{Reason: fmt.Sprintf("stopped by a command of pid %d", caller.pid)})
	return resp, nil
}

// Promote hands the leadership over.
func (a *admin) Promote(ctx context.Context, r *wire.PromoteRequest) (*wire.PromoteResponse, error) {
	caller, err := a.owner(ctx)
	if err != nil {
		return nil, err
	}
	var to roster.Address
	if r.Address != "" {
		if to, err = roster.ParseAddress(r.Address); err != nil {
			return nil, status.Error(codes.InvalidArgument, err.Error())
		}
	}
	answer, err := a.m.request(ctx, func(ref chan core.Answer) core.Event {
		return core.HandoverRequested{To: to, Reason: fmt.Sprintf("asked by a command of pid %d", caller.pid), Ref: ref}
	})
	if err != nil {
		return nil, err
	}
	return &wire.PromoteResponse{Address: answer.Member.Address.String(), Leader: wire.FromMember(a.m.selfMember())}, nil
}

// Scale changes how many followers are kept.
func (a *admin) Scale(ctx context.Context, r *wire.ScaleRequest) (*wire.ScaleResponse, error) {
	if _, err := a.owner(ctx); err != nil {
		return nil, err
	}
	answer, err := a.m.request(ctx, func(ref chan core.Answer) core.Event {
		return core.ScaleRequested{Followers: int(r.Followers), Relative: r.Relative, Ref: ref}
	})
	if err != nil {
		return nil, err
	}
	return &wire.ScaleResponse{Before: uint32(answer.Before), Followers: uint32(answer.Followers)}, nil
}

// Remove retires a member.
func (a *admin) Remove(ctx context.Context, r *wire.RemoveRequest) (*wire.RemoveResponse, error) {
	if _, err := a.owner(ctx); err != nil {
		return nil, err
	}
	address, err := roster.ParseAddress(r.Address)
	if err != nil {
		return nil, status.Error(codes.InvalidArgument, err.Error())
	}
	member, ok := a.m.roster().Find(address)
	if !ok {
		return nil, status.Errorf(codes.NotFound, "there is no member %s", address)
	}
	_, err = a.m.request(ctx, func(ref chan core.Answer) core.Event {
		return core.RemoveRequested{Address: address, Ref: ref}
	})
	if err != nil {
		return nil, err
	}
	return &wire.RemoveResponse{Member: wire.FromMember(member)}, nil
}

// Reload reads the configuration again.
func (a *admin) Reload(ctx context.Context, _ *wire.ReloadRequest) (*wire.ReloadResponse, error) {
	caller, err := a.owner(ctx)
	if err != nil {
		return nil, err
	}
	return a.m.reload(ctx, fmt.Sprintf("a command of pid %d", caller.pid))
}

// Upgrade replaces all processes by another build. Who asks may go: it goes on.
func (a *admin) Upgrade(ctx context.Context, r *wire.UpgradeRequest) (*wire.UpgradeResponse, error) {
	if _, err := a.owner(ctx); err != nil {
		return nil, err
	}
	b, err := findBuild(ctx, r.Binary)
	if err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "nothing is changed: %v", err)
	}
	answer, err := a.m.request(ctx, func(ref chan core.Answer) core.Event {
		return core.UpgradeRequested{Build: b.path, Patience: upgradePatience, Ref: ref}
	})
	if err != nil {
		return nil, err
	}
	return &wire.UpgradeResponse{Binary: b.path, Before: a.m.opts.Version, After: b.version,
		Successor: answer.Member.Address.String(), Leader: wire.FromMember(a.m.selfMember())}, nil
}

// callerInfo is who the kernel says is at the other end of a Unix socket.
type callerInfo struct {
	credentials.CommonAuthInfo
	pid, uid int
}

func (callerInfo) AuthType() string { return "peercred" }

// peerCredentials takes the caller's identity from the socket.
type peerCredentials struct{}

func (peerCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	whole := c // it keeps the count
	if admitted, ok := c.(*gate.Conn); ok {
		c = admitted.Conn
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("admin: %T is no Unix socket", c)
	}
	pid, uid, err := proc.PeerUID(u)
	if err != nil {
		return nil, nil, fmt.Errorf("admin: %w", err)
	}
	return whole, callerInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, pid: pid, uid: uid}, nil
}

func (peerCredentials) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, callerInfo{}, nil
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}

func (p peerCredentials) Clone() credentials.TransportCredentials { return p }
func (peerCredentials) OverrideServerName(string) error           { return nil }
