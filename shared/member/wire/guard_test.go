package wire

import (
	"context"
	"net"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
)

// nested is a control service whose handlers call another service, which is forbidden.
type nested struct {
	UnimplementedControlServer
	UnimplementedMemberServer
	other ControlClient
	seen  error
}

func (n *nested) Introduce(ctx context.Context, _ *IntroduceRequest) (*IntroduceResponse, error) {
	if n.other != nil {
		_, n.seen = n.other.Introduce(ctx, &IntroduceRequest{})
	}
	return &IntroduceResponse{}, nil
}

func (n *nested) Follow(s Member_FollowServer) error {
	_, n.seen = n.other.Introduce(s.Context(), &IntroduceRequest{})
	return nil
}

func serve(t *testing.T, n *nested) *grpc.ClientConn {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := grpc.NewServer()
	RegisterControlServer(s, n)
	RegisterMemberServer(s, n)
	go func() { _ = s.Serve(l) }()
	t.Cleanup(s.Stop)
	conn, err := grpc.NewClient(l.Addr().String(), append(GuardClient(), grpc.WithTransportCredentials(insecure.NewCredentials()))...)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return conn
}

func TestACallInsideAHandlerIsRefused(t *testing.T) {
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	leaf := serve(t, &nested{})
	n := &nested{other: NewControlClient(leaf)}
	conn := serve(t, n)

	if _, err := NewControlClient(conn).Introduce(ctx, &IntroduceRequest{}); err != nil {
		t.Fatalf("a call from outside: %v", err)
	}
	if n.seen == nil || !strings.Contains(n.seen.Error(), "must not make a gRPC call") {
		t.Errorf("a call from a unary handler: %v", n.seen)
	}
	n.seen = nil
	stream, err := NewMemberClient(conn).Follow(ctx)
	if err != nil {
		t.Fatal(err)
	}
	_, _ = stream.Recv() // the handler has returned
	if n.seen == nil || !strings.Contains(n.seen.Error(), "must not make a gRPC call") {
		t.Errorf("a call from a stream handler: %v", n.seen)
	}
}
