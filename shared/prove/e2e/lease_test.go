package e2e

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/observe/tree"
)

// takeover kills the leader and waits until the heir leads.
func (c *cluster) takeover() {
	c.t.Helper()
	before := c.full()
	c.signal(leaderOf(before), syscall.SIGKILL)
	c.wait("a takeover", func(t *tree.Tree) bool { return t.Epoch > before.Epoch })
}

// lasting grants a lease and puts a key of the same name.
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

// remaining returns the rest of a lease's time in seconds, as the leader reports it.
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

func TestLeasesAcrossTakeovers(t *testing.T) {
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
	// Wait until the short lease has little time left. If the takeover restarted it, it would
	// have its full time again.
	eventually(t, "the short lease has less than 2 s left", func() bool { return remaining(t, cl, short) < 2 })
	left := remaining(t, cl, long)
	c.takeover()
	killed := time.Now()
	if got := remaining(t, cl, short); got > shortTTL-1 {
		t.Errorf("the short lease has %d s left after the takeover: the takeover restarted it", got)
	}
	if got := remaining(t, cl, long); got < left-5 && time.Since(killed) < 2*time.Second {
		t.Errorf("the long lease had %d s left before the takeover and %d s after it", left, got)
	}
	eventually(t, "the key of the short lease is gone", func() bool { return !exists(t, cl, "short") })
	gone, sinceKill := time.Since(began), time.Since(killed)
	t.Logf("the key with %d s to live lived %v, %v of it after the takeover", shortTTL, gone, sinceKill)
	if gone < shortTTL*time.Second {
		t.Errorf("the key was gone after %v: too early", gone)
	}
	if sinceKill > shortTTL*time.Second+500*time.Millisecond {
		t.Errorf("the key was gone %v after the takeover: the takeover restarted the lease", sinceKill)
	}
	// By now, the kept lease would have ended twice if it had not been renewed.
	eventually(t, "twice the time to live of the kept lease is over", func() bool { return time.Since(began) > 2*keptTTL*time.Second })
	select {
	case <-lost:
		t.Error("the client was told that the kept lease had ended")
	default:
	}
	if !exists(t, cl, "kept") {
		t.Error("the lease that was kept alive has ended")
	}
	if got := remaining(t, cl, long); got > 58 {
		t.Errorf("the long lease has %d s left: the takeover restarted it", got)
	}
}

// TestLeasesAreExact kills the leader every 300 ms for 20 s. Leases end on time, and those that
// are kept alive do not end.
func TestLeasesAreExact(t *testing.T) {
	period := 20 * time.Second
	if testing.Short() {
		period = 6 * time.Second
	}
	c := start(t)
	for _, ttl := range []int64{2, 5} {
		keepLeaseAlive(t, c, ttl)
	}
	began := time.Now()
	over := func() bool { return time.Since(began) > period }
	var wg sync.WaitGroup
	kills := 0
	wg.Go(func() { kills = killLeaders(c, 300*time.Millisecond, over) })
	// While no leader answers, the test cannot see that a lease ended.
	var outage time.Duration
	wg.Go(func() { outage = longestOutage(c, over) })
	lives := make(chan leaseLife, 1000)
	for _, ttl := range []int64{2, 5, 10} {
		for n := range 4 {
			wg.Go(func() {
				time.Sleep(time.Duration(n) * 130 * time.Millisecond) // so that the leases are at different moments of their life during a takeover
				liveAndEnd(c, fmt.Sprintf("left/%d/%d", ttl, n), ttl, over, lives)
			})
		}
	}
	wg.Wait()
	close(lives)
	ended, worst := map[int64]int{}, time.Duration(0)
	for l := range lives {
		ended[l.ttl]++
		worst = max(worst, l.late)
		if l.early > 0 {
			t.Errorf("a lease of %d s ended %s early", l.ttl, l.early)
		}
		if l.late > 500*time.Millisecond+outage {
			t.Errorf("a lease of %d s ended %s late; the longest time without an answer was %s", l.ttl, l.late, outage)
		}
	}
	for _, ttl := range []int64{2, 5} {
		if key := fmt.Sprintf("kept/%d", ttl); !exists(t, c.dial(), key) {
			t.Errorf("the lease of %s ended, although it was kept alive", key)
		}
	}
	t.Logf("%d leaders killed; leases ended, by time to live: %v; at most %s late; longest time without an answer %s", kills, ended, worst, outage)
	if ended[2] == 0 || ended[5] == 0 || kills < 5 {
		t.Errorf("too little happened: ended leases by time to live: %v, kills: %d", ended, kills)
	}
}

// keepLeaseAlive keeps a lease with its own key alive until the test ends.
func keepLeaseAlive(t *testing.T, c *cluster, ttl int64) {
	t.Helper()
	ctx, cl := testContext(t), c.dial()
	l, err := cl.Grant(ctx, ttl)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Put(ctx, fmt.Sprintf("kept/%d", ttl), "", clientv3.WithLease(l.ID)); err != nil {
		t.Fatal(err)
	}
	alive, err := cl.KeepAlive(ctx, l.ID)
	if err != nil {
		t.Fatal(err)
	}
	go func() {
		for range alive {
		}
	}()
}

