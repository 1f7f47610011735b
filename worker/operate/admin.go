package operate

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strings"
	"sync/atomic"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/peer"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/client/gate"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state"
)

// admin answers operators' commands on a Unix socket in the data directory. Users who may enter
// the directory may look. Only the user who runs the cluster, and root, may change it.
type admin struct {
	wire.UnimplementedAdminServer
	o *Operators
}

func (o *Operators) serveAdmin() error {
	l, err := o.Dir.ListenAdmin()
	if err != nil {
		return err
	}
	s := &adminServer{}
	s.Server = grpc.NewServer(grpc.ChainUnaryInterceptor(s.counted), grpc.Creds(gate.Credentials(peerCredentials{})),
		grpc.ConnectionTimeout(strangerPatience), grpc.MaxConcurrentStreams(maxCommandStreams),
		grpc.MaxHeaderListSize(maxCommandHeaderBytes), grpc.MaxRecvMsgSize(maxAdminRequest),
		grpc.KeepaliveParams(keepalive.ServerParameters{MaxConnectionIdle: adminIdle}))
	wire.RegisterAdminServer(s, &admin{o: o})
	o.adminServer.Store(s)
	go func() { _ = s.Serve(newAdminListener(l, o.shares, o.Log)) }()
	return nil
}

// adminServer counts the commands that are waiting for an answer.
type adminServer struct {
	*grpc.Server
	inFlight atomic.Int64
}

func (s *adminServer) counted(ctx context.Context, req any, _ *grpc.UnaryServerInfo, handler grpc.UnaryHandler) (any, error) {
	s.inFlight.Add(1)
	defer s.inFlight.Add(-1)
	return handler(ctx, req)
}

// flush lets answers reach their commands before the process exits. Otherwise those commands
// would ask the next leader. flush does not wait for a suspended command that asks nothing: it
// holds a connection, and no other member can lead before this process has exited.
func (s *adminServer) flush(most time.Duration) {
	done := make(chan struct{})
	go func() { s.GracefulStop(); close(done) }()
	ctx, cancel := context.WithTimeout(context.Background(), most)
	defer cancel()
	idle, enough := state.Quiet(ctx, flushLinger, s.inFlight.Load)
	defer enough()
	select {
	case <-done:
	case <-idle.Done():
	}
}

// Tree describes the processes of the cluster.
func (a *admin) Tree(context.Context, *wire.TreeRequest) (*wire.TreeResponse, error) {
	t, err := a.o.tree()
	if err != nil {
		return nil, err
	}
	b, err := t.Encode()
	if err != nil {
		return nil, status.Errorf(codes.Internal, "encode the tree: %v", err)
	}
	return &wire.TreeResponse{Json: b}, nil
}

// owner refuses a caller who may look but not change anything.
func (a *admin) owner(ctx context.Context) (callerInfo, error) {
	p, _ := peer.FromContext(ctx)
	caller, ok := p.AuthInfo.(callerInfo)
	if !ok || (caller.uid != os.Getuid() && caller.uid != 0) {
		return caller, status.Errorf(codes.PermissionDenied, "only the user who runs the cluster (uid %d) and root may do that", os.Getuid())
	}
	return caller, nil
}

// Stop starts an orderly stop of the whole cluster and returns the members that will exit.
func (a *admin) Stop(ctx context.Context, r *wire.StopRequest) (*wire.StopResponse, error) {
	caller, err := a.owner(ctx)
	if err != nil {
		return nil, err
	}
	resp := &wire.StopResponse{}
	for _, m := range a.o.Roster().Members {
		resp.Members = append(resp.Members, wire.FromMember(m))
	}
	a.o.stop(fmt.Sprintf("stopped by a command of pid %d", caller.pid), r.KeepServices)
	return resp, nil
}

// Promote hands over the leadership.
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
	answer, err := a.o.Request(ctx, func(ref chan core.Answer) core.Event {
		return core.HandoverRequested{To: to, Reason: fmt.Sprintf("asked by a command of pid %d", caller.pid), Ref: ref}
	})
	if err != nil {
		return nil, err
	}
	return &wire.PromoteResponse{Address: answer.Member.Address.String(), Leader: wire.FromMember(a.o.describe())}, nil
}

// Scale changes the number of followers.
func (a *admin) Scale(ctx context.Context, r *wire.ScaleRequest) (*wire.ScaleResponse, error) {
	if _, err := a.owner(ctx); err != nil {
		return nil, err
	}
	answer, err := a.o.files.Scale(ctx, int(r.Followers), r.Relative)
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
	member, ok := a.o.Roster().Find(address)
	if !ok {
		return nil, status.Errorf(codes.NotFound, "there is no member %s", address)
	}
	_, err = a.o.Request(ctx, func(ref chan core.Answer) core.Event {
		return core.RemoveRequested{Address: address, Ref: ref}
	})
	if err != nil {
		return nil, err
	}
	return &wire.RemoveResponse{Member: wire.FromMember(member)}, nil
}

