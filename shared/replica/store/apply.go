package store

import (
	"fmt"
	"math"
	"runtime/debug"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/etcdserver/api/membership"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/rules/entry"
)

// noWarning keeps etcd's applier from logging slow requests. A client could otherwise fill the
// logs of every member.
const noWarning = time.Duration(math.MaxInt64)

func (s *Store) newApplier() apply.UberApplier {
	// The applier logs a warning for each request that fails, and a client can repeat such a
	// request at will. So the applier gets a logger that writes errors only.
	lg := s.lg.WithOptions(zap.IncreaseLevel(zap.ErrorLevel))
	return apply.NewUberApplier(apply.ApplierOptions{
		Logger:     lg,
		KV:         s.kv,
		AlarmStore: s.alarms,
		AuthStore:  s.auth,
		Lessor:     s.lessor,
		// Members are not managed by etcd here; only the id is used.
		Cluster:                      membership.NewClusterFromMembers(lg, types.ID(s.cfg.ClusterID), nil),
		RaftStatus:                   status{s},
		ConsistentIndex:              s.index,
		TxnModeWriteWithSharedBuffer: true,
		Backend:                      s.be,
		// The applier's own quota is off, because it counts the size of the file. Whoever
		// accepts requests calls Fits instead.
		QuotaBackendBytesCfg: -1,
		WarningApplyDuration: noWarning,
	})
}

// countEntry runs at the first change that an entry makes, with the write transaction or
// counting locked. A commit locks both, so the change and the index of the entry reach the disk
// together.
func (s *Store) countEntry() {
	s.dirty.Store(true)
	index, epoch := s.index.ConsistentApplyingIndex()
	if index > s.index.UnsafeConsistentIndex() {
		s.index.SetConsistentIndex(index, epoch)
	}
}

// Apply applies the entry that follows Applied. It skips an entry that is applied already, and
// only counts an entry without data (the first of an epoch). Both give no result. If the
// request is invalid, the error is in the result (Err). If Apply itself returns an error,
// ErrBadEntry or ErrBroken, the store cannot go on.
func (s *Store) Apply(e entry.Entry) (*apply.Result, error) { return s.ApplyRequest(e, nil) }

// ApplyRequest is Apply for a caller that has already decoded the entry's data. r is nil if it
// has not. Nobody may change r meanwhile.
func (s *Store) ApplyRequest(e entry.Entry, r *pb.InternalRaftRequest) (*apply.Result, error) {
	s.mu.Lock()
	applied, broken := s.applied, s.broken
	s.mu.Unlock()
	switch {
	case broken != nil:
		return nil, broken
	case e.Index <= applied.Index:
		return nil, nil
	case e.Index != applied.Index+1 || e.Epoch < applied.Epoch:
		return nil, fmt.Errorf("%w: entry %s does not follow entry %s", ErrBadEntry, e.Position(), applied)
	}
	if r == nil && len(e.Data) > 0 {
		var err error
		if r, err = s.decode(e.Data); err != nil {
			return nil, fmt.Errorf("%w: decode entry %s: %w", ErrBadEntry, e.Position(), err)
		}
	}
	if r != nil && !known(r) {
		return nil, fmt.Errorf("%w: entry %s holds a request that this version does not know", ErrBadEntry, e.Position())
	}
	if r != nil {
		if err := wellFormed(r); err != nil {
			return nil, fmt.Errorf("%w: entry %s holds %w", ErrBadEntry, e.Position(), err)
		}
	}
	res, err := s.applyGuarded(e, r)
	s.mu.Lock()
	defer s.mu.Unlock()
	if err != nil {
		s.broken = err
		return nil, err
	}
	s.applied = e.Position()
	return res, nil
}

// decode returns the request that an entry holds. The request is valid until the next call.
func (s *Store) decode(data []byte) (*pb.InternalRaftRequest, error) {
	if r := s.decoder.decode(data); r != nil && (s.plain(r) || s.plainTxn(r)) {
		return r, nil
	}
	r := &pb.InternalRaftRequest{}
	return r, proto.Unmarshal(data, r)
}

