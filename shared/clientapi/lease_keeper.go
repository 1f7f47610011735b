package clientapi

import (
	"context"
	"errors"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"go.etcd.io/etcd/server/v3/lease"
)

// errCheckpointed is how etcd's lessor tells that a lease has a checkpoint,
// which must be cleared before the lease is renewed.
var errCheckpointed = errors.New("lease has a checkpoint")

// expiredWait is how often a renewal that waits for the end of an expired
// lease looks by itself, besides being told.
const expiredWait = 500 * time.Millisecond

// leaseKeeper keeps what a leader promises about leases: a lease that was
// granted or renewed lives at least that long, also under later leaders, and
// not much longer if it is not renewed.
//
// Only the leader's memory knows how much time a lease has left. In the store
// is its whole time to live, and a checkpoint: the rest that it had when the
// leader last wrote it down. The next leader starts from the checkpoint, or else
// from the whole. So a renewal needs nothing but memory, unless there is a
// checkpoint: then an entry that clears it comes first.
//
// A renewal must not be answered while an entry is under way that takes it
// back: a checkpoint from before the renewal, or the end of the lease. etcd's
// lessor has these races. Here each entry about a lease claims it, one at a
// time, and a renewal that meets a claim, or missed one, begins again after it.
type leaseKeeper struct {
	api    *API
	lessor lease.Lessor

	mu sync.Mutex
	// claims are closed when the outcome of their entry is known.
	claims map[lease.LeaseID]chan struct{}
	known  map[lease.LeaseID]*leaseState
	// gone is closed, and replaced, when a lease was revoked.
	gone   chan struct{}
	warned time.Time
}

// leaseState is what is known of a lease besides what the lessor knows. A
// lease that was granted in this epoch and nothing happened to since has none.
type leaseState struct {
	lease *lease.Lease
	// covered is what the lease would start with under the next leader.
	covered time.Duration
	// kept: it was renewed in this epoch, so there is somebody who does.
	kept bool
	// doubt: a checkpoint was proposed, and whether it will be applied is not known.
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
	k.lessor.SetCheckpointer(refuseClearing)
	return k
}

// refuseClearing is the lessor's checkpointer. When it is asked to clear a
// checkpoint, a renewal is on its way: that one does it itself, under a claim.
// What else the lessor wants to write down is not needed.
func refuseClearing(_ context.Context, r *pb.LeaseCheckpointRequest) error {
	for _, c := range r.Checkpoints {
		if c.Remaining_TTL == 0 {
			return errCheckpointed
		}
	}
	return nil
}

// run expires leases and writes checkpoints until ctx ends.
func (k *leaseKeeper) run(ctx context.Context) {
	var wg sync.WaitGroup
	wg.Go(func() { k.expire(ctx) })
	wg.Go(func() { k.writeCheckpoints(ctx) })
	wg.Wait()
}

// propose replicates an entry of the leader's own. It is root's while there
// are users: a lease ends whoever wrote its keys.
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

// rootUser is etcd's name of the one who may do everything.
const rootUser = "root"

// renew gives a lease its whole time again and returns it, in seconds. Nothing
// that is proposed or done before it returns takes it back.
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
			if err != nil && !errors.Is(err, errCheckpointed) {
				return 0, err
			}
			if err == nil {
				continue // something was proposed meanwhile: once more, after it
			}
		}
		if err := k.clear(ctx, id); err != nil {
			return 0, err
		}
	}
}

// look says what is known of a lease, and what a renewal has to wait for, if
// anything. An expired lease is not renewed any more; its end is waited for, as
// in etcd, so that who is told that it is gone finds its keys gone.
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
	case l.Remaining() <= 0:
		return seen, k.gone, nil
	}
	return *k.state(l), nil, nil
}

// confirm notes a renewal, unless the lease was claimed since it was looked at.
func (k *leaseKeeper) confirm(id lease.LeaseID, seen leaseState) bool {
	k.mu.Lock()
	defer k.mu.Unlock()
	st := k.known[id]
	if st == nil || st.lease != seen.lease || st.claims != seen.claims {
		return false
	}
	st.kept, st.covered = true, wholeTime(st.lease)
	return true
}

// clear removes a checkpoint.
func (k *leaseKeeper) clear(ctx context.Context, id lease.LeaseID) error {
	l := k.claim(id)
	if l == nil {
		return nil // somebody else has it: look again
	}
	_, err := k.propose(ctx, checkpointEntry(&pb.LeaseCheckpoint{ID: int64(id)}))
	k.mu.Lock()
	defer k.mu.Unlock()
	st := k.state(l)
	st.covered = wholeTime(l)
	if err == nil {
		st.doubt = false
	}
	k.unclaim(id)
	return err
}

// claim takes a living lease for an entry about it; nil if it can't be had.
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

// take claims a lease that nobody has claimed; with mu held.
func (k *leaseKeeper) take(l *lease.Lease) {
	k.claims[l.ID] = make(chan struct{})
	k.state(l).claims++
}

// unclaim is called with mu held.
func (k *leaseKeeper) unclaim(id lease.LeaseID) {
	close(k.claims[id])
	delete(k.claims, id)
}

// state returns what is known of a lease; with mu held.
func (k *leaseKeeper) state(l *lease.Lease) *leaseState {
	st := k.known[l.ID]
	if st == nil || st.lease != l { // the same id may be granted again
		st = &leaseState{lease: l, covered: wholeTime(l)}
		k.known[l.ID] = st
	}
	return st
}

func wholeTime(l *lease.Lease) time.Duration { return time.Duration(l.TTL()) * time.Second }

// pause waits for done, or a little, or returns the error of ctx.
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

// notProposed reports whether an error says for certain that the entry is not
// in the log and never will be.
func notProposed(err error) bool {
	return errors.Is(err, rpctypes.ErrGRPCNoSpace) || errors.Is(err, rpctypes.ErrGRPCRequestTooManyRequests)
}
