package api

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/lease"

	"github.com/dynast-io/dynast/shared/host/tick"
)

const (
	// checkpointTick is how often the keeper looks for leases that need a checkpoint. If
	// looking takes long, it looks less often, so that it needs at most a hundredth of the
	// time.
	checkpointTick  = 500 * time.Millisecond
	checkpointShare = 100
	// maxCheckpoints is the number of checkpoints in one entry.
	maxCheckpoints = 1000

	// A checkpoint is written when the last one (or the grant) is older than a tenth of the
	// time to live, within these bounds. A power loss can extend the life of a lease by that
	// much.
	minCheckpointAge = 5 * time.Second
	maxCheckpointAge = 5 * time.Minute
)

// checkpointAge is how much of its time a lease may use up before a checkpoint is written. A
// client that keeps a lease alive renews it before half of its time is over. (etcd's clients
// renew after a third, but look only twice a second.) Such a lease gets no checkpoint, and
// costs nothing in the log, until its owner is late.
func checkpointAge(ttl time.Duration, kept bool) time.Duration {
	age := min(max(ttl/10, minCheckpointAge), maxCheckpointAge)
	if kept {
		age = max(age, ttl/2+500*time.Millisecond)
	}
	return age
}

// writeCheckpoints writes checkpoints until ctx ends. A cluster without leases, or whose leases
// are all kept alive, writes nothing.
func (k *leaseKeeper) writeCheckpoints(ctx context.Context) {
	for {
		looked := k.checkpoint(ctx)
		if pause(ctx, nil, max(tick.Until(checkpointTick), checkpointShare*looked)) != nil {
			return
		}
	}
}

// checkpoint writes the checkpoints that are due, and returns how long it took to look for
// them.
func (k *leaseKeeper) checkpoint(ctx context.Context) (looked time.Duration) {
	began := time.Now()
	leases := k.lessor.Leases()
	k.forget(len(leases))
	for ctx.Err() == nil {
		var ds []due
		ds, leases = k.claimDue(leases)
		looked += time.Since(began)
		if len(ds) == 0 {
			break
		}
		k.writeDown(ctx, ds)
		began = time.Now()
	}
	return looked
}

// due is a checkpoint that has to be written. Its lease is claimed.
type due struct {
	lease *lease.Lease
	left  int64 // seconds, rounded up
}

// claimDue claims as many leases as fit into an entry. It returns those leases that it did not
// look at.
func (k *leaseKeeper) claimDue(leases []*lease.Lease) (ds []due, rest []*lease.Lease) {
	for i, l := range leases {
		if len(ds) == maxCheckpoints {
			return ds, leases[i:]
		}
		if d, ok := k.claimIfDue(l); ok {
			ds = append(ds, d)
		}
	}
	return ds, nil
}

// claimIfDue claims a lease first and then reads its remaining time. So a renewal that comes
// later waits for the checkpoint and clears it.
func (k *leaseKeeper) claimIfDue(l *lease.Lease) (due, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, claimed := k.claims[l.ID]; claimed || k.lessor.Lookup(l.ID) != l {
		return due{}, false
	}
	covered := k.lessor.Covered(l)
	st := k.known[l.ID]
	kept := st != nil && st.lease == l && st.kept && covered == wholeTime(l)
	left := k.lessor.Remaining(l)
	seconds := int64((left + time.Second - 1) / time.Second)
	if left <= 0 || covered-left < checkpointAge(wholeTime(l), kept) || time.Duration(seconds)*time.Second >= covered {
		return due{}, false
	}
	k.take(l)
	return due{lease: l, left: seconds}, true
}

// writeDown proposes the checkpoints of claimed leases, and gives up the claims.
func (k *leaseKeeper) writeDown(ctx context.Context, ds []due) {
	cs := make([]*pb.LeaseCheckpoint, len(ds))
	for i, d := range ds {
		cs[i] = &pb.LeaseCheckpoint{ID: int64(d.lease.ID), Remaining_TTL: d.left}
	}
	_, err := k.propose(ctx, checkpointEntry(cs...))
	if err != nil && ctx.Err() == nil {
		k.api.logger.Debug("could not write checkpoints of leases", "leases", len(ds), "error", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range ds {
		if err != nil && !notProposed(err) {
			k.state(d.lease).doubt = true
		}
		k.unclaim(d.lease.ID)
	}
}

// forget drops the state of leases that no longer exist.
func (k *leaseKeeper) forget(living int) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if len(k.known) <= living {
		return
	}
	for id, st := range k.known {
		if k.lessor.Lookup(id) != st.lease {
			delete(k.known, id)
		}
	}
}

func checkpointEntry(cs ...*pb.LeaseCheckpoint) *pb.InternalRaftRequest {
	return &pb.InternalRaftRequest{LeaseCheckpoint: &pb.LeaseCheckpointRequest{Checkpoints: cs}}
}