// Reload reads the configuration again.
func (a *admin) Reload(ctx context.Context, r *wire.ReloadRequest) (*wire.ReloadResponse, error) {
	caller, err := a.owner(ctx)
	if err != nil {
		return nil, err
	}
	return a.o.reload(ctx, fmt.Sprintf("a command of pid %d", caller.pid), r.DryRun)
}

// Upgrade replaces all processes with another build. It continues if the caller disconnects.
func (a *admin) Upgrade(ctx context.Context, r *wire.UpgradeRequest) (*wire.UpgradeResponse, error) {
	if _, err := a.owner(ctx); err != nil {
		return nil, err
	}
	b, err := findBuild(ctx, r.Binary)
	if err != nil {
		return nil, status.Errorf(codes.FailedPrecondition, "nothing was changed: %v", err)
	}
	answer, err := a.o.Request(ctx, func(ref chan core.Answer) core.Event {
		return core.UpgradeRequested{Build: b.path, Patience: upgradePatience, Ref: ref}
	})
	if err != nil {
		return nil, err
	}
	return &wire.UpgradeResponse{Binary: b.path, Before: a.o.Self.Version, After: b.version,
		Successor: answer.Member.Address.String(), Leader: wire.FromMember(a.o.describe())}, nil
}

// Services describes the user's services.
func (a *admin) Services(ctx context.Context, _ *wire.ServicesRequest) (*wire.ServicesResponse, error) {
	b, err := a.o.describeServices(ctx)
	if err != nil {
		return nil, err
	}
	return &wire.ServicesResponse{Json: b}, nil
}

// describeServices returns a ps.Report as JSON. Its errors are answers to a command.
func (o *Operators) describeServices(ctx context.Context) ([]byte, error) {
	services, err := o.services(false)
	if err != nil {
		return nil, refusal(err)
	}
	if services == nil {
		return (&ps.Report{Schema: ps.Schema, At: time.Now(), Services: []ps.Service{}}).Encode()
	}
	b, err := services.Report(ctx)
	if err != nil {
		return nil, status.Error(codes.Unavailable, err.Error())
	}
	return b, nil
}

// Act carries out a command about services.
func (a *admin) Act(ctx context.Context, r *wire.ActRequest) (*wire.ActResponse, error) {
	if _, err := a.owner(ctx); err != nil {
		return nil, err
	}
	c := member.ServiceCommand{Action: member.Action(r.Action), Names: r.Names, Rolling: r.Rolling, Signal: r.Signal, RemoveWhenDone: r.RemoveWhenDone}
	if len(r.Service) > 0 {
		if err := json.Unmarshal(r.Service, &c.Service); err != nil {
			return nil, status.Errorf(codes.InvalidArgument, "the service to add: %v", err)
		}
	}
	services, err := a.o.services(true)
	if err != nil {
		return nil, refusal(err)
	}
	ids, err := services.Act(ctx, c)
	if err != nil {
		return nil, status.Error(codes.FailedPrecondition, err.Error())
	}
	return &wire.ActResponse{Instances: ids}, nil
}

// ErrNotLeading is the answer to a command that reached a member which does not lead any more.
var ErrNotLeading = errors.New("this member no longer leads; try again")

// refusal turns an error into an answer. After Unavailable, the command asks the next leader.
func refusal(err error) error {
	if errors.Is(err, ErrNotLeading) {
		return status.Error(codes.Unavailable, err.Error())
	}
	return status.Error(codes.FailedPrecondition, err.Error())
}

// Hosts carries out a command about the cluster of hosts. Everybody who may enter the data directory
// may look at it.
func (a *admin) Hosts(ctx context.Context, r *wire.HostsRequest) (*wire.HostsResponse, error) {
	if path, _, _ := strings.Cut(r.Path, "?"); path != hosts.PathList {
		if _, err := a.owner(ctx); err != nil {
			return nil, err
		}
	}
	if r.Path == hosts.PathMetrics {
		b, err := a.o.hostMetrics()
		return &wire.HostsResponse{Json: b}, err
	}
	b, err := a.o.hosts(ctx, r.Path, r.Json)
	if err != nil {
		return nil, refusal(err)
	}
	return &wire.HostsResponse{Json: b}, nil
}

// callerInfo identifies the process at the other end of a Unix socket, as the kernel reports it.
type callerInfo struct {
	credentials.CommonAuthInfo
	pid, uid int
}

func (callerInfo) AuthType() string { return "peercred" }

// peerCredentials reads the caller's identity from the socket.
type peerCredentials struct{}

func (peerCredentials) ServerHandshake(c net.Conn) (net.Conn, credentials.AuthInfo, error) {
	whole := c // the wrapper must be kept, because the gate counts it
	if admitted, ok := c.(*gate.Conn); ok {
		c = admitted.Conn
	}
	u, ok := c.(*net.UnixConn)
	if !ok {
		return nil, nil, fmt.Errorf("admin: %T is not a Unix socket", c)
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