// killLeaders kills each leader as soon as another member can take over, and returns the number
// of kills.
func killLeaders(c *cluster, every time.Duration, over func() bool) (kills int) {
	for last := uint64(0); !over(); time.Sleep(every) {
		if tr := c.tree(); tr != nil && tr.Epoch > last && count(tr, "in_sync") > 0 {
			last = tr.Epoch
			c.signal(leaderOf(tr), syscall.SIGKILL)
			kills++
		}
	}
	return kills
}

// longestOutage returns the longest time between two answers to a client.
func longestOutage(c *cluster, over func() bool) (longest time.Duration) {
	cl := c.dial()
	answered := time.Now()
	for ; !over(); time.Sleep(2 * time.Millisecond) {
		// Without a deadline, a read would wait for ever when the whole cluster is dead.
		ctx, cancel := context.WithTimeout(c.t.Context(), patience)
		_, err := cl.Get(ctx, "x")
		cancel()
		if err == nil {
			longest = max(longest, time.Since(answered))
			answered = time.Now()
		}
	}
	return max(longest, time.Since(answered))
}

// leaseLife is the life of a lease relative to its time to live. The time between request and
// answer counts in favour of the lease.
type leaseLife struct {
	ttl         int64
	early, late time.Duration
}

// liveAndEnd grants leases one after the other and waits for the end of each.
func liveAndEnd(c *cluster, prefix string, ttl int64, over func() bool, lives chan<- leaseLife) {
	ctx, cl := testContext(c.t), c.dial()
	for round := 0; !over(); round++ {
		key := fmt.Sprintf("%s/%d", prefix, round)
		sent := time.Now()
		l, err := cl.Grant(ctx, ttl)
		granted := time.Now()
		if err != nil {
			continue
		}
		put, err := cl.Put(ctx, key, "", clientv3.WithLease(l.ID))
		if err != nil {
			continue // the client does not know whether the key exists; the lease ends by itself
		}
		for resp := range cl.Watch(ctx, key, clientv3.WithRev(put.Header.Revision+1)) {
			if len(resp.Events) > 0 {
				break
			}
		}
		lived, whole := time.Since(sent), time.Duration(ttl)*time.Second
		lives <- leaseLife{ttl: ttl, early: whole - lived, late: time.Since(granted) - whole}
	}
}

func TestLocksAcrossATakeover(t *testing.T) {
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
	eventually(t, "two clients wait for the lock", queued("lock/", 3))
	eventually(t, "the election has a second candidate", queued("election/", 2))

	c.takeover()
	if !queued("lock/", 3)() || !queued("election/", 2)() {
		t.Error("a client lost its place in a queue")
	}
	for _, s := range []*concurrency.Session{first, second, third} {
		if _, err := s.Client().KeepAliveOnce(ctx, s.Lease()); err != nil {
			t.Errorf("keep a session alive after the takeover: %v", err)
		}
	}
	select {
	case err := <-acquired:
		t.Fatalf("another client got the lock while it was held (%v)", err)
	case err := <-served:
		t.Fatalf("another client got the lock while it was held (%v)", err)
	case err := <-won:
		t.Fatalf("the election has two winners (%v)", err)
	case <-first.Done():
		t.Fatal("the session of the lock's holder ended")
	default:
	}
	handOver(t, ctx, held, waiting, acquired, served)
	if err := elected.Resign(ctx); err != nil {
		t.Error(err)
	}
	if err := <-won; err != nil {
		t.Errorf("the campaign that began before the takeover: %v", err)
	}
	if resp, err := candidate.Leader(ctx); err != nil || string(resp.Kvs[0].Value) != "second" {
		t.Errorf("the elected leader must be \"second\": %v, %v", resp, err)
	}
}

// handOver passes the lock to the waiting clients, one after the other.
func handOver(t *testing.T, ctx context.Context, held, waiting *concurrency.Mutex, acquired, served <-chan error) {
	t.Helper()
	if err := held.Unlock(ctx); err != nil {
		t.Fatal(err)
	}
	// The order of the queue is unknown.
	for range 2 {
		select {
		case err := <-acquired:
			if err != nil {
				t.Fatalf("lock after a takeover: %v", err)
			}
			if err := waiting.Unlock(ctx); err != nil {
				t.Error(err)
			}
		case err := <-served:
			if err != nil {
				t.Fatalf("lock through the Lock service after a takeover: %v", err)
			}
		case <-ctx.Done():
			t.Fatal("no waiting client got the lock")
		}
	}
}

// lockService locks and unlocks through the Lock service, like clients without their own recipe.
// It tries again until it is stopped.
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
