package api

import (
	"context"
	"errors"
	"slices"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"go.etcd.io/etcd/server/v3/lease"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

func TestLeasesExpireOnce(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	log := s.remember()
	s.lead(t)
	c := s.stock(t)
	events := c.Watch(t.Context(), "k/", clientv3.WithPrefix(), clientv3.WithFilterPut())
	began := time.Now()
	const left, kept, long = 7, 8, 9
	grant(t, s, left, 1) // 2 s, the least there is
	grant(t, s, kept, 4)
	grant(t, s, long, 40)
	for key, id := range map[string]int64{"k/1": left, "k/2": left, "k/3": kept} {
		attach(t, s, key, id)
	}
	if _, err := c.KeepAlive(t.Context(), kept); err != nil {
		t.Fatal(err)
	}
	ev := <-events
	if took := time.Since(began); took < 2*time.Second || len(ev.Events) != 2 || ev.Events[0].Kv.ModRevision != ev.Events[1].Kv.ModRevision {
		t.Errorf("after %v: %+v, want the two keys of the lease, at once, after 2 s", took, ev)
	}
	// The long lease gets a checkpoint every 5 s, and each is an entry.
	checkpoints := func() int { return log.count("checkpoint 9 ") }
	testkit.Eventually(t, "a checkpoint of the long lease", func() bool { return checkpoints() > 0 })
	testkit.Eventually(t, "more than the whole time of the kept lease", func() bool { return time.Since(began) > 4500*time.Millisecond })
	if n, most := checkpoints(), int(time.Since(began)/minCheckpointAge); n > most {
		t.Errorf("%d checkpoints, want %d at most: %v", n, most, log.all())
	}
	if resp, err := c.Get(t.Context(), "k/", clientv3.WithPrefix(), clientv3.WithKeysOnly()); err != nil || len(resp.Kvs) != 1 {
		t.Errorf("keys left: %v, %v", resp, err)
	}
	if log.count("revoke 7") != 1 || log.count("revoke") != 1 {
		t.Errorf("proposed: %v, want one revocation", log.all())
	}
}

func TestRemainingTimeIsInherited(t *testing.T) {
	s := serve(t, nil)
	log := s.remember()
	const id = 5
	grant(t, s, id, 1000)
	if got := inherited(t, s, id); got != 1000 {
		t.Errorf("without a checkpoint: %d", got)
	}
	s.must(t, checkpointEntry(&pb.LeaseCheckpoint{ID: id, Remaining_TTL: 40}))
	if got := inherited(t, s, id); got != 40 {
		t.Errorf("with a checkpoint: %d", got)
	}
	resp, err := s.stock(t).KeepAliveOnce(t.Context(), id)
	if err != nil || resp.TTL != 1000 {
		t.Errorf("renewal: %+v, %v", resp, err)
	}
	if got := inherited(t, s, id); got != 1000 {
		t.Errorf("after a renewal: %d", got)
	}
	if _, err := s.stock(t).KeepAliveOnce(t.Context(), id); err != nil {
		t.Error(err)
	}
	if want := []string{"checkpoint 5 40", "checkpoint 5 0"}; !slices.Equal(log.all(), want) {
		t.Errorf("proposed: %v, want %v: a renewal without a checkpoint needs no entry", log.all(), want)
	}
}

// After a renewal was answered, the next leader must not find a checkpoint from before the
// renewal.
func TestRenewalMeetsACheckpoint(t *testing.T) {
	s := serve(t, nil)
	k := s.leaseServer().keeper
	const id = 5
	grant(t, s, id, 1000)
	held, release := make(chan struct{}), make(chan struct{})
	s.proposer.before = func(r *pb.InternalRaftRequest) error {
		if r.LeaseCheckpoint != nil && r.LeaseCheckpoint.Checkpoints[0].Remaining_TTL > 0 {
			close(held)
			<-release
		}
		return nil
	}
	l := k.claim(id)
	wrote := make(chan struct{})
	go func() { k.writeDown(t.Context(), []due{{lease: l, left: 3}}); close(wrote) }()
	<-held
	answer := make(chan error, 1)
	asked := make(chan struct{})
	go func() { close(asked); _, err := k.renew(t.Context(), id); answer <- err }()
	<-asked
	for range 20 { // it would be wrong to be answered now; it has some time for it
		select {
		case err := <-answer:
			t.Fatalf("answered before the checkpoint is in the log: %v", err)
		case <-time.After(time.Millisecond):
		}
	}
	close(release)
	<-wrote
	if err := <-answer; err != nil {
		t.Fatal(err)
	}
	if got := inherited(t, s, id); got != 1000 {
		t.Errorf("%d s are left after a renewal", got)
	}
}

// hookedLessor calls back when a lease is renewed in memory.
type hookedLessor struct {
	lessor
	renewed func()
}

func (l *hookedLessor) Renew(id lease.LeaseID) (int64, error) {
	ttl, err := l.lessor.Renew(id)
	if err == nil {
		l.renewed()
	}
	return ttl, err
}

// The same for a checkpoint that begins when the renewal is nearly complete.
func TestCheckpointMeetsARenewal(t *testing.T) {
	s := serve(t, nil)
	k := s.leaseServer().keeper
	const id = 5
	grant(t, s, id, 1000)
	wrote := make(chan struct{})
	k.lessor = &hookedLessor{lessor: k.lessor, renewed: sync.OnceFunc(func() {
		l := k.claim(id)
		go func() { k.writeDown(t.Context(), []due{{lease: l, left: 3}}); close(wrote) }()
	})}
	if _, err := k.renew(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	<-wrote
	if got := inherited(t, s, id); got != 1000 {
		t.Errorf("%d s are left after a renewal", got)
	}
}

// lateProposer reports an unknown outcome for checkpoints, and applies them later.
type lateProposer struct {
	*direct
	late *pb.InternalRaftRequest
}

func (p *lateProposer) Propose(ctx context.Context, r *pb.InternalRaftRequest) (*apply.Result, error) {
	if r.LeaseCheckpoint != nil && r.LeaseCheckpoint.Checkpoints[0].Remaining_TTL > 0 {
		p.late = r
		return nil, rpctypes.ErrGRPCTimeout
	}
	if err := p.flush(ctx); err != nil {
		return nil, err
	}
	return p.direct.Propose(ctx, r)
}

func (p *lateProposer) flush(ctx context.Context) (err error) {
	if p.late != nil {
		_, err = p.direct.Propose(ctx, p.late)
		p.late = nil
	}
	return err
}

func TestRenewalAfterACheckpointOfUnknownOutcome(t *testing.T) {
	s := serve(t, nil)
	k := s.leaseServer().keeper
	p := &lateProposer{direct: s.proposer}
	s.api.proposer = p
	const id = 5
	grant(t, s, id, 1000)
	k.writeDown(t.Context(), []due{{lease: k.claim(id), left: 3}})
	if _, err := k.renew(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if err := p.flush(t.Context()); err != nil {
		t.Fatal(err)
	}
	if got := inherited(t, s, id); got != 1000 {
		t.Errorf("%d s are left after a renewal", got)
	}
}

// When a lease expires while a renewal clears its checkpoint, it is not ended before it is
// known whether the renewal was in time. An ended lease is not ended again.
func TestExpiryWaitsForARenewal(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	log := s.remember()
	k := s.leaseServer().keeper
	const id = 5
	grant(t, s, id, 2)
	l := k.claim(id) // as a renewal does
	testkit.Eventually(t, "the lease to expire", func() bool { return k.lessor.Remaining(l) <= 0 })
	var ends sync.WaitGroup
	for range 3 { // the lessor reports it again
		ends.Go(func() { k.end(t.Context(), l) })
	}
	<-time.After(20 * time.Millisecond) // it has some time for a mistake
	if all := log.all(); len(all) != 0 {
		t.Errorf("proposed in spite of the claim: %v", all)
	}
	k.mu.Lock()
	k.unclaim(id)
	k.mu.Unlock()
	ends.Wait()
	if want := []string{"revoke 5"}; !slices.Equal(log.all(), want) {
		t.Errorf("proposed: %v, want %v", log.all(), want)
	}
}

// On a full disk a lease cannot get a checkpoint, but it can be renewed.
func TestRenewalWithoutRoomForCheckpoints(t *testing.T) {
	s := serve(t, nil)
	k := s.leaseServer().keeper
	const id = 5
	grant(t, s, id, 1000)
	s.proposer.before = func(r *pb.InternalRaftRequest) error { return rpctypes.ErrGRPCNoSpace }
	k.writeDown(t.Context(), []due{{lease: k.claim(id), left: 3}})
	if ttl, err := k.renew(t.Context(), id); err != nil || ttl != 1000 {
		t.Errorf("renewal: %d, %v", ttl, err)
	}
}

// A client that renews too late is told so when the keys are gone, and not before. A lease
// cannot be both renewed and ended.
func TestRenewalOfAnExpiredLease(t *testing.T) {
	t.Parallel()
	s := serve(t, nil)
	ending, release := make(chan struct{}), make(chan struct{})
	s.proposer.before = func(r *pb.InternalRaftRequest) error {
		if r.LeaseRevoke != nil {
			close(ending)
			<-release
		}
		return nil
	}
	const id = 5
	grant(t, s, id, 2)
	attach(t, s, "a", id)
	s.lead(t)
	<-ending
	c := s.stock(t)
	answer := make(chan error, 1)
	go func() { _, err := c.KeepAliveOnce(t.Context(), id); answer <- err }()
	// Other leases of other streams are not held up. (Nothing is written, because the proposer
	// waits.)
	if _, err := c.KeepAliveOnce(t.Context(), 4711); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Error(err)
	}
	select {
	case err := <-answer:
		t.Errorf("answered while the keys are there: %v", err)
	default:
	}
	close(release)
	if err := <-answer; !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		t.Error(err)
	}
	if resp, err := c.Get(t.Context(), "a"); err != nil || len(resp.Kvs) != 0 {
		t.Errorf("%v, %v", resp, err)
	}
}

// Many renewals run beside checkpoints, as fast as possible. The next leader must know every
// answered renewal.
func TestRenewalsBesideCheckpoints(t *testing.T) {
	s := serve(t, nil)
	k := s.leaseServer().keeper
	const id = 5
	grant(t, s, id, 1000)
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				if l := k.claim(id); l != nil {
					k.writeDown(context.Background(), []due{{lease: l, left: 3}})
				}
			}
		})
	}
	var renewals sync.WaitGroup
	for range 4 {
		renewals.Go(func() {
			for range 50 {
				if ttl, err := k.renew(t.Context(), id); err != nil || ttl != 1000 {
					t.Errorf("renewal: %d, %v", ttl, err)
				}
			}
		})
	}
	renewals.Wait()
	close(stop)
	wg.Wait()
	if _, err := k.renew(t.Context(), id); err != nil {
		t.Fatal(err)
	}
	if got := inherited(t, s, id); got != 1000 {
		t.Errorf("%d s are left after a renewal", got)
	}
	if len(k.claims) != 0 {
		t.Errorf("claims left: %v", k.claims)
	}
}

