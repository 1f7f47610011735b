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

// History is a part of the history of the keys.
type History struct {
	// Events are the events of whole revisions, the oldest first. They have no previous values.
	Events []*mvccpb.Event
	// Next is the first revision after Events.
	Next int64
	// Revision was the current revision when Events were read. Next is larger than it if there
	// was nothing more to read.
	Revision int64
}

// History reads the events from a revision on. It reads at least one revision if there is
// one, and stops when maxRevisions or maxBytes are reached. It fails with
// mvcc.ErrCompacted when some of the events may be gone.
//
// etcd's own watchers read the past inside mvcc, under the lock that every write needs,
// and read all of it again for each piece that they send
// (https://github.com/etcd-io/etcd/issues/22264). Here a write waits for at most one
// piece per processor.
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
	// This check comes after the reading: a compaction raises FirstRev before it removes
	// anything.
	if from < s.kv.FirstRev() {
		return History{}, mvcc.ErrCompacted
	}
	return h, nil
}

// AwaitRevision returns when reads see the change at a revision. The store notifies watchers a
// moment before that. A client that was notified and then reads must not see the state before
// the change. (In etcd such a read waits until the member has applied what is committed.)
func (s *Store) AwaitRevision(rev int64) {
	for tries := 0; s.kv.Rev() < rev && s.usable() == nil; tries++ {
		if tries < 100 {
			runtime.Gosched()
		} else {
			time.Sleep(20 * time.Microsecond) // the writer has lost its processor
		}
	}
}

// usable returns nil, or the reason why the store cannot be used any more.
func (s *Store) usable() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.broken
}

// readHistory fills in the events up to h.Next. If they are too many, it lowers h.Next.
func (s *Store) readHistory(h *History, from int64, maxBytes int) error {
	// A write waits for all readers that hold the lock at that moment. After a takeover there
	// can be a thousand streams, each with a small share of a processor. So the number of
	// readers is bounded.
	s.readers <- struct{}{}
	defer func() { <-s.readers }()
	first := mvcc.RevToBytes(mvcc.Revision{Main: from}, mvcc.NewRevBytes())
	end := mvcc.RevToBytes(mvcc.Revision{Main: h.Next}, mvcc.NewRevBytes())
	tx := s.be.ReadTx()
	tx.RLock()
	defer tx.RUnlock() // only after decoding, because the values are the file's memory
	// There is no limit, because with one the backend would return the newest changes.
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
