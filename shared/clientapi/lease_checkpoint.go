package clientapi

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/lease"

	"github.com/dynast-io/dynast/shared/tick"
)

const (
	// checkpointTick is how often it is looked which leases need a checkpoint;
	// less often if the look takes long: at most a hundredth of the time.
	checkpointTick  = 500 * time.Millisecond
	checkpointShare = 100
	// maxCheckpoints is the number in one entry.
	maxCheckpoints = 1000

	// A checkpoint is written when the last one (or the grant) is older than a
	// twentieth of the time to live, within these bounds. That much a takeover can
	// add to the life of a lease.
	minCheckpointAge = time.Second
	maxCheckpointAge = time.Minute
)

// checkpointAge is how much of its time a lease may use up before it is
// written down. Somebody who renews a lease does so before half of its time is
// over (etcd's clients: after a third, but they look twice a second only); such a
// lease gets no checkpoint, and so costs nothing in the log, until its owner is late.
func checkpointAge(ttl time.Duration, kept bool) time.Duration {
	age := min(max(ttl/20, minCheckpointAge), maxCheckpointAge)
	if kept {
		age = max(age, ttl/2+500*time.Millisecond)
	}
	return age
}

// writeCheckpoints writes down how much time leases have left, until ctx ends.
// A cluster without leases, or with kept ones only, writes nothing.
func (k *leaseKeeper) writeCheckpoints(ctx context.Context) {
	k.inherit()
	for {
		looked := k.checkpoint(ctx)
		if pause(ctx, nil, max(tick.Until(checkpointTick), checkpointShare*looked)) != nil {
			return
		}
	}
}

// checkpoint writes down what is due now, and returns how long it took to look.
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

// inherit notes where the leases of earlier epochs start: what they have left
// now is what they had at the last checkpoint.
func (k *leaseKeeper) inherit() {
	for _, l := range k.lessor.Leases() {
		k.mu.Lock()
		if st := k.known[l.ID]; st == nil || st.lease != l {
			k.known[l.ID] = &leaseState{lease: l, covered: min(l.Remaining(), wholeTime(l))}
		}
		k.mu.Unlock()
	}
}

// due is a checkpoint to be written, of a claimed lease.
type due struct {
	lease *lease.Lease
	left  int64 // seconds, rounded up
}

// claimDue claims as many leases as fit into an entry, and returns those that
// it did not look at.
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

// claimIfDue reads what is left of a lease after it is claimed: a renewal
// that comes later waits for the checkpoint and clears it.
func (k *leaseKeeper) claimIfDue(l *lease.Lease) (due, bool) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if _, claimed := k.claims[l.ID]; claimed || k.lessor.Lookup(l.ID) != l {
		return due{}, false
	}
	covered, kept := wholeTime(l), false
	if st := k.known[l.ID]; st != nil && st.lease == l {
		covered, kept = st.covered, st.kept && st.covered == wholeTime(l)
	}
	left := l.Remaining()
	seconds := int64((left + time.Second - 1) / time.Second)
	if left <= 0 || covered-left < checkpointAge(wholeTime(l), kept) || time.Duration(seconds)*time.Second >= covered {
		return due{}, false
	}
	k.take(l)
	return due{lease: l, left: seconds}, true
}

// writeDown proposes checkpoints of claimed leases, and ends the claims.
func (k *leaseKeeper) writeDown(ctx context.Context, ds []due) {
	cs := make([]*pb.LeaseCheckpoint, len(ds))
	for i, d := range ds {
		cs[i] = &pb.LeaseCheckpoint{ID: int64(d.lease.ID), Remaining_TTL: d.left}
	}
	_, err := k.propose(ctx, checkpointEntry(cs...))
	if err != nil && ctx.Err() == nil {
		k.api.logger.Debug("the remaining times of leases could not be written down", "leases", len(ds), "error", err)
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	for _, d := range ds {
		st := k.state(d.lease)
		switch {
		case err == nil:
			st.covered = time.Duration(d.left) * time.Second
		case !notProposed(err):
			st.doubt = true
		}
		k.unclaim(d.lease.ID)
	}
}

// forget drops what is known of leases that are gone, when there are some.
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