func TestCheckpointAge(t *testing.T) {
	for _, c := range []struct {
		ttl  time.Duration
		kept bool
		want time.Duration
	}{
		{2 * time.Second, false, 5 * time.Second}, {100 * time.Second, false, 10 * time.Second}, {time.Hour, false, 5 * time.Minute},
		{2 * time.Second, true, 5 * time.Second}, {60 * time.Second, true, 30500 * time.Millisecond},
	} {
		if got := checkpointAge(c.ttl, c.kept); got != c.want {
			t.Errorf("%v, kept %v: %v, want %v", c.ttl, c.kept, got, c.want)
		}
	}
}

func TestLeasePermissions(t *testing.T) {
	t.Parallel()
	s := withUsers(t)
	const theirs, own = 3, 4
	root, reader := s.login(t, "root"), s.login(t, "reader")
	conn := dial(t, s.address)
	leases, kv := pb.NewLeaseClient(conn), pb.NewKVClient(conn)
	for id, key := range map[int64]string{theirs: "secret", own: "r/1"} {
		if _, err := leases.LeaseGrant(root, &pb.LeaseGrantRequest{ID: id, TTL: 2}); err != nil {
			t.Fatal(err)
		}
		if _, err := kv.Put(root, &pb.PutRequest{Key: []byte(key), Lease: id}); err != nil {
			t.Fatal(err)
		}
	}
	keepAlive := func(ctx context.Context, id int64) error {
		stream, err := leases.LeaseKeepAlive(ctx)
		if err != nil {
			return err
		}
		if err := stream.Send(&pb.LeaseKeepAliveRequest{ID: id}); err != nil {
			return err
		}
		_, err = stream.Recv()
		return err
	}
	_, list := leases.LeaseLeases(reader, &pb.LeaseLeasesRequest{})
	_, keys := leases.LeaseTimeToLive(reader, &pb.LeaseTimeToLiveRequest{ID: theirs, Keys: true})
	_, noKeys := leases.LeaseTimeToLive(reader, &pb.LeaseTimeToLiveRequest{ID: theirs})
	_, revoke := leases.LeaseRevoke(reader, &pb.LeaseRevokeRequest{ID: theirs})
	_, nobody := leases.LeaseGrant(t.Context(), &pb.LeaseGrantRequest{TTL: 5})
	for _, c := range []struct {
		what      string
		got, want error
	}{
		{"list", list, rpctypes.ErrGRPCPermissionDenied}, {"keys", keys, rpctypes.ErrGRPCPermissionDenied}, {"time to live", noKeys, nil},
		{"revoke", revoke, rpctypes.ErrGRPCPermissionDenied}, {"nobody's grant", nobody, rpctypes.ErrGRPCUserEmpty},
		{"renew another's", keepAlive(reader, theirs), rpctypes.ErrGRPCPermissionDenied}, {"renew the own", keepAlive(reader, own), nil},
	} {
		if status.Convert(c.got).Message() != status.Convert(c.want).Message() || status.Code(c.got) != status.Code(c.want) {
			t.Errorf("%s: %v, want %v", c.what, c.got, c.want)
		}
	}
	// A lease ends whoever wrote its keys.
	s.lead(t)
	testkit.Eventually(t, "no key with a lease", func() bool {
		resp, err := kv.Range(root, &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}})
		return err == nil && len(resp.Kvs) == 0
	})
}

// A client that comes while a process stops is answered once, because etcd's client fails a
// single renewal whose stream ends earlier.
func TestSingleRenewalsWhileServingStops(t *testing.T) {
	s := serve(t, nil)
	grant(t, s, 5, 1000)
	c := s.stock(t)
	s.api.Shutdown()
	for range 200 {
		if _, err := c.KeepAliveOnce(t.Context(), 5); err != nil {
			t.Fatal(err)
		}
	}
}

// A process that stops sends the streams to the next leader.
func TestKeepAliveEndsAtShutdown(t *testing.T) {
	s := serve(t, nil)
	stream, err := pb.NewLeaseClient(dial(t, s.address)).LeaseKeepAlive(t.Context(), grpc.WaitForReady(true))
	if err != nil {
		t.Fatal(err)
	}
	s.api.Shutdown()
	_, err = stream.Recv()
	if status.Code(err) != codes.Unavailable {
		t.Errorf("%v, want Unavailable", err)
	}
	// etcd's client must take the error for one after which it tries again. Otherwise
	// KeepAliveOnce fails.
	if status.Code(clientv3.ContextError(t.Context(), err)) != codes.Unavailable {
		t.Errorf("%v is no reason for a client to try again", err)
	}
}
