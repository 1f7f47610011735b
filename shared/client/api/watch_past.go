package api

import (
	"errors"
	"slices"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"github.com/dynast-io/dynast/shared/replica/store"
)

// This file runs on the sending goroutine. Only that goroutine makes watchers live that were
// behind.

// part is a watcher and the part of the history that it needs: the revisions from `from` up to
// but not including `to`.
type part struct {
	*watcher
	from, to int64
}

// catchUp reads one piece of the history from the store, for the watcher whose turn it is and
// all others that need it too, and sends it. Watchers that need no more history become live. It
// returns false if there is nothing to do.
func (s *watchStream) catchUp() (bool, error) {
	from, ok := s.firstBehind()
	if !ok {
		return false, nil
	}
	h, err := s.store.History(from, s.readRevisions, s.readBytes)
	if errors.Is(err, mvcc.ErrCompacted) {
		return true, s.sendCompacted(s.endCompacted(s.behindParts()))
	}
	if err != nil {
		return false, toStatus(err)
	}
	parts, present, err := s.advance(from, h)
	if err != nil {
		return false, toStatus(err)
	}
	if err := s.readUpTo(&h, parts, present); err != nil {
		return false, err
	}
	for _, p := range parts {
		if err := s.sendPast(p, h.Events, max(h.Revision, present)); err != nil {
			return false, err
		}
	}
	return true, nil
}

// firstBehind returns the revision that the next watcher needs. A watcher with messages in the
// queue has to wait until they are sent.
func (s *watchStream) firstBehind() (int64, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i := slices.IndexFunc(s.behind, s.flushed)
	if i < 0 {
		return 0, false
	}
	return s.behind[i].next, true
}

func (s *watchStream) flushed(w *watcher) bool { return w.lastQueued <= s.sent }

// advance moves the watchers on that need a part of h, which begins at from. If h reaches the
// present, they become live. They are registered first. Until then the store may have got new
// revisions that h lacks, so they also need those up to the present revision, which advance
// returns. It returns 0 if they stay behind.
func (s *watchStream) advance(from int64, h store.History) (parts []part, present int64, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	live := h.Next > h.Revision
	s.behind = slices.DeleteFunc(s.behind, func(w *watcher) bool {
		concerned := s.flushed(w) && w.next >= from && (live || w.next < h.Next)
		if concerned {
			parts = append(parts, part{w, w.next, h.Next})
		}
		return concerned
	})
	if !live {
		for _, p := range parts {
			p.next = p.to
			s.behind = append(s.behind, p.watcher) // its next turn comes after the others
		}
		return parts, 0, nil
	}
	for _, p := range parts {
		if err := s.goLive(p.watcher); err != nil {
			return nil, 0, err
		}
	}
	present = s.store.Revision()
	for i := range parts {
		p := &parts[i]
		p.to = max(p.from, present+1) // empty if the watcher starts in the future
		p.next = p.to
	}
	return parts, present, nil
}

// readUpTo extends h to a revision. It ends those watchers whose history a compaction has
// removed meanwhile.
func (s *watchStream) readUpTo(h *store.History, parts []part, present int64) error {
	for h.Next <= present {
		more, err := s.store.History(h.Next, s.readRevisions, s.readBytes)
		if errors.Is(err, mvcc.ErrCompacted) {
			h.Next = s.store.KV().FirstRev()
			if err := s.sendCompacted(s.endCompacted(parts)); err != nil {
				return err
			}
			continue
		}
		if err != nil {
			return toStatus(err)
		}
		h.Events, h.Next = append(h.Events, more.Events...), more.Next
	}
	return nil
}

// sendPast sends a watcher its part of the history.
func (s *watchStream) sendPast(p part, past []*mvccpb.Event, revision int64) error {
	var events []*mvccpb.Event
	for _, e := range since(past, p.from) {
		if e.Kv.ModRevision < p.to && p.wants(e) {
			events = append(events, e)
		}
	}
	if len(events) == 0 || s.hasEnded(p.watcher) {
		return nil
	}
	return s.sendEvents(p.watcher, events, revision)
}

func (s *watchStream) hasEnded(w *watcher) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return w.ended
}

func (s *watchStream) behindParts() []part {
	s.mu.Lock()
	defer s.mu.Unlock()
	var parts []part
	for _, w := range s.behind {
		if s.flushed(w) {
			parts = append(parts, part{watcher: w, from: w.next})
		}
	}
	return parts
}

// endCompacted ends those watchers that need compacted revisions. Their ids stay in use until
// the client cancels them.
func (s *watchStream) endCompacted(parts []part) (ended []*watcher, compacted int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	compacted = s.store.KV().FirstRev()
	for _, p := range parts {
		if p.from < compacted && !p.ended {
			s.end(p.watcher)
			ended = append(ended, p.watcher)
		}
	}
	return ended, compacted
}

// sendCompacted tells the client. As in etcd, this header has no revision.
func (s *watchStream) sendCompacted(ended []*watcher, compacted int64) error {
	for _, w := range ended {
		err := s.rpc.Send(&pb.WatchResponse{Header: s.header(0), WatchId: w.id, Canceled: true, CompactRevision: compacted})
		if err != nil {
			return err
		}
	}
	return nil
}
