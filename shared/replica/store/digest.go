package store

import (
	"bytes"
	"context"
	"fmt"
	"hash/crc32"
	"hash/fnv"

	"go.etcd.io/etcd/server/v3/storage/backend"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"google.golang.org/protobuf/encoding/protowire"
)

// Digest is a checksum of the history of all keys up to a revision. Two replicas with the same
// Revision and CompactRevision must have the same Hash. The Hash equals that of etcd's HashKV,
// so a replica can also be compared with an etcd. There is one exception: where all keys are
// deleted, etcd's number also depends on the progress of a compaction, and this one does not.
type Digest struct {
	Revision        int64
	CompactRevision int64
	Hash            uint32
}

// Digest reads the keys of the whole database, page by page. Writes and reads go on meanwhile;
// etcd's own function holds up every write until it has read everything. Revision 0 is the
// current revision. Digest fails with mvcc.ErrCompacted or mvcc.ErrFutureRev, or when ctx ends.
// It briefly needs about 40 bytes of memory for each key.
func (s *Store) Digest(ctx context.Context, revision int64) (d Digest, err error) {
	defer func() {
		if r := recover(); r != nil {
			err = fmt.Errorf("digest: %v", r) // bbolt panics on a damaged page
		}
	}()
	current := s.kv.Rev()
	switch {
	case revision == 0:
		revision = current
	case revision > current:
		return Digest{}, mvcc.ErrFutureRev
	}
	// The transaction must begin after the revision is known, so that it holds everything up to
	// it.
	tx := s.be.ConcurrentReadTx()
	tx.RLock()
	defer tx.RUnlock()
	h := &historyHash{tx: tx, revision: revision, compacted: -1}
	if rev, found := mvcc.UnsafeReadScheduledCompact(tx); found {
		h.compacted = rev
	}
	if revision < h.compacted {
		return Digest{}, mvcc.ErrCompacted
	}
	hash, err := h.sum(ctx)
	return Digest{Revision: revision, CompactRevision: h.compacted, Hash: hash}, err
}

// historyHash computes a Digest over one read transaction.
type historyHash struct {
	tx                  backend.ReadTx
	revision, compacted int64
}

func (h *historyHash) sum(ctx context.Context) (uint32, error) {
	// Of the revisions up to a compaction, only the newest of each key counts. Older ones may
	// be removed in one replica and not yet in another.
	newest := map[uint64]mvcc.Revision{}
	if h.compacted > 0 {
		err := h.each(ctx, func(k, v []byte) error {
			key, err := keyOf(v)
			if err == nil {
				newest[key] = mvcc.BytesToRev(k)
			}
			return err
		})
		if err != nil {
			return 0, err
		}
	}
	sum := crc32.New(crc32.MakeTable(crc32.Castagnoli))
	sum.Write(schema.Key.Name())
	err := h.each(ctx, func(k, v []byte) error {
		if rev := mvcc.BytesToRev(k); rev.Main <= h.compacted {
			key, err := keyOf(v)
			if err != nil {
				return err
			}
			if newest[key] != rev || mvcc.IsTombstone(k) {
				return nil
			}
		}
		sum.Write(k)
		sum.Write(v)
		return nil
	})
	return sum.Sum32(), err
}

const (
	pageMinRevisions = 256
	pageMaxRevisions = 1 << 24
	pageKeys         = 4096 // about as many changes are read at a time
)

// each visits all changes up to the revision, in order. A page is a range of revisions and not
// a number of changes, because with a limit the backend would return the newest changes. The
// page size follows the density of the revisions.
func (h *historyHash) each(ctx context.Context, visit func(k, v []byte) error) error {
	step := int64(pageMinRevisions)
	var last []byte
	for from := int64(0); from <= h.revision; {
		if err := ctx.Err(); err != nil {
			return err
		}
		to := min(from+step, h.revision+1)
		ks, vs := h.tx.UnsafeRange(schema.Key, revisionKey(from), revisionKey(to), 0)
		for i := range ks {
			// The changes in the file come first, then those in memory. Right after a commit
			// some changes can be in both.
			if bytes.Compare(ks[i], last) <= 0 {
				continue
			}
			last = append(last[:0], ks[i]...)
			if err := visit(ks[i], vs[i]); err != nil {
				return fmt.Errorf("read the change at revision %d: %w", mvcc.BytesToRev(ks[i]).Main, err)
			}
		}
		switch {
		case len(ks) < pageKeys/4:
			step = min(2*step, pageMaxRevisions)
		case len(ks) > pageKeys:
			step = max(step/2, pageMinRevisions)
		}
		from = to
	}
	return nil
}

func revisionKey(rev int64) []byte {
	return mvcc.RevToBytes(mvcc.Revision{Main: rev}, mvcc.NewRevBytes())
}

// keyOf returns a hash of the key of an encoded mvccpb.KeyValue. If two keys had the same hash,
// all replicas would confuse them in the same way.
func keyOf(kv []byte) (uint64, error) {
	for len(kv) > 0 {
		field, kind, n := protowire.ConsumeTag(kv)
		if n < 0 {
			return 0, fmt.Errorf("decode: %w", protowire.ParseError(n))
		}
		kv = kv[n:]
		if field == 1 && kind == protowire.BytesType {
			key, n := protowire.ConsumeBytes(kv)
			if n < 0 {
				return 0, fmt.Errorf("decode: %w", protowire.ParseError(n))
			}
			sum := fnv.New64a()
			sum.Write(key)
			return sum.Sum64(), nil
		}
		if n = protowire.ConsumeFieldValue(field, kind, kv); n < 0 {
			return 0, fmt.Errorf("decode: %w", protowire.ParseError(n))
		}
		kv = kv[n:]
	}
	return 0, fmt.Errorf("decode: the change has no key")
}
