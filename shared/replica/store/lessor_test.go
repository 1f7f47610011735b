package store

import (
	"errors"
	"path/filepath"
	"slices"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/lease"

	"github.com/dynast-io/dynast/shared/rules/entry"
)

// leases is a store whose clock belongs to the test.
type leases struct {
	*Store
	t *testing.T
}

// openLeases opens a member's store. Stores with the same path share the file.
func openLeases(t *testing.T, path string, origin uint64, now *time.Duration) leases {
	t.Helper()
	s, err := Open(Config{Dir: t.TempDir(), Deadlines: deadlinesAt(t, path, origin)})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	s.lessor.now = func() time.Duration { return *now }
	return leases{Store: s, t: t}
}

func (l leases) apply(rs ...*pb.InternalRaftRequest) {
	l.t.Helper()
	for _, r := range rs {
		res, err := l.Apply(entry.Entry{Index: l.Applied().Index + 1, Epoch: 1, Data: data(l.t, r)})
		if err != nil || res != nil && res.Err != nil {
			l.t.Fatal(err, res)
		}
	}
}

func grantOf(id, ttl int64) *pb.InternalRaftRequest {
	return &pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: id, TTL: ttl}}
}

func revokeOf(id int64) *pb.InternalRaftRequest {
	return &pb.InternalRaftRequest{LeaseRevoke: &pb.LeaseRevokeRequest{ID: id}}
}

func checkpointOf(id, seconds int64) *pb.InternalRaftRequest {
	return &pb.InternalRaftRequest{LeaseCheckpoint: &pb.LeaseCheckpointRequest{Checkpoints: []*pb.LeaseCheckpoint{{ID: id, Remaining_TTL: seconds}}}}
}

func (l leases) wantLeft(id lease.LeaseID, want time.Duration) {
	l.t.Helper()
	if got := l.Lessor().Remaining(l.Lessor().Lookup(id)); got != want {
		l.t.Errorf("lease %d has %s left, want %s", id, got, want)
	}
}

func TestDeadlinesGoOnUnderTheNextLeader(t *testing.T) {
	now := time.Hour
	path := filepath.Join(t.TempDir(), "deadlines")
	first, second := openLeases(t, path, 7, &now), openLeases(t, path, 7, &now)
	first.Promote(0)
	both := []*pb.InternalRaftRequest{grantOf(1, 60), grantOf(2, 5), grantOf(3, 100), checkpointOf(3, 90), grantOf(4, 10)}
	first.apply(both...)
	second.apply(both...)
	now += 2500 * time.Millisecond
	if ttl, err := first.Lessor().Renew(1); err != nil || ttl != 60 {
		t.Fatal(ttl, err)
	}
	if _, err := first.Lessor().Renew(3); !errors.Is(err, ErrCheckpointed) {
		t.Errorf("a lease with a checkpoint was renewed: %v", err)
	}
	now += 2 * time.Second
	// The first leader is dead. It had not applied that lease 4 ends and another lease gets its
	// id.
	second.apply(revokeOf(4), grantOf(4, 10), grantOf(5, 30))
	second.Promote(0)
	second.wantLeft(1, 58*time.Second)
	second.wantLeft(2, 500*time.Millisecond)
	second.wantLeft(3, 95500*time.Millisecond)
	second.wantLeft(4, 10*time.Second)
	second.wantLeft(5, 30*time.Second)
	if ids := ids(second.Lessor().Leases()); !slices.Equal(ids, []lease.LeaseID{2, 4, 5, 1, 3}) {
		t.Errorf("leases are %v, not those first that end first", ids)
	}
	ended, wait := second.Lessor().Expired(10)
	if len(ended) != 0 || wait != 500*time.Millisecond {
		t.Errorf("expired: %v, next in %s", ids(ended), wait)
	}
	now += 500 * time.Millisecond
	if ended, _ := second.Lessor().Expired(10); !slices.Equal(ids(ended), []lease.LeaseID{2}) {
		t.Errorf("expired: %v", ids(ended))
	}
	if ended, wait := second.Lessor().Expired(10); len(ended) != 0 || wait != leaseRetryInterval {
		t.Errorf("reported again at once: %v, %s", ids(ended), wait)
	}
	now += leaseRetryInterval
	if ended, _ := second.Lessor().Expired(10); !slices.Equal(ids(ended), []lease.LeaseID{2}) {
		t.Errorf("not reported again: %v", ids(ended))
	}
	second.apply(revokeOf(2))
	now += time.Hour
	if ended, _ := second.Lessor().Expired(3); len(ended) != 3 {
		t.Errorf("expired, at most three: %v", ids(ended))
	}
	if ended, _ := second.Lessor().Expired(3); len(ended) != 1 {
		t.Errorf("expired, the last one: %v", ids(ended))
	}
}

