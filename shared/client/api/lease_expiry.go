package api

import (
	"context"
	"errors"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/lease"

	"github.com/dynast-io/dynast/shared/host/tick"
)

const (
	// maxRevokes bounds how many revocations run at a time.
	maxRevokes = 128
	// expiryTick bounds the wait for the next lease that ends. It is needed because a timer
	// does not count the time for which the host is suspended, but deadlines do.
	expiryTick = 500 * time.Millisecond
	// warnInterval bounds how often the log reports that leases cannot be ended.
	warnInterval = 10 * time.Second
)

// expire ends leases as soon as the lessor reports them as expired. The lessor reports a lease
// again if it could not be ended.
func (k *leaseKeeper) expire(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxRevokes)
	for {
		expired, wait := k.lessor.Expired(maxRevokes)
		for _, l := range expired {
			select {
			case slots <- struct{}{}:
			case <-ctx.Done():
				return
			}
			wg.Go(func() {
				k.end(ctx, l)
				<-slots
			})
		}
		if wait > expiryTick {
			wait = tick.Until(expiryTick)
		}
		if pause(ctx, k.lessor.Sooner(), wait) != nil {
			return
		}
	}
}

// end revokes a lease through the log. It does nothing if the lease is not expired any more, is
// gone, or is already being ended.
func (k *leaseKeeper) end(ctx context.Context, l *lease.Lease) {
	expired := func(now *lease.Lease) bool { return now == l && k.lessor.Remaining(l) <= 0 }
	if k.claimWhen(ctx, l.ID, expired) == nil {
		return
	}
	defer k.ended(l.ID)
	_, err := k.propose(ctx, &pb.InternalRaftRequest{LeaseRevoke: &pb.LeaseRevokeRequest{ID: int64(l.ID)}})
	if err != nil && !errors.Is(err, lease.ErrLeaseNotFound) && ctx.Err() == nil {
		k.warn(l.ID, err)
	}
}

func (k *leaseKeeper) warn(id lease.LeaseID, err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if time.Since(k.warned) >= warnInterval {
		k.warned = time.Now()
		k.api.logger.Warn("cannot end an expired lease, trying again", "lease", id, "error", err)
	}
}

// revoking claims a lease for a revocation that a client asked for. The caller must call done
// when the outcome is known. revoking first waits for a checkpoint that is under way. A
// checkpoint names the lease by its id, and must not be applied to a later lease with the same
// id.
func (k *leaseKeeper) revoking(ctx context.Context, id lease.LeaseID) (done func()) {
	if k.claimWhen(ctx, id, func(*lease.Lease) bool { return true }) == nil {
		return func() {} // there is no such lease, and applying the entry will say so
	}
	return func() { k.ended(id) }
}

// ended gives up the claim of a revocation.
func (k *leaseKeeper) ended(id lease.LeaseID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unclaim(id)
	close(k.gone)
	k.gone = make(chan struct{})
}

// claimWhen waits for what is under way for a lease, and then claims it if it is still wanted.
// It returns nil if not, for example because a renewal that clears a checkpoint came in time.
func (k *leaseKeeper) claimWhen(ctx context.Context, id lease.LeaseID, wanted func(*lease.Lease) bool) *lease.Lease {
	for {
		k.mu.Lock()
		l := k.lessor.Lookup(id)
		if l == nil || !wanted(l) {
			k.mu.Unlock()
			return nil
		}
		claim, claimed := k.claims[id]
		if !claimed {
			k.take(l)
			k.mu.Unlock()
			return l
		}
		k.mu.Unlock()
		select {
		case <-claim:
		case <-ctx.Done():
			return nil
		}
	}
}
