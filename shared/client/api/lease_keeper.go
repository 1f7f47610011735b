package api

import (
	"context"
	"errors"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"go.etcd.io/etcd/server/v3/lease"

	"github.com/dynast-io/dynast/shared/replica/store"
)

// expiredWait is how often a renewal that waits for the end of an expired lease checks by
// itself, in addition to being notified.
const expiredWait = 500 * time.Millisecond

// leaseKeeper keeps a leader's promises about leases. A granted or renewed lease lives at
// least for its time to live, also under later leaders. It does not live much longer if it
// is not renewed.
//
// The store's lessor knows when a lease ends, and records that for the next leader
// (store.Deadlines). That record does not survive the host. The log has the full time to
// live of a lease and possibly a checkpoint, which is the remaining time when the leader
// wrote it. After a power loss the leader starts with the checkpoint, or with the full
// time if there is none. So a renewal needs no entry, unless there is a checkpoint. Then an
// entry that clears the checkpoint comes first.
//
// A renewal must not be answered while an entry is under way that would undo it: a
// checkpoint from before the renewal, or the end of the lease. etcd's lessor has these
// races. Here each entry about a lease claims the lease, and only one can claim it at a
// time. A renewal that meets a claim, or finds that there was one meanwhile, starts again
// after it.
type leaseKeeper struct {
	api    *API
	lessor lessor

	mu sync.Mutex
	// claims has a channel for each claimed lease. It is closed when the outcome of the entry
	// is known.
	claims map[lease.LeaseID]chan struct{}
	known  map[lease.LeaseID]*leaseState
	// gone is closed, and replaced, when a lease was revoked.
	gone   chan struct{}
	warned time.Time
}

// leaseState is what the keeper knows about a lease in addition to the lessor. A lease that was
// granted in this epoch and not touched since has none.
type leaseState struct {
	lease *lease.Lease
	// kept means that the lease was renewed in this epoch, so some client keeps it alive.
	kept bool
	// doubt means that a checkpoint was proposed and it is not known whether it will be
	// applied.
	doubt bool
	// claims is how often the lease was claimed.
	claims uint64
}

func newLeaseKeeper(a *API) *leaseKeeper {
	k := &leaseKeeper{
		api: a, lessor: a.store.Lessor(),
		claims: map[lease.LeaseID]chan struct{}{}, known: map[lease.LeaseID]*leaseState{},
		gone: make(chan struct{}),
	}
	return k
}

// lessor is the part of store.Lessor that the keeper needs.
type lessor interface {
	Lookup(lease.LeaseID) *lease.Lease
	Leases() []*lease.Lease
	Renew(lease.LeaseID) (seconds int64, err error)
	Remaining(*lease.Lease) time.Duration
	Covered(*lease.Lease) time.Duration
	Expired(most int) (ended []*lease.Lease, wait time.Duration)
	Sooner() <-chan struct{}
}

// run expires leases and writes checkpoints until ctx ends.
func (k *leaseKeeper) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { k.expire(ctx) })
	wg.Go(func() { k.writeCheckpoints(ctx) })
	wg.Wait()
}

// propose replicates an entry of the leader itself. If authentication is enabled, the entry is
// made in root's name, because a lease must end whoever wrote its keys.
func (k *leaseKeeper) propose(ctx context.Context, r *pb.InternalRaftRequest) (*apply.Result, error) {
	r.Header = &pb.RequestHeader{ID: k.api.ids.Next()}
	if users := k.api.store.Auth(); users.IsAuthEnabled() {
		r.Header.Username, r.Header.AuthRevision = rootUser, users.Revision()
	}
	res, err := k.api.proposer.Propose(ctx, r)
	if err != nil {
		return nil, err
	}
	return res, res.Err
}

// rootUser is etcd's name for the user who may do everything.
const rootUser = "root"

