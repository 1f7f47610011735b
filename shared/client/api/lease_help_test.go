package api

import (
	"context"
	"fmt"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/lease"

	"github.com/dynast-io/dynast/shared/replica/store"
)

// lead runs a leader's background work until the test ends.
func (s *server) lead(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan struct{})
	go func() { s.api.Run(ctx); close(done) }()
	t.Cleanup(func() { cancel(); <-done })
}

func (s *server) leaseServer() *leaseServer {
	for _, sv := range s.api.services {
		if l, ok := sv.(*leaseServer); ok {
			return l
		}
	}
	panic("no lease service")
}

// proposed records the proposals about leases.
type proposed struct {
	mu   sync.Mutex
	list []string
}

func (p *proposed) note(r *pb.InternalRaftRequest) {
	p.mu.Lock()
	defer p.mu.Unlock()
	switch {
	case r.LeaseRevoke != nil:
		p.list = append(p.list, fmt.Sprintf("revoke %d", r.LeaseRevoke.ID))
	case r.LeaseCheckpoint != nil:
		for _, c := range r.LeaseCheckpoint.Checkpoints {
			p.list = append(p.list, fmt.Sprintf("checkpoint %d %d", c.ID, c.Remaining_TTL))
		}
	}
}

func (p *proposed) all() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.list)
}

// count counts the proposals with a prefix.
func (p *proposed) count(prefix string) (n int) {
	for _, l := range p.all() {
		if strings.HasPrefix(l, prefix) {
			n++
		}
	}
	return n
}

// remember makes s record its proposals.
func (s *server) remember() *proposed {
	p := &proposed{}
	s.proposer.before = func(r *pb.InternalRaftRequest) error { p.note(r); return nil }
	return p
}

func grant(t *testing.T, s *server, id, ttl int64) {
	t.Helper()
	s.must(t, &pb.InternalRaftRequest{LeaseGrant: &pb.LeaseGrantRequest{ID: id, TTL: ttl}})
}

func attach(t *testing.T, s *server, key string, id int64) {
	t.Helper()
	s.must(t, &pb.InternalRaftRequest{Put: &pb.PutRequest{Key: []byte(key), Lease: id}})
}

// successor opens a copy of the store as the next leader would find it on another host.
func successor(t *testing.T, s *server) *store.Store {
	t.Helper()
	s.proposer.mu.Lock()
	defer s.proposer.mu.Unlock()
	snap, err := s.store.Snapshot()
	if err != nil {
		t.Fatal(err)
	}
	defer snap.Close()
	dir := t.TempDir()
	writeSnapshot(t, store.Path(dir), snap)
	next, err := store.Open(store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = next.Close() })
	next.Promote(0)
	return next
}

// inherited returns the time that a leader gives a lease after a power loss, in whole seconds.
func inherited(t *testing.T, s *server, id int64) int64 {
	t.Helper()
	lessor := successor(t, s).Lessor()
	l := lessor.Lookup(lease.LeaseID(id))
	if l == nil {
		t.Fatalf("the next leader knows no lease %d", id)
	}
	return int64((lessor.Remaining(l) + time.Second - 1) / time.Second)
}

func writeSnapshot(t *testing.T, path string, snap store.Snapshot) {
	t.Helper()
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := snap.WriteTo(f); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
}
