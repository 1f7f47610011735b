package store

import (
	"go.etcd.io/etcd/server/v3/storage"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
)

// The quota is one of what is in use. etcd's is one of the file: that never
// becomes smaller by itself, so an etcd at its quota stays there until somebody
// defragments it. Pages that are free are used again before the file grows, so
// the file is not much larger than the quota here either.

// resumeFraction is the part of the quota that must have become free before
// writes are taken again, so that they are not refused a moment later.
const resumeFraction = 10

// Used is how much of the quota is used, in bytes: what is in use of the file,
// and what is applied and not in the file yet.
func (s *Store) Used() int64 {
	used := s.be.SizeInUse()
	// After a commit it is in the file; Apply sets it to 0 when it comes by.
	if !s.room.committed.Load() {
		used += s.uncommittedBytes.Load()
	}
	return used
}

// Fits reports whether a request, one of etcd's messages for Put, Txn and
// LeaseGrant, is within the quota. One that stores nothing always is.
func (s *Store) Fits(request any) bool {
	quota := s.QuotaBytes()
	if quota < 0 {
		return true
	}
	cost := s.quota.Cost(request)
	return cost == 0 || s.Used()+int64(cost) < quota
}

// HasRoom reports whether enough of the quota is free to take writes again
// after they were refused.
func (s *Store) HasRoom() bool {
	quota := s.QuotaBytes()
	return quota < 0 || s.Used() <= quota-quota/resumeFraction
}

// QuotaBytes is the size in use from which on writes are refused; less than 0
// is no limit.
func (s *Store) QuotaBytes() int64 {
	if s.cfg.QuotaBytes == 0 {
		return storage.DefaultQuotaBytes
	}
	return s.cfg.QuotaBytes
}

// Compacted is the revision up to which old revisions are off the file.
func (s *Store) Compacted() int64 {
	tx := s.be.ReadTx()
	tx.RLock()
	defer tx.RUnlock()
	rev, _ := mvcc.UnsafeReadFinishedCompact(tx)
	return rev
}

// Recount writes a commit that changes nothing. Pages that a commit freed are
// known to be free two commits later, when no reader can need them; while writes
// are refused, there may be none.
func (s *Store) Recount() {
	tx := s.be.BatchTx()
	tx.LockOutsideApply()
	schema.UnsafeSetStorageVersion(tx, formatVersion{}.Version())
	tx.Unlock()
	s.be.ForceCommit()
}
