package store

import (
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"go.etcd.io/etcd/server/v3/lease"
)

// plain reports whether a request is a put about which only the key-value store
// need be asked: no lease, no previous value, no alarm, no permissions. These are
// what etcd's applier looks at before it hands a put on.
func (s *Store) plain(r *pb.InternalRaftRequest) bool {
	p := r.Put
	return p != nil && r.Range == nil && // which comes first
		lease.LeaseID(p.Lease) == lease.NoLease && !p.PrevKv && !p.IgnoreValue && !p.IgnoreLease &&
		len(s.alarms.Get(pb.AlarmType_NONE)) == 0 && !s.auth.IsAuthEnabled()
}

// putPlain does what etcd's applier does with a plain put, less the trace that it
// makes of each, which nobody reads here: its fields and times are a third of
// what a put allocates.
func (s *Store) putPlain(p *pb.PutRequest) *apply.Result {
	began := time.Now()
	tx := s.kv.Write(untraced)
	revision := tx.Put(p.Key, p.Value, lease.NoLease)
	tx.End()
	txn.ApplySecObserve("v3", "Put", true, time.Since(began))
	return &apply.Result{Resp: &pb.PutResponse{Header: &pb.ResponseHeader{Revision: revision}}}
}

// untraced is a trace that keeps no steps: a trace keeps none while a function
// runs that is a step itself, and the one of this step does not return.
var untraced = newUntraced()

func newUntraced() (t *traceutil.Trace) {
	t = traceutil.TODO()
	defer func() { _ = recover() }()
	t.StepWithFunction(func() { panic("no steps from here on") }, "")
	return t
}