func ids(ls []*lease.Lease) []lease.LeaseID {
	var out []lease.LeaseID
	for _, l := range ls {
		out = append(out, l.ID)
	}
	return out
}

// After a power loss only the log is known.
func TestDeadlinesOfAnotherBoot(t *testing.T) {
	now := time.Hour
	path := filepath.Join(t.TempDir(), "deadlines")
	first := openLeases(t, path, 7, &now)
	first.Promote(0)
	log := []*pb.InternalRaftRequest{grantOf(1, 60), grantOf(2, 60), checkpointOf(2, 40)}
	first.apply(log...)
	now = time.Minute
	second := openLeases(t, path, 8, &now)
	second.apply(log...)
	second.Promote(0)
	second.wantLeft(1, 60*time.Second)
	second.wantLeft(2, 40*time.Second)
}

// After a leader could not be reached, and after a stop, there is time for renewals.
func TestGraceAfterAnOutage(t *testing.T) {
	now := time.Hour
	path := filepath.Join(t.TempDir(), "deadlines")
	first, second := openLeases(t, path, 7, &now), openLeases(t, path, 7, &now)
	first.Promote(0)
	for _, l := range []leases{first, second} {
		l.apply(grantOf(1, 4), grantOf(2, 60), grantOf(3, 2))
	}
	now += 10 * time.Second
	second.Promote(3 * time.Second)
	second.wantLeft(1, 3*time.Second)
	second.wantLeft(2, 50*time.Second)
	second.wantLeft(3, 2*time.Second)
}

// A copy that has more applied entries than the previous leader had is not asked to which lease
// its record belongs.
func TestDeadlinesBehindTheDatabase(t *testing.T) {
	now := time.Hour
	path := filepath.Join(t.TempDir(), "deadlines")
	first, second := openLeases(t, path, 7, &now), openLeases(t, path, 7, &now)
	first.Promote(0)
	first.apply(grantOf(1, 60))
	second.apply(grantOf(1, 60), revokeOf(1), grantOf(1, 60))
	now += 10 * time.Second
	second.Store = reopen(t, second.Store)
	second.lessor.now = func() time.Duration { return now }
	second.lessor.file = deadlinesAt(t, path, 7)
	second.Promote(0)
	second.wantLeft(1, 60*time.Second)
}

// A renewal of a lease that was already reported takes effect before the lease would be
// reported again.
func TestRenewalAfterTheReport(t *testing.T) {
	now := time.Hour
	l := openLeases(t, filepath.Join(t.TempDir(), "deadlines"), 7, &now)
	l.Promote(0)
	l.apply(grantOf(1, 2))
	now += 2 * time.Second
	if ended, _ := l.Lessor().Expired(1); len(ended) != 1 {
		t.Fatal("not expired")
	}
	if _, err := l.Lessor().Renew(1); err != nil {
		t.Fatal(err)
	}
	now += 1999 * time.Millisecond
	if ended, wait := l.Lessor().Expired(1); len(ended) != 0 || wait != time.Millisecond {
		t.Errorf("%v, %s", ids(ended), wait)
	}
	select {
	case <-l.Lessor().Sooner():
	default:
		t.Error("nobody was told")
	}
}
