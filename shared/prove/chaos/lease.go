package chaos

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Lease is the life of a lease with one key, as its owner saw it. Times are those of History.Now;
// 0 means "not yet".
type Lease struct {
	Key string
	TTL time.Duration
	// Called and Granted are the times of the request for the grant and of its answer.
	Called, Granted int64
	// Kept says that the owner renewed the lease. Renewed is the time of the last answer to a
	// renewal before Gone, or before the end of the record.
	Kept    bool
	Renewed int64
	// Gone is the time when a watch reported that the key was deleted.
	Gone int64
	// Until is the end of the record.
	Until int64
	// Takeovers is the number of leaderships that began between Called and Until, and Extended the
	// time that they may have added.
	Takeovers int
	Extended  time.Duration
	// Outage is the time in that span during which no change was acknowledged.
	Outage time.Duration
}

const (
	// leaseSlack is the allowed delay of an end. A leader retries an end that got no answer after
	// three seconds.
	leaseSlack = 4 * time.Second
	// renewalSlack is the allowed time between a renewal and its answer.
	renewalSlack = time.Second
)

// bound returns how long a lease without renewals may live. On one host, takeovers add nothing. An outage
// counts twice: no lease can end during the outage, and afterwards a lease gets as much time
// again for its renewal. If all members were dead, it gets a heartbeat timeout.
func (l *Lease) bound(heartbeat time.Duration) time.Duration {
	return l.TTL + l.Extended + 2*l.Outage + heartbeat + leaseSlack
}

// CheckLeases returns the violations of leases. heartbeat is heartbeat.timeout. A kept lease may
// end if its owner could not renew it in time.
func CheckLeases(leases []*Lease, heartbeat time.Duration) (wrong []string) {
	for _, l := range leases {
		lived := time.Duration(l.Gone - l.Called)
		switch unrenewed := time.Duration(l.Gone - l.Renewed); {
		case l.Kept && l.Gone > 0 && unrenewed < l.TTL-renewalSlack:
			wrong = append(wrong, fmt.Sprintf("%s: ended %s after an answered renewal for %s", l.Key, unrenewed.Round(time.Millisecond), l.TTL))
		case l.Kept:
		case l.Gone > 0 && lived < l.TTL:
			wrong = append(wrong, fmt.Sprintf("%s: ended %s after it was granted for %s", l.Key, lived.Round(time.Millisecond), l.TTL))
		case l.Gone > 0 && time.Duration(l.Gone-l.Granted) > l.bound(heartbeat):
			wrong = append(wrong, fmt.Sprintf("%s: ended too late, %s after it was granted for %s, with %d takeovers", l.Key, time.Duration(l.Gone-l.Granted).Round(time.Millisecond), l.TTL, l.Takeovers))
		case l.Gone == 0 && time.Duration(l.Until-l.Granted) > l.bound(heartbeat):
			wrong = append(wrong, fmt.Sprintf("%s: still exists %s after it was granted for %s, with %d takeovers", l.Key, time.Duration(l.Until-l.Granted).Round(time.Millisecond), l.TTL, l.Takeovers))
		}
	}
	return wrong
}

// leaseholders grants leases and records how they end.
type leaseholders struct {
	h      *History
	stock  *clientv3.Client
	prefix string
	// takeovers and outage return what happened in a span of time.
	takeovers func(from, to int64) int
	outage    func(from, to int64) time.Duration
	heartbeat time.Duration
	// restarted says that each takeover gives a lease its whole time again, and extension is what it
	// adds to that. It is so in etcd.
	restarted bool
	extension time.Duration

	mu     sync.Mutex
	leases []*Lease
	gone   map[string]int64 // by key
	// ops are the changes of leased keys, for CheckEvents.
	ops []porcupine.Operation
}

