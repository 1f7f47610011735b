package link

import (
	"context"
	"errors"
	"testing"

	"google.golang.org/grpc"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/worker/state/statetest"
)

// sent is a stream to a follower that records the messages sent.
type sent struct {
	grpc.ServerStream
	ctx      context.Context
	messages chan *wire.LeaderMessage
}

func (s *sent) Context() context.Context             { return s.ctx }
func (s *sent) Send(m *wire.LeaderMessage) error     { s.messages <- m; return nil }
func (s *sent) Recv() (*wire.FollowerMessage, error) { return nil, errors.New("not here") }

// busy is a replica whose snapshots take until release is closed.
type busy struct {
	Replica
	release chan struct{}
}

var errBusy = errors.New("no snapshot after all")

func (b busy) Snapshot(context.Context) (store.Snapshot, error) {
	<-b.release
	return store.Snapshot{}, errBusy
}

// A leader that waits for a snapshot sends heartbeats, so that the follower does not take it for dead.
func TestHeartbeatsWhileWaitingForSnapshot(t *testing.T) {
	sh, _ := statetest.New(t, &config.Config{}, false)
	r := busy{release: make(chan struct{})}
	stream := &sent{ctx: t.Context(), messages: make(chan *wire.LeaderMessage, 4)}
	s := &session{d: newDownstream(Config{Shared: sh, Replica: r}, nil), stream: stream, wake: make(chan struct{}, 1), gone: make(chan struct{})}
	done := make(chan error)
	go func() {
		_, err := s.takeSnapshot()
		done <- err
	}()
	for range 3 {
		s.update(func() { s.beat = true })
		if msg := <-stream.messages; msg.GetHeartbeat() == nil {
			t.Fatalf("sent %v, want a heartbeat", msg)
		}
	}
	close(r.release)
	if err := <-done; !errors.Is(err, errBusy) {
		t.Fatal(err)
	}
}