// applyGuarded turns a panic into ErrBroken, so that the process ends with a reason in its log
// and not only with a stack.
func (s *Store) applyGuarded(e entry.Entry, r *pb.InternalRaftRequest) (res *apply.Result, err error) {
	defer func() {
		if p := recover(); p != nil {
			s.lg.Error("applying an entry panicked", zap.Stringer("entry", e.Position()), zap.Any("panic", p), zap.Stack("stack"))
			err = fmt.Errorf("%w: entry %s: %w", ErrBroken, e.Position(), FromPanic(p, debug.Stack()))
		}
	}()
	defer debug.SetPanicOnFault(debug.SetPanicOnFault(true))
	s.makeRoom(len(e.Data))
	s.index.SetConsistentApplyingIndex(e.Index, e.Epoch)
	s.lessor.applies(e.Index)
	if r != nil {
		res = s.applyEntries(r)
	}
	s.lessor.applied()
	s.countIdle(e)
	stored := int64(len(e.Data))
	if res != nil && res.Err != nil {
		stored = 0 // a refused request stores nothing; otherwise refused clients would use up the room
	}
	if s.uncommittedBytes.Add(stored) >= commitBytes || s.leases.tx.full() {
		s.commit()
	}
	return res, nil
}

// applyEntries hands a request to etcd. Its name matters: etcd's checks, which ETCD_VERIFY
// switches on in tests, recognize by it in the stack that an entry is being applied.
func (s *Store) applyEntries(r *pb.InternalRaftRequest) *apply.Result {
	leading := s.leading.Load()
	if !leading && readsOnly(r) {
		return nil
	}
	if s.plain(r) {
		return s.putPlain(r.Put)
	}
	if s.plainTxn(r) {
		return s.txnPlain(r.Txn)
	}
	w := &apply.InternalRaftRequestWrapper{InternalRaftRequest: r, SkipRangeExecution: !leading && r.Txn != nil}
	return s.uber.Apply(w, membership.ApplyBoth)
}

// countIdle counts an entry that changed nothing, for which countEntry did not run. It takes
// the lock so that a commit never sees the index of one entry with the epoch of another. It
// does not take the lock of the write transaction, because at its release etcd's backend would
// sort the whole buffer of changes that are not committed. It does not cause a write by itself.
func (s *Store) countIdle(e entry.Entry) {
	if s.index.ConsistentIndex() >= e.Index {
		return
	}
	s.counting.Lock()
	defer s.counting.Unlock()
	s.index.SetConsistentIndex(e.Index, e.Epoch)
}

func readsOnly(r *pb.InternalRaftRequest) bool {
	return r.Range != nil || r.AuthUserGet != nil || r.AuthRoleGet != nil || r.AuthStatus != nil
}

// known reports whether etcd's applier handles a request and this program proposes it. The
// applier panics on requests that it does not know, and etcd's membership requests would need
// members that do not exist here.
func known(r *pb.InternalRaftRequest) bool {
	switch {
	case r.Put != nil, r.DeleteRange != nil, r.Txn != nil, r.Range != nil, r.Compaction != nil:
	case r.LeaseGrant != nil, r.LeaseRevoke != nil, r.LeaseCheckpoint != nil, r.Alarm != nil:
	case r.Authenticate != nil, r.AuthEnable != nil, r.AuthDisable != nil, r.AuthStatus != nil:
	case r.AuthUserAdd != nil, r.AuthUserDelete != nil, r.AuthUserGet != nil, r.AuthUserList != nil:
	case r.AuthUserChangePassword != nil, r.AuthUserGrantRole != nil, r.AuthUserRevokeRole != nil:
	case r.AuthRoleAdd != nil, r.AuthRoleDelete != nil, r.AuthRoleGet != nil, r.AuthRoleList != nil:
	case r.AuthRoleGrantPermission != nil, r.AuthRoleRevokePermission != nil:
	default:
		return false
	}
	return r.ClusterVersionSet == nil && r.ClusterMemberAttrSet == nil && r.DowngradeInfoSet == nil && r.DowngradeVersionTest == nil
}
