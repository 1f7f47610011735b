package api

import (
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// patient sets how long a stream that begins later is expected to send its first request.
func (f *firstRenewals) patient(d time.Duration) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.patience = d
}

func (f *firstRenewals) count() int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return f.expected
}

// renewals opens a stream of renewals and sends nothing.
func (s *server) renewals(t *testing.T) pb.Lease_LeaseKeepAliveClient {
	t.Helper()
	stream, err := pb.NewLeaseClient(dial(t, s.address)).LeaseKeepAlive(t.Context(), grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	return stream
}

// A client that keeps a lease alive sends nothing until the lease is due. It must not hold up a
// process that stops serving, because nobody is served until that process has ended.
func TestShutdownDoesNotWaitForASilentStream(t *testing.T) {
	s := serve(t, nil)
	s.api.firsts.patient(time.Millisecond)
	stream := s.renewals(t)
	testkit.Eventually(t, "the stream is there and not expected to say anything soon", func() bool {
		return s.api.InFlight() == 1 && s.api.firsts.count() == 0
	})
	s.api.firsts.patient(time.Hour) // whatever is waited for from now on is never over
	s.api.Shutdown()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("%v, want Unavailable", err)
	}
}

// A single renewal may be about to come. The process waits for it before it stops anything, and
// serves everybody meanwhile.
func TestSettleWaitsForFirstRenewals(t *testing.T) {
	s := serve(t, nil)
	s.api.firsts.patient(time.Hour)
	grant(t, s, 5, 1000)
	stream := s.renewals(t)
	testkit.Eventually(t, "the stream is expected to say something", func() bool { return s.api.firsts.count() == 1 })
	settled := make(chan struct{})
	go func() { defer close(settled); s.api.Settle(t.Context()) }()
	for range 20 { // served, and time enough for a Settle that does not wait
		if _, err := s.stock(t).Put(t.Context(), "k", "v"); err != nil {
			t.Fatal(err)
		}
	}
	select {
	case <-settled:
		t.Fatal("settled while a first renewal is expected")
	default:
	}
	if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: 5}); err != nil {
		t.Fatal(err)
	}
	if resp, err := stream.Recv(); err != nil || resp.TTL != 1000 {
		t.Errorf("renewal: %v, %v", resp, err)
	}
	<-settled
	s.api.Shutdown()
	if _, err := stream.Recv(); status.Code(err) != codes.Unavailable {
		t.Errorf("%v, want Unavailable", err)
	}
}