// onEvent records the events of a watch.
func (l *leaseholders) onEvent(e Event) {
	if !e.Delete || !l.leased(e.Key) {
		return
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.gone[e.Key] = l.h.Now()
}

func (l *leaseholders) leased(key string) bool {
	return len(key) > len(l.prefix) && key[:len(l.prefix)] == l.prefix
}

const (
	renewedTTL  = 10 // seconds; longer than a cold start takes
	expiringTTL = 2  // seconds; the minimum in etcd
)

// grant creates a lease with a key. It returns nil if the outcome is unknown.
func (l *leaseholders) grant(ctx context.Context, name string, ttl int64, kept bool) (*Lease, clientv3.LeaseID) {
	try, done := context.WithTimeout(ctx, attempt)
	defer done()
	lease := &Lease{Key: l.prefix + name, Called: l.h.Now(), Kept: kept}
	g, err := l.stock.Grant(try, ttl)
	if err != nil {
		return nil, 0
	}
	lease.TTL, lease.Granted = time.Duration(g.TTL)*time.Second, l.h.Now()
	lease.Renewed = lease.Called // the earliest possible time
	call := l.h.Now()
	r, err := l.stock.Put(try, lease.Key, name, clientv3.WithLease(g.ID))
	op := porcupine.Operation{Input: Request{Kind: Put, Key: lease.Key, To: name}, Call: call, Return: l.h.Now(), Output: Answer{Unknown: err != nil}}
	if err == nil {
		op.Output = Answer{Revision: r.Header.Revision}
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	l.ops = append(l.ops, op)
	if err != nil {
		return nil, 0
	}
	l.leases = append(l.leases, lease)
	return lease, g.ID
}

// keep keeps a lease alive until ctx ends.
func (l *leaseholders) keep(ctx context.Context, name string) {
	var lease *Lease
	var id clientv3.LeaseID
	for i := 0; lease == nil; i++ {
		if ctx.Err() != nil {
			return
		}
		lease, id = l.grant(ctx, fmt.Sprint(name, "-", i), renewedTTL, true)
	}
	answers, err := l.stock.KeepAlive(ctx, id)
	if err != nil {
		return // ctx ended
	}
	for range answers { // closed when ctx ends, and when the lease is lost
		l.mu.Lock()
		if l.gone[lease.Key] == 0 {
			lease.Renewed = l.h.Now()
		}
		l.mu.Unlock()
	}
}

// letExpire grants one lease after the other without renewals until ctx ends. It returns when the
// last lease has ended or is overdue, or when life ends.
func (l *leaseholders) letExpire(ctx, life context.Context, name string) {
	for i := 0; ctx.Err() == nil; i++ {
		lease, _ := l.grant(ctx, fmt.Sprint(name, "-", i), expiringTTL, false)
		for lease != nil && !l.ended(lease) && life.Err() == nil {
			pause(life, 20*time.Millisecond)
		}
	}
}

// ended updates a lease's record, and reports whether its key is gone or overdue.
func (l *leaseholders) ended(lease *Lease) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.update(lease)
	return lease.Gone > 0 || time.Duration(lease.Until-lease.Granted) > lease.bound(l.heartbeat)
}

func (l *leaseholders) update(lease *Lease) {
	lease.Gone, lease.Until = l.gone[lease.Key], l.h.Now()
	to := lease.Until
	if lease.Gone > 0 {
		to = lease.Gone
	}
	lease.Takeovers, lease.Outage = l.takeovers(lease.Called, to), 0
	if l.restarted {
		lease.Extended = time.Duration(lease.Takeovers) * (lease.TTL + l.extension)
	}
	if time.Duration(to-lease.Granted) > lease.bound(l.heartbeat) { // the outage matters only in this case
		lease.Outage = l.outage(lease.Called, to)
	}
}

// result returns all leases in their current state, and the operations on their keys.
func (l *leaseholders) result() ([]*Lease, []porcupine.Operation) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, lease := range l.leases {
		l.update(lease)
	}
	return slices.Clone(l.leases), slices.Clone(l.ops)
}
