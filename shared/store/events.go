package store

import (
	"fmt"
	"runtime"
	"time"

	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"go.etcd.io/etcd/server/v3/storage/schema"
	"google.golang.org/protobuf/proto"
)

// History is a part of what happened to the keys.
type History struct {
	// Events are those of whole revisions, the oldest first. They have no
	// previous values.
	Events []*mvccpb.Event
	// Next is the first revision after them.
	Next int64
	// Revision was the current one when they were read: Next is larger if
	// there was nothing more.
	Revision int64
}

// History reads what happened from a revision on: at least one revision if
// there is one, and then until maxRevisions or maxBytes are reached. It fails
// with mvcc.ErrCompacted when some of it may be gone.
//
// etcd's own watchers read their past inside mvcc, which holds the lock that
// every write needs, and reads all of it for each piece that it sends
// (https://github.com/etcd-io/etcd/issues/22264). Here a write waits for one
// piece at most on each processor.
func (s *Store) History(from, maxRevisions int64, maxBytes int) (History, error) {
	h := History{Revision: s.kv.Rev()}
	h.Next = min(from+max(maxRevisions, 1), h.Revision+1)
	if from >= h.Next {
		h.Next = from
		return h, nil
	}
	if err := s.readHistory(&h, from, maxBytes); err != nil {
		return History{}, err
	}
	// Looked at afterwards: a compaction announces itself before it removes
	// anything.
	if from < s.kv.FirstRev() {
		return History{}, mvcc.ErrCompacted
	}
	return h, nil
}

// AwaitRevision returns when reads find the change at a revision. etcd's store
// tells its watchers of a change a moment before that: a client that was told, and
// then reads, must not see what was before. (In etcd such a read waits for the
// member to have applied what is committed.)
func (s *Store) AwaitRevision(rev int64) {
	for tries := 0; s.kv.Rev() < rev && s.usable() == nil; tries++ {
		if tries < 100 {
			runtime.Gosched()
		} else {
			time.Sleep(20 * time.Microsecond) // who writes has lost its processor
		}
	}
}

// usable returns why the store is of no use any more.
func (s *Store) usable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// readHistory fills in the events up to h.Next, or moves h.Next nearer.
func (s *Store) readHistory(h *History, from int64, maxBytes int) error {
	// A write waits for all who read at that moment. After a takeover these would
	// be a thousand streams, and each of them would have a small part of a processor.
	s.readers <- struct{}{}
	defer func() { <-s.readers }()
	first := mvcc.RevToBytes(mvcc.Revision{Main: from}, mvcc.NewRevBytes())
	end := mvcc.RevToBytes(mvcc.Revision{Main: h.Next}, mvcc.NewRevBytes())
	tx := s.be.ReadTx()
	tx.RLock()
	defer tx.RUnlock() // after the values, which are the file's memory, are decoded
	// No limit: the backend would take the newest ones.
	revisions, values := tx.UnsafeRange(schema.Key, first, end, 0)
	sizeBytes, last := 0, int64(0)
	for i, value := range values {
		rev := mvcc.BytesToRev(revisions[i])
		if rev.Main != last && sizeBytes >= maxBytes && last != 0 {
			h.Next = rev.Main
			return nil
		}
		kv := &mvccpb.KeyValue{}
		if err := proto.Unmarshal(value, kv); err != nil {
			return fmt.Errorf("decode the change at revision %d: %w", rev.Main, err)
		}
		ev := &mvccpb.Event{Type: mvccpb.Event_PUT, Kv: kv}
		if mvcc.IsTombstone(revisions[i]) {
			ev.Type = mvccpb.Event_DELETE
			kv.ModRevision = rev.Main
		}
		h.Events = append(h.Events, ev)
		sizeBytes, last = sizeBytes+len(value), rev.Main
	}
	return nil
}