// renew gives a lease its full time again, and returns that in seconds. Nothing that was
// proposed or done before it returns can undo the renewal.
func (k *leaseKeeper) renew(ctx context.Context, id lease.LeaseID) (int64, error) {
	for {
		seen, wait, err := k.look(id)
		if err != nil {
			return 0, err
		}
		if wait != nil {
			if err := pause(ctx, wait, expiredWait); err != nil {
				return 0, err
			}
			continue
		}
		if !seen.doubt {
			ttl, err := k.lessor.Renew(id)
			if err == nil && k.confirm(id, seen) {
				return ttl, nil
			}
			if err != nil && !errors.Is(err, store.ErrCheckpointed) {
				return 0, err
			}
			if err == nil {
				continue // an entry was proposed meanwhile: try again after it
			}
		}
		if err := k.clear(ctx, id); err != nil {
			return 0, err
		}
	}
}

// look returns what is known about a lease, and what a renewal has to wait for, if anything. An
// expired lease is not renewed any more. As in etcd, the renewal waits for the lease's end, so
// that a client that is told that the lease is gone also finds its keys gone.
func (k *leaseKeeper) look(id lease.LeaseID) (seen leaseState, wait <-chan struct{}, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.lessor.Lookup(id)
	if claim, ok := k.claims[id]; ok {
		return seen, claim, nil
	}
	switch {
	case l == nil:
		return seen, nil, lease.ErrLeaseNotFound
	case k.lessor.Remaining(l) <= 0:
		return seen, k.gone, nil
	}
	return *k.state(l), nil, nil
}

// confirm records a renewal, unless the lease was claimed since look.
func (k *leaseKeeper) confirm(id lease.LeaseID, seen leaseState) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	st := k.known[id]
	if st == nil || st.lease != seen.lease || st.claims != seen.claims {
		return false
	}
	st.kept = true
	return true
}

// clear removes a lease's checkpoint.
func (k *leaseKeeper) clear(ctx context.Context, id lease.LeaseID) error {
	l := k.claim(id)
	if l == nil {
		return nil // another entry has claimed it: look again
	}
	_, err := k.propose(ctx, checkpointEntry(&pb.LeaseCheckpoint{ID: int64(id)}))
	k.mu.Lock()
	defer k.mu.Unlock()
	if err == nil {
		k.state(l).doubt = false
	}
	k.unclaim(id)
	return err
}

// claim claims an existing lease for an entry. It returns nil if that is not possible.
func (k *leaseKeeper) claim(id lease.LeaseID) *lease.Lease {
	k.mu.Lock()
	defer k.mu.Unlock()
	l := k.lessor.Lookup(id)
	if _, claimed := k.claims[id]; claimed || l == nil {
		return nil
	}
	k.take(l)
	return l
}

// take claims a lease that is not claimed. mu is held.
func (k *leaseKeeper) take(l *lease.Lease) {
	k.claims[l.ID] = make(chan struct{})
	k.state(l).claims++
}

// unclaim gives up a claim. mu is held.
func (k *leaseKeeper) unclaim(id lease.LeaseID) {
	close(k.claims[id])
	delete(k.claims, id)
}

// state returns the state of a lease, and makes one if there is none. mu is held.
func (k *leaseKeeper) state(l *lease.Lease) *leaseState {
	st := k.known[l.ID]
	if st == nil || st.lease != l { // the same id may be granted again
		st = &leaseState{lease: l}
		k.known[l.ID] = st
	}
	return st
}

func wholeTime(l *lease.Lease) time.Duration { return time.Duration(l.TTL()) * time.Second }

// pause waits for done or for at most the given time. If ctx ends, it returns ctx's error.
func pause(ctx context.Context, done <-chan struct{}, most time.Duration) error {
	timer := time.NewTimer(most)
	defer timer.Stop()
	select {
	case <-done:
	case <-timer.C:
	case <-ctx.Done():
		return ctx.Err()
	}
	return nil
}

// notProposed reports whether an error says for certain that the entry is not in the log and
// never will be.
func notProposed(err error) bool {
	return errors.Is(err, rpctypes.ErrGRPCNoSpace) || errors.Is(err, rpctypes.ErrGRPCRequestTooManyRequests)
}
