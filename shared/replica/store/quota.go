package store

import (
	"go.etcd.io/etcd/server/v3/storage"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
)

// The quota bounds the bytes in use. etcd's quota bounds the size of the file, which never
// shrinks by itself. An etcd that has reached its quota stays there until somebody
// defragments it. Free pages are used again before the file grows, so the file is not much
// larger than the quota here either.

// resumeFraction is the part of the quota that must be free before writes are accepted again.
// Otherwise they would be refused again a moment later.
const resumeFraction = 10

// Used is how many bytes of the quota are used: the bytes in use in the file, and those that
// are applied and not yet in the file.
func (s *Store) Used() int64 {
	return s.be.SizeInUse() + s.uncommittedBytes.Load()
}

// Fits reports whether a request is within the quota. The request is one of etcd's messages for
// Put, Txn and LeaseGrant. A request that stores nothing always fits.
func (s *Store) Fits(request any) bool {
	quota := s.QuotaBytes()
	if quota < 0 {
		return true
	}
	cost := s.quota.Cost(request)
	return cost == 0 || s.Used()+int64(cost) < quota
}

// HasRoom reports whether enough of the quota is free to accept writes again after they were
// refused.
func (s *Store) HasRoom() bool {
	quota := s.QuotaBytes()
	return quota < 0 || s.Used() <= quota-quota/resumeFraction
}

// QuotaBytes is the number of bytes in use at which writes are refused. A negative number means
// no limit.
func (s *Store) QuotaBytes() int64 {
	if s.cfg.QuotaBytes == 0 {
		return storage.DefaultQuotaBytes
	}
	return s.cfg.QuotaBytes
}

// Compacted is the revision up to which old revisions are removed from the file.
func (s *Store) Compacted() int64 {
	tx := s.be.ReadTx()
	tx.RLock()
	defer tx.RUnlock()
	rev, _ := mvcc.UnsafeReadFinishedCompact(tx)
	return rev
}

// Recount makes a commit that changes nothing. Pages that a commit frees count as free two
// commits later, when no reader can need them any more. While writes are refused, there may be
// no other commits. Recount returns false if something still read an older state during the
// commit, for example a snapshot. The pages of that state are not counted as free yet.
func (s *Store) Recount() bool {
	tx := s.be.BatchTx()
	tx.LockOutsideApply()
	schema.UnsafeSetStorageVersion(tx, formatVersion{}.Version())
	tx.Unlock()
	s.be.ForceCommit()
	// The backend counts its read transactions when a commit begins the next one.
	return s.be.OpenReadTxN() <= 1
}
