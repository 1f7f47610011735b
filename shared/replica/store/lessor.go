package store

import (
	"cmp"
	"container/heap"
	"errors"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.etcd.io/etcd/server/v3/lease"

	"github.com/dynast-io/dynast/shared/host/proc"
)

// ErrCheckpointed means that a lease has a checkpoint. An entry of the log must clear it before
// the lease can be renewed.
var ErrCheckpointed = errors.New("lease has a checkpoint")

// Lessor manages the leases. etcd's lessor knows which leases exist and which keys they have,
// and this is the same in every member. Only the leader knows when leases end; it records that
// in Deadlines for its successor. etcd's own lessor is never promoted, because it would start
// each lease anew.
type Lessor struct {
	lease.Lessor
	now func() time.Duration // of CLOCK_BOOTTIME
	// applying is the index of the entry that is being applied, or was applied last.
	applying atomic.Uint64
	leading  atomic.Bool

	mu   sync.Mutex
	held map[lease.LeaseID]*heldLease
	file *Deadlines
	// queue says when to look at leases. Only a leader has one.
	queue expiries
	// sooner is signalled when a new lease ends before all others.
	sooner chan struct{}
}

// heldLease is a lease and its times.
type heldLease struct {
	*lease.Lease
	// granted is the index of the entry that granted it, or a later one.
	granted uint64
	// checkpoint is the remaining time that the log holds; 0 means none.
	checkpoint time.Duration
	// deadline and record are set in the leader only.
	deadline time.Duration
	record   int
}

func newLessor(etcds lease.Lessor, applied uint64, checkpoints map[lease.LeaseID]time.Duration, file *Deadlines) *Lessor {
	l := &Lessor{Lessor: etcds, now: proc.SinceBoot, held: map[lease.LeaseID]*heldLease{}, file: file, sooner: make(chan struct{}, 1)}
	l.applying.Store(applied)
	for _, le := range etcds.Leases() {
		l.held[le.ID] = &heldLease{Lease: le, granted: applied, checkpoint: checkpoints[le.ID], record: noRecord}
	}
	return l
}

// applies is called before an entry is applied.
func (l *Lessor) applies(index uint64) { l.applying.Store(index) }

// applied is called when the entry's effects are complete.
func (l *Lessor) applied() {
	if l.leading.Load() {
		l.file.setApplied(l.applying.Load())
	}
}

