package e2e

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/tree"
)

// takeover kills the leader and waits until the heir leads.
func (c *cluster) takeover() {
	c.t.Helper()
	before := c.full()
	c.signal(leaderOf(before), syscall.SIGKILL)
	c.wait("a takeover", func(t *tree.Tree) bool { return t.Epoch > before.Epoch })
}

// lasting grants a lease with a key of the same name.
func lasting(t *testing.T, cl *clientv3.Client, key string, ttl int64) clientv3.LeaseID {
	t.Helper()
	ctx := testContext(t)
	l, err := cl.Grant(ctx, ttl)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Put(ctx, key, "", clientv3.WithLease(l.ID)); err != nil {
		t.Fatal(err)
	}
	return l.ID
}

// remaining is what a lease has left, in seconds, as the leader says.
func remaining(t *testing.T, cl *clientv3.Client, id clientv3.LeaseID) int64 {
	t.Helper()
	resp, err := cl.TimeToLive(testContext(t), id)
	if err != nil {
		t.Fatal(err)
	}
	return resp.TTL
}

func exists(t *testing.T, cl *clientv3.Client, key string) bool {
	t.Helper()
	resp, err := cl.Get(testContext(t), key)
	if err != nil {
		t.Fatal(err)
	}
	return len(resp.Kvs) == 1
}

func TestLeasesOverTakeovers(t *testing.T) {
	c := start(t)
	cl := c.dial()
	const shortTTL, keptTTL = 5, 3
	began := time.Now()
	long := lasting(t, cl, "long", 60)
	short := lasting(t, cl, "short", shortTTL)
	kept := lasting(t, cl, "kept", keptTTL)
	alive, err := cl.KeepAlive(testContext(t), kept)
	if err != nil {
		t.Fatal(err)
	}
	lost := make(chan struct{})
	go func() {
		defer close(lost)
		for range alive {
		}
	}()
	// Each takeover adds at most what went by since the last checkpoint (1 s, 3 s
	// for the long one, and as long as the writing takes), and the heartbeat's
	// timeout (1 s). When short has little left, a lease that began anew
	// would have its whole time again.
	eventually(t, "most of the short lease's time to be over", func() bool { return remaining(t, cl, short) < 2 })
	left := remaining(t, cl, long)
	c.takeover()
	killed := time.Now()
	if got := remaining(t, cl, short); got > shortTTL-1 {
		t.Errorf("the short lease has %d s after the takeover", got)
	}
	if got := remaining(t, cl, long); got < left-5 && time.Since(killed) < 2*time.Second {
		t.Errorf("the long lease had %d s, and has %d s after the takeover", left, got)
	}
	eventually(t, "the short lease's key to be gone", func() bool { return !exists(t, cl, "short") })
	gone, sinceKill := time.Since(began), time.Since(killed)
	t.Logf("the key with %d s to live lived %v, %v of it after the takeover", shortTTL, gone, sinceKill)
	if gone < shortTTL*time.Second {
		t.Errorf("gone after %v: too early", gone)
	}
	if sinceKill > shortTTL*time.Second+500*time.Millisecond {
		t.Errorf("gone %v after the takeover: it began anew", sinceKill)
	}
	// Long since, the kept one would have ended twice, if it were not renewed.
	eventually(t, "twice the kept lease's time", func() bool { return time.Since(began) > 2*keptTTL*time.Second })
	select {
	case <-lost:
		t.Error("the client was told that the kept lease ended")
	default:
	}
	if !exists(t, cl, "kept") {
		t.Error("a lease that is kept alive ended")
	}
	if got := remaining(t, cl, long); got > 58 {
		t.Errorf("the long lease has %d s", got)
	}
}

func TestLocksOverATakeover(t *testing.T) {
	c := start(t)
	ctx := testContext(t)
	open := func() *concurrency.Session {
		s, err := concurrency.NewSession(c.dial(), concurrency.WithTTL(20))
		if err != nil {
			t.Fatal(err)
		}
		return s
	}
	first, second, third := open(), open(), open()
	held := concurrency.NewMutex(first, "lock")
	if err := held.Lock(ctx); err != nil {
		t.Fatal(err)
	}
	elected := concurrency.NewElection(first, "election")
	if err := elected.Campaign(ctx, "first"); err != nil {
		t.Fatal(err)
	}
	acquired := make(chan error, 1)
	waiting := concurrency.NewMutex(second, "lock")
	go func() { acquired <- waiting.Lock(ctx) }()
	served := make(chan error, 1)
	go func() { served <- lockService(ctx, third, "lock") }()
	won := make(chan error, 1)
	candidate := concurrency.NewElection(second, "election")
	go func() { won <- candidate.Campaign(ctx, "second") }()
	watcher := c.dial()
	queued := func(prefix string, n int64) func() bool {
		return func() bool {
			resp, err := watcher.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
			return err == nil && resp.Count == n
		}
	}
	eventually(t, "two to wait for the lock", queued("lock/", 3))
	eventually(t, "a second candidate", queued("election/", 2))

	c.takeover()
	if !queued("lock/", 3)() || !queued("election/", 2)() {
		t.Error("a place in a queue was lost")
	}
	for _, s := range []*concurrency.Session{first, second, third} {
		if _, err := s.Client().KeepAliveOnce(ctx, s.Lease()); err != nil {
			t.Errorf("a session over the takeover: %v", err)
		}
	}
	select {
	case err := <-acquired:
		t.Fatalf("the held lock was given away (%v)", err)
	case err := <-served:
		t.Fatalf("the held lock was given away (%v)", err)
	case err := <-won:
		t.Fatalf("the election has two winners (%v)", err)
	case <-first.Done():
		t.Fatal("the session ended")
	default:
	}
	handOver(t, ctx, held, waiting, acquired, served)
	if err := elected.Resign(ctx); err != nil {
		t.Error(err)
	}
	if err := <-won; err != nil {
		t.Errorf("campaign over the takeover: %v", err)
	}
	if resp, err := candidate.Leader(ctx); err != nil || string(resp.Kvs[0].Value) != "second" {
		t.Errorf("elected: %v, %v", resp, err)
	}
}

// handOver passes the lock on, to one after the other of those who wait.
func handOver(t *testing.T, ctx context.Context, held, waiting *concurrency.Mutex, acquired, served <-chan error) {
	t.Helper()
	if err := held.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
	// They queued up in any order.
	for range 2 {
		select {
		case err := <-acquired:
			if err != nil {
				t.Fatalf("lock over the takeover: %v", err)
			}
			if err := waiting.Unlock(ctx); err != nil {
				t.Error(err)
			}
		case err := <-served:
			if err != nil {
				t.Fatalf("lock service over the takeover: %v", err)
			}
		case <-ctx.Done():
			t.Fatal("the lock was not handed over")
		}
	}
}

// lockService takes and gives back a lock by the service, as clients do that have
// no recipe of their own; it tries again until it is not told to.
func lockService(ctx context.Context, s *concurrency.Session, name string) error {
	l := v3lockpb.NewLockClient(s.Client().ActiveConnection())
	for {
		resp, err := l.Lock(ctx, &v3lockpb.LockRequest{Name: []byte(name), Lease: int64(s.Lease())})
		if err == nil {
			if _, err = l.Unlock(ctx, &v3lockpb.UnlockRequest{Key: resp.Key}); err != nil {
				return fmt.Errorf("unlock: %w", err)
			}
			return nil
		}
		if errors.Is(err, context.Canceled) || ctx.Err() != nil || !unavailable(err) {
			return err
		}
	}
}

func unavailable(err error) bool { return status.Code(err) == codes.Unavailable }
