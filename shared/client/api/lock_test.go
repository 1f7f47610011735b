package api

import (
	"context"
	"errors"
	"strconv"
	"sync"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

func session(t *testing.T, c *clientv3.Client) *concurrency.Session {
	t.Helper()
	s, err := concurrency.NewSession(c, concurrency.WithTTL(30))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// These are etcd's recipes, as applications use them. They need KV, Lease and Watch.
func TestMutex(t *testing.T) {
	s := serve(t, nil)
	var inside atomic.Int32
	var wg sync.WaitGroup
	for range 4 {
		m := concurrency.NewMutex(session(t, s.stock(t)), "m")
		wg.Go(func() {
			for range 5 {
				if err := m.Lock(t.Context()); err != nil {
					t.Error(err)
					return
				}
				if inside.Add(1) != 1 {
					t.Error("two hold the lock")
				}
				inside.Add(-1)
				if err := m.Unlock(t.Context()); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
}

func TestElection(t *testing.T) {
	s := serve(t, nil)
	first := concurrency.NewElection(session(t, s.stock(t)), "e")
	second := concurrency.NewElection(session(t, s.stock(t)), "e")
	if err := first.Campaign(t.Context(), "1"); err != nil {
		t.Fatal(err)
	}
	seen := first.Observe(t.Context())
	if resp := <-seen; string(resp.Kvs[0].Value) != "1" {
		t.Errorf("leader: %v", resp)
	}
	won := make(chan error, 1)
	go func() { won <- second.Campaign(t.Context(), "2") }()
	if err := first.Resign(t.Context()); err != nil {
		t.Fatal(err)
	}
	if err := <-won; err != nil {
		t.Fatal(err)
	}
	if resp := <-seen; string(resp.Kvs[0].Value) != "2" {
		t.Errorf("leader: %v", resp)
	}
}

func TestSTM(t *testing.T) {
	s := serve(t, nil)
	var wg sync.WaitGroup
	for range 4 {
		c := s.stock(t)
		wg.Go(func() {
			for range 5 {
				_, err := concurrency.NewSTM(c, func(m concurrency.STM) error {
					n, _ := strconv.Atoi(m.Get("n"))
					m.Put("n", strconv.Itoa(n+1))
					return nil
				})
				if err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	if resp, err := s.stock(t).Get(t.Context(), "n"); err != nil || string(resp.Kvs[0].Value) != "20" {
		t.Errorf("%v, %v", resp, err)
	}
}

// waiters returns the keys below a lock or an election.
func (s *server) waiters(t *testing.T, name string) int {
	t.Helper()
	resp, err := s.stock(t).Get(t.Context(), name+"/", clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err != nil {
		t.Fatal(err)
	}
	return int(resp.Count)
}

func lock(ctx context.Context, c v3lockpb.LockClient, id int64) (*v3lockpb.LockResponse, error) {
	return c.Lock(ctx, &v3lockpb.LockRequest{Name: []byte("l"), Lease: id})
}

func TestLockService(t *testing.T) {
	s := serve(t, nil)
	for id := range int64(4) {
		grant(t, s, id+1, 1000)
	}
	c := v3lockpb.NewLockClient(dial(t, s.address))
	held, err := lock(t.Context(), c, 1)
	if err != nil {
		t.Fatal(err)
	}
	type outcome struct {
		resp *v3lockpb.LockResponse
		err  error
	}
	try := func(ctx context.Context, id int64) <-chan outcome {
		done := make(chan outcome, 1)
		go func() { r, err := lock(ctx, c, id); done <- outcome{r, err} }()
		return done
	}
	second := try(t.Context(), 2)
	testkit.Eventually(t, "a waiter", func() bool { return s.waiters(t, "l") == 2 })
	ctx, hangUp := context.WithCancel(t.Context())
	third := try(ctx, 3)
	testkit.Eventually(t, "two waiters", func() bool { return s.waiters(t, "l") == 3 })
	hangUp()
	if o := <-third; status.Code(o.err) != codes.Canceled {
		t.Errorf("third: %v", o.err)
	}
	testkit.Eventually(t, "the place of who hung up to be free", func() bool { return s.waiters(t, "l") == 2 })
	select {
	case o := <-second:
		t.Fatalf("two hold the lock: %+v", o)
	default:
	}
	if _, err := c.Unlock(t.Context(), &v3lockpb.UnlockRequest{Key: held.Key}); err != nil {
		t.Fatal(err)
	}
	got := <-second
	if got.err != nil {
		t.Fatal(got.err)
	}
	// A client that waits for a lock while the process stops is sent to the next leader, and
	// still has its place there.
	fourth := try(t.Context(), 4)
	testkit.Eventually(t, "a waiter", func() bool { return s.waiters(t, "l") == 2 })
	s.api.Shutdown()
	if o := <-fourth; status.Code(o.err) != codes.Unavailable {
		t.Errorf("fourth: %v", o.err)
	}
	if n := s.waiters(t, "l"); n != 2 {
		t.Errorf("%d keys of the lock, want that of the holder and of who waits", n)
	}
}

func TestElectionService(t *testing.T) {
	s := serve(t, nil)
	grant(t, s, 1, 1000)
	grant(t, s, 2, 1000)
	c := v3electionpb.NewElectionClient(dial(t, s.address))
	name := []byte("e")
	seen, err := c.Observe(t.Context(), &v3electionpb.LeaderRequest{Name: name})
	if err != nil {
		t.Fatal(err)
	}
	won, err := c.Campaign(t.Context(), &v3electionpb.CampaignRequest{Name: name, Lease: 1, Value: []byte("a")})
	if err != nil {
		t.Fatal(err)
	}
	next := make(chan error, 1)
	go func() {
		_, err := c.Campaign(t.Context(), &v3electionpb.CampaignRequest{Name: name, Lease: 2, Value: []byte("b")})
		next <- err
	}()
	testkit.Eventually(t, "a second candidate", func() bool { return s.waiters(t, "e") == 2 })
	if _, err := c.Proclaim(t.Context(), &v3electionpb.ProclaimRequest{Leader: won.Leader, Value: []byte("a2")}); err != nil {
		t.Error(err)
	}
	if _, err := c.Resign(t.Context(), &v3electionpb.ResignRequest{Leader: won.Leader}); err != nil {
		t.Error(err)
	}
	if err := <-next; err != nil {
		t.Fatal(err)
	}
	for last := ""; last != "b"; {
		resp, err := seen.Recv()
		if err != nil {
			t.Fatalf("after %q: %v", last, err)
		}
		last = string(resp.Kv.Value)
	}
	s.api.Shutdown()
	for err = nil; err == nil; {
		_, err = seen.Recv()
	}
	if status.Code(err) != codes.Unavailable {
		t.Errorf("observe at shutdown: %v", err)
	}
}

// A lock is taken with the permissions of its caller, not with those of an earlier caller.
func TestLockPermissions(t *testing.T) {
	s := withUsers(t)
	root, reader := s.login(t, "root"), s.login(t, "reader")
	leases := pb.NewLeaseClient(dial(t, s.address))
	for id := range int64(3) {
		if _, err := leases.LeaseGrant(root, &pb.LeaseGrantRequest{ID: id + 1, TTL: 1000}); err != nil {
			t.Fatal(err)
		}
	}
	c := v3lockpb.NewLockClient(dial(t, s.address))
	if _, err := lock(root, c, 1); err != nil {
		t.Fatal(err)
	}
	_, err := lock(reader, c, 2)
	if status.Convert(err).Message() != rpctypes.ErrorDesc(rpctypes.ErrGRPCPermissionDenied) {
		t.Errorf("%v, want permission denied", err)
	}
	if _, err := lock(t.Context(), c, 2); err == nil {
		t.Error("nobody takes a lock")
	}
	ctx, hangUp := context.WithCancel(root)
	done := make(chan error, 1)
	go func() { _, err := lock(ctx, c, 3); done <- err }()
	count := func() int64 {
		resp, err := pb.NewKVClient(dial(t, s.address)).Range(root, &pb.RangeRequest{Key: []byte("l/"), RangeEnd: []byte("l0"), CountOnly: true})
		if err != nil {
			t.Fatal(err)
		}
		return resp.Count
	}
	testkit.Eventually(t, "a waiter", func() bool { return count() == 2 })
	hangUp()
	if err := <-done; err == nil || errors.Is(err, context.DeadlineExceeded) {
		t.Error(err)
	}
	testkit.Eventually(t, "the place of who hung up to be free, which takes its rights", func() bool { return count() == 1 })
}
