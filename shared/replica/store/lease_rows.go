package store

import (
	"maps"
	"slices"

	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/schema"
)

// maxLeaseRows is the number of rows of leases after which a commit does not wait for the
// interval. Each row can be in another page of the file, and the disk must have room for those
// pages (see spareRoomBytes).
const maxLeaseRows = 1000

// leaseBackend is the backend of etcd's lessor. It keeps back the rows of leases that are
// granted, changed or revoked, and a commit writes them. So they reach the disk together with
// the index of their entries.
//
// Without this, each revocation would be a commit with two fsyncs, in every member. etcd's
// backend commits at the end of each transaction that deletes a row, because readers could
// still find that row in the file. But nobody reads the rows of leases after Open.
type leaseBackend struct {
	backend.Backend
	// keeps is set when the lessor has read its rows.
	keeps bool
	tx    leaseTx
}

func newLeaseBackend(s *Store) *leaseBackend {
	return &leaseBackend{Backend: s.be, tx: leaseTx{BatchTx: s.be.BatchTx(), s: s, rows: map[string][]byte{}}}
}

func (b *leaseBackend) BatchTx() backend.BatchTx {
	if b.keeps {
		return &b.tx
	}
	return b.Backend.BatchTx()
}

// leaseTx stands for the batch transaction of etcd's lessor. It does not need its lock.
type leaseTx struct {
	backend.BatchTx
	s *Store
	// rows are the values to be written; nil deletes the row. Store.counting protects them.
	rows map[string][]byte
}

func (t *leaseTx) LockInsideApply() {}
func (t *leaseTx) Unlock()          {}

func (t *leaseTx) UnsafePut(_ backend.Bucket, key, value []byte) { t.keep(key, value) }

func (t *leaseTx) UnsafeDelete(_ backend.Bucket, key []byte) { t.keep(key, nil) }

func (t *leaseTx) keep(key, value []byte) {
	t.s.counting.Lock()
	defer t.s.counting.Unlock()
	t.s.countEntry()
	t.rows[string(key)] = value
}

// full reports whether the rows should be committed. Only Apply calls it, and only Apply adds
// rows.
func (t *leaseTx) full() bool {
	t.s.counting.Lock()
	defer t.s.counting.Unlock()
	return len(t.rows) >= maxLeaseRows
}

// write adds the rows to a commit. Store.counting is locked.
func (t *leaseTx) write(tx backend.UnsafeWriter) {
	for _, key := range slices.Sorted(maps.Keys(t.rows)) {
		if value := t.rows[key]; value != nil {
			tx.UnsafePut(schema.Lease, []byte(key), value)
		} else {
			tx.UnsafeDelete(schema.Lease, []byte(key))
		}
	}
	clear(t.rows)
}
