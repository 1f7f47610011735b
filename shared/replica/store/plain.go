package store

import (
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"go.etcd.io/etcd/server/v3/lease"
)

// plain reports whether a request is a put that concerns only the key-value store: no lease, no
// previous value, no alarm, no permissions. etcd's applier looks at these before it passes a
// put on.
func (s *Store) plain(r *pb.InternalRaftRequest) bool {
	p := r.Put
	return p != nil && r.Range == nil && // the applier looks at Range first
		lease.LeaseID(p.Lease) == lease.NoLease && !p.PrevKv && !p.IgnoreValue && !p.IgnoreLease && s.unrestricted()
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
	revision := tx.Put(p.Key, p.Value, lease.NoLease)
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