// Grant makes a lease. In the leader its time begins now.
func (l *Lessor) Grant(id lease.LeaseID, ttl int64) (*lease.Lease, error) {
	granted, err := l.Lessor.Grant(id, ttl)
	if err != nil {
		return nil, err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	h := &heldLease{Lease: granted, granted: l.applying.Load(), record: noRecord}
	l.held[id] = h
	if l.leading.Load() {
		l.start(h, l.now()+h.whole())
	}
	return granted, nil
}

// Revoke ends a lease and deletes its keys.
func (l *Lessor) Revoke(id lease.LeaseID) error {
	err := l.Lessor.Revoke(id)
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.held[id]; h != nil {
		delete(l.held, id) // its item in the queue is dropped when it is due
		if l.leading.Load() {
			l.file.drop(h.record)
		}
	}
	return err
}

// Checkpoint records the remaining time of a lease, in seconds, that the log holds; 0 clears
// it.
func (l *Lessor) Checkpoint(id lease.LeaseID, seconds int64) error {
	if err := l.Lessor.Checkpoint(id, seconds); err != nil {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.held[id]; h != nil {
		h.checkpoint = time.Duration(seconds) * time.Second
	}
	return nil
}

// Promote makes this the leader's lessor. A lease keeps the deadline that the previous leader
// recorded. If there is none, it gets the time that Covered returns. Each lease gets at least
// grace, or its full time if that is shorter, because nobody could renew it during the
// takeover.
func (l *Lessor) Promote(grace time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now, applied := l.now(), l.applying.Load()
	for _, h := range l.held {
		h.deadline, h.record = 0, noRecord
	}
	records, upTo := l.file.begin(applied)
	for _, r := range records {
		h := l.held[lease.LeaseID(r.id)]
		if h == nil || h.record != noRecord {
			l.file.drop(r.record)
			continue
		}
		h.record = r.record
		// Otherwise the record belongs to an earlier lease with the same id, or is nonsense.
		if h.granted <= upTo && r.deadline <= now+h.whole() {
			h.deadline = r.deadline
		}
	}
	l.queue = make(expiries, 0, len(l.held))
	for _, h := range l.held {
		if h.deadline == 0 {
			h.deadline = now + h.covered()
		}
		h.deadline = max(h.deadline, now+min(grace, h.whole()))
		h.record = l.file.set(h.record, int64(h.ID), h.deadline)
		l.queue = append(l.queue, expiry{at: h.deadline, id: h.ID})
	}
	heap.Init(&l.queue)
	l.file.setApplied(applied)
	l.leading.Store(true)
}

// Demote undoes Promote.
func (l *Lessor) Demote() {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.leading.Store(false)
	l.queue = nil
}

// start sets the deadline of a lease that is not in the queue.
func (l *Lessor) start(h *heldLease, at time.Duration) {
	h.deadline = at
	h.record = l.file.set(h.record, int64(h.ID), at)
	heap.Push(&l.queue, expiry{at: at, id: h.ID})
	if l.queue[0].id == h.ID {
		select {
		case l.sooner <- struct{}{}:
		default:
		}
	}
}

// Renew gives a lease its full time again, and returns that in seconds. When Renew returns, the
// next leader will know the new deadline. Renew also renews a lease whose time is over; the
// caller decides whether that is allowed.
func (l *Lessor) Renew(id lease.LeaseID) (int64, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	h := l.held[id]
	switch {
	case !l.leading.Load():
		return -1, lease.ErrNotPrimary
	case h == nil:
		return -1, lease.ErrLeaseNotFound
	case h.checkpoint > 0:
		return -1, ErrCheckpointed
	}
	now := l.now()
	if h.deadline <= now { // Expired may have returned it already
		l.start(h, now+h.whole())
	} else {
		h.deadline = now + h.whole() // its item in the queue is corrected when it is due
		h.record = l.file.set(h.record, int64(id), h.deadline)
	}
	renewals().Inc()
	return h.TTL(), nil
}

// Remaining is the time until a lease ends. It is negative if the lease should have ended. Only
// a leader may call it.
func (l *Lessor) Remaining(le *lease.Lease) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.held[le.ID]; h != nil {
		return h.deadline - l.now()
	}
	return time.Duration(le.TTL()) * time.Second // it is being granted, or has just ended
}

// Covered is the time that a lease gets when its deadline is not known: its last checkpoint, or
// its full time if it has none.
func (l *Lessor) Covered(le *lease.Lease) time.Duration {
	l.mu.Lock()
	defer l.mu.Unlock()
	if h := l.held[le.ID]; h != nil {
		return h.covered()
	}
	return time.Duration(le.TTL()) * time.Second
}

func (h *heldLease) whole() time.Duration { return time.Duration(h.TTL()) * time.Second }

func (h *heldLease) covered() time.Duration {
	if h.checkpoint > 0 {
		return min(h.checkpoint, h.whole())
	}
	return h.whole()
}

// Leases returns all leases, in the order in which they end.
func (l *Lessor) Leases() []*lease.Lease {
	l.mu.Lock()
	held := make([]heldLease, 0, len(l.held))
	for _, h := range l.held {
		held = append(held, *h)
	}
	l.mu.Unlock()
	slices.SortFunc(held, func(a, b heldLease) int { return cmp.Compare(a.deadline, b.deadline) })
	leases := make([]*lease.Lease, len(held))
	for i, h := range held {
		leases[i] = h.Lease
	}
	return leases
}

// Expired returns at most so many leases whose time is over, and how long to wait before the
// next call. Leases that are not revoked are returned again after leaseRetryInterval.
func (l *Lessor) Expired(most int) (ended []*lease.Lease, wait time.Duration) {
	l.mu.Lock()
	defer l.mu.Unlock()
	now := l.now()
	for len(l.queue) > 0 && len(ended) < most {
		first := &l.queue[0]
		if first.at > now {
			return ended, first.at - now
		}
		switch h := l.held[first.id]; {
		case h == nil: // revoked
			heap.Pop(&l.queue)
			continue
		case h.deadline > now: // renewed
			first.at = h.deadline
		default:
			ended = append(ended, h.Lease)
			first.at = now + leaseRetryInterval
		}
		heap.Fix(&l.queue, 0)
	}
	if len(ended) == most {
		return ended, 0
	}
	return ended, expiryWait
}

// expiryWait is how long to wait when there is no lease.
const expiryWait = time.Hour

// Sooner is signalled when Expired should be called before the time that it returned.
func (l *Lessor) Sooner() <-chan struct{} { return l.sooner }

// expiry is a time at which to look at a lease. A lease can have more than one.
type expiry struct {
	at time.Duration
	id lease.LeaseID
}

// expiries is a heap with the earliest expiry on top.
type expiries []expiry

func (q expiries) Len() int           { return len(q) }
func (q expiries) Less(i, j int) bool { return q[i].at < q[j].at }
func (q expiries) Swap(i, j int)      { q[i], q[j] = q[j], q[i] }
func (q *expiries) Push(x any)        { *q = append(*q, x.(expiry)) }
func (q *expiries) Pop() any {
	last := len(*q) - 1
	x := (*q)[last]
	*q = (*q)[:last]
	return x
}

// renewals is etcd's counter of renewals. etcd counts only in a lessor that is promoted, so
// this package has to count itself.
var renewals = sync.OnceValue(func() prometheus.Counter {
	c := prometheus.NewCounter(prometheus.CounterOpts{Namespace: "etcd_debugging", Subsystem: "lease", Name: "renewed_total",
		Help: "The number of renewed leases seen by the leader."})
	var there prometheus.AlreadyRegisteredError
	if err := prometheus.Register(c); errors.As(err, &there) {
		if counter, ok := there.ExistingCollector.(prometheus.Counter); ok {
			return counter
		}
	}
	return c
})
