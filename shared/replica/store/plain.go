package store

import (
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"go.etcd.io/etcd/server/v3/lease"
)

// plain reports whether a request is a put that can fail in no way and needs nothing but the
// key-value store and its leases: no previous value, no alarm, no permissions. etcd's applier looks
// at these before it passes a put on.
func (s *Store) plain(r *pb.InternalRaftRequest) bool {
	return r.Put != nil && r.Range == nil && // the applier looks at Range first
		s.plainPut(r.Put) && s.unrestricted()
}

// plainPut reports whether a put, alone or in a transaction, reads nothing, and has no lease or one
// that exists.
func (s *Store) plainPut(p *pb.PutRequest) bool {
	id := lease.LeaseID(p.Lease)
	return !p.PrevKv && !p.IgnoreValue && !p.IgnoreLease && (id == lease.NoLease || s.lessor.Lookup(id) != nil)
}

// unrestricted reports whether no alarm and no permissions restrict what requests may do.
func (s *Store) unrestricted() bool {
	return len(s.alarms.Get(pb.AlarmType_NONE)) == 0 && !s.auth.IsAuthEnabled()
}

// putPlain does what etcd's applier does with a plain put, but without the trace. Nobody reads
// the trace here, and its fields and times are a third of what a put allocates.
func (s *Store) putPlain(p *pb.PutRequest) *apply.Result {
	began := time.Now()
	tx := s.kv.Write(untraced)
	revision := tx.Put(p.Key, p.Value, lease.LeaseID(p.Lease))
	tx.End()
	txn.ApplySecObserve("v3", "Put", true, time.Since(began))
	return &apply.Result{Resp: &pb.PutResponse{Header: &pb.ResponseHeader{Revision: revision}}}
}

// untraced is a trace that records no steps. A trace records none while the function of a step
// runs. The function of this step does not return: it panics, so the trace stays in that state.
var untraced = newUntraced()

func newUntraced() (t *traceutil.Trace) {
	t = traceutil.TODO()
	defer func() { _ = recover() }()
	t.StepWithFunction(func() { panic("no steps from here on") }, "")
	return t
}
