package clientapi

import (
	"context"
	"errors"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/lease"
)

const (
	// maxRevokes bounds the revocations under way. The lessor reports at most
	// 500 expired leases each half second.
	maxRevokes = 128
	// warnInterval bounds how often it is logged that leases can't be ended.
	warnInterval = 10 * time.Second
)

// expire ends the leases that the lessor reports as expired. It never stops
// listening: what can't be ended now is reported again.
func (k *leaseKeeper) expire(ctx context.Context) {
	var wg sync.WaitGroup
	defer wg.Wait()
	slots := make(chan struct{}, maxRevokes)
	for {
		select {
		case <-ctx.Done():
			return
		case expired := <-k.lessor.ExpiredLeasesC():
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
		}
	}
}

// end revokes a lease through the log, unless it is not expired any more, is
// gone, or is being ended already.
func (k *leaseKeeper) end(ctx context.Context, l *lease.Lease) {
	expired := func(now *lease.Lease) bool { return now == l && l.Remaining() <= 0 }
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
		k.api.logger.Warn("an expired lease could not be ended, this is tried again", "lease", id, "error", err)
	}
}

// revoking claims a lease for a revocation that a client asks for, and returns
// what is to be called when its outcome is known. A checkpoint under way is
// waited for: it names the lease by its id, and must not reach the next one of
// that name.
func (k *leaseKeeper) revoking(ctx context.Context, id lease.LeaseID) (done func()) {
	if k.claimWhen(ctx, id, func(*lease.Lease) bool { return true }) == nil {
		return func() {} // there is none; the log says so too
	}
	return func() { k.ended(id) }
}

// ended gives back the claim of a revocation.
func (k *leaseKeeper) ended(id lease.LeaseID) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.unclaim(id)
	close(k.gone)
	k.gone = make(chan struct{})
}

// claimWhen waits for what is under way about a lease, and claims it if it is
// still wanted then; nil if not. (A renewal that clears a checkpoint may come in
// time, for example.)
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
