package worker

import (
	"context"
	"fmt"
	"net"
	"os"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/tree"
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
	s := grpc.NewServer(append(wire.GuardServer(), grpc.Creds(peerCredentials{}))...)
	wire.RegisterAdminServer(s, &admin{m: m})
	go func() { _ = s.Serve(l) }()
	return nil
}

// Tree describes the processes of the cluster.
func (a *admin) Tree(context.Context, *wire.TreeRequest) (*wire.TreeResponse, error) {
	var v core.View
	if !a.m.ask(func() { v = a.m.core.View(a.m.now()) }) {
		return nil, status.Error(codes.Unavailable, "the leader is ending")
	}
	b, err := tree.FromView(v, a.m.address).Encode()
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode the tree: %v", err)
	}
	return &wire.TreeResponse{Json: b}, nil
}

// Stop begins an orderly end of the whole cluster and returns who has to go.
func (a *admin) Stop(ctx context.Context, _ *wire.StopRequest) (*wire.StopResponse, error) {
	p, _ := peer.FromContext(ctx)
	caller, ok := p.AuthInfo.(callerInfo)
	if !ok || (caller.uid != os.Getuid() && caller.uid != 0) {
		return nil, status.Errorf(codes.PermissionDenied, "only the user who runs the cluster (uid %d) and root may stop it", os.Getuid())
	}
	resp := &wire.StopResponse{}
	for _, m := range a.m.roster().Members {
		resp.Members = append(resp.Members, wire.FromMember(m))
	}
	a.m.post(core.StopRequested{Reason: fmt.Sprintf("stopped by a command of pid %d", caller.pid)})
	return resp, nil
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
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("admin: %T is no Unix socket", c)
	}
	pid, uid, err := proc.PeerUID(u)
	if err != nil {
		return nil, nil, fmt.Errorf("admin: %w", err)
	}
	return c, callerInfo{CommonAuthInfo: credentials.CommonAuthInfo{SecurityLevel: credentials.NoSecurity}, pid: pid, uid: uid}, nil
}

func (peerCredentials) ClientHandshake(_ context.Context, _ string, c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	return c, callerInfo{}, nil
}

func (peerCredentials) Info() credentials.ProtocolInfo {
	return credentials.ProtocolInfo{SecurityProtocol: "peercred"}
}

func (p peerCredentials) Clone() credentials.TransportCredentials { return p }
func (peerCredentials) OverrideServerName(string) error           { return nil }
