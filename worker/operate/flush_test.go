package operate

import (
	"context"
	"net"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/dynast-io/dynast/shared/member/wire"
)

// slowAdmin answers when the test lets it.
type slowAdmin struct {
	wire.UnimplementedAdminServer
	asked, answer chan struct{}
}

func (a *slowAdmin) Tree(context.Context, *wire.TreeRequest) (*wire.TreeResponse, error) {
	close(a.asked)
	<-a.answer
	return &wire.TreeResponse{Json: []byte("{}")}, nil
}

// A suspended command keeps its connection and reads nothing. An exiting leader must not wait
// for it, because others wait for the leader to exit.
func TestFlushWaitsForAnswersNotConnections(t *testing.T) {
	s := &adminServer{}
	s.Server = grpc.NewServer(grpc.ChainUnaryInterceptor(s.counted))
	admin := &slowAdmin{asked: make(chan struct{}), answer: make(chan struct{})}
	wire.RegisterAdminServer(s, admin)
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	go func() { _ = s.Serve(l) }()
	defer s.Server.Stop()

	suspended, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer suspended.Close()
	const settings = "\x00\x00\x00\x04\x00\x00\x00\x00\x00" // an empty SETTINGS frame
	if _, err := suspended.Write([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n" + settings)); err != nil {
		t.Fatal(err)
	}
	if _, err := suspended.Read(make([]byte, 1)); err != nil { // the server has accepted it
		t.Fatal(err)
	}
	conn, err := grpc.NewClient("passthrough:///"+l.Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	answered := make(chan error, 1)
	go func() {
		_, err := wire.NewAdminClient(conn).Tree(context.Background(), &wire.TreeRequest{})
		answered <- err
	}()
	<-admin.asked
	flushed := make(chan struct{})
	go func() { defer close(flushed); s.flush(time.Hour) }()
	select {
	case <-flushed:
		t.Error("flush returned before the answer")
	case <-time.After(5 * flushLinger): // long enough for a flush that does not wait
	}
	close(admin.answer)
	if err := <-answered; err != nil {
		t.Errorf("the answer was lost: %v", err)
	}
	<-flushed
}
