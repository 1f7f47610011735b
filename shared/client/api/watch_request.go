package api

import (
	"bytes"
	"errors"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/auth"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// This file runs with the stream's mu held.

// create makes a watcher, or answers why not. The order of the checks and the texts are etcd's,
// because clients compare some of the texts.
func (s *watchStream) create(r *pb.WatchCreateRequest) *pb.WatchResponse {
	if len(r.Key) == 0 {
		r.Key = []byte{0} // the smallest key
	}
	if r.StartRevision < 0 {
		return s.refusal(rpctypes.ErrCompacted.Error())
	}
	if err := s.mayWatch(r); err != nil {
		return s.refusal(refusalReason(err))
	}
	w := &watcher{
		id: r.WatchId, key: r.Key, end: r.RangeEnd, filters: filtersOf(r), start: r.StartRevision,
		prevKV: r.PrevKv, fragment: r.Fragment, progress: r.ProgressNotify, quiet: true,
	}
	switch {
	case len(w.end) == 0:
		w.end = nil
	case len(w.end) == 1 && w.end[0] == 0:
		w.end = []byte{}
	}
	if err := s.add(w); err != nil {
		return s.refusal(err.Error())
	}
	return &pb.WatchResponse{Header: s.header(s.store.Revision()), WatchId: w.id, Created: true}
}

// add gives a watcher its id and its start.
func (s *watchStream) add(w *watcher) error {
	if len(w.end) > 0 && bytes.Compare(w.key, w.end) >= 0 {
		return mvcc.ErrEmptyWatcherRange
	}
	if w.id == clientv3.AutoWatchID {
		for s.watchers[s.nextID] != nil {
			s.nextID++
		}
		w.id = s.nextID
		s.nextID++
	} else if s.watchers[w.id] != nil {
		return mvcc.ErrWatcherDuplicateID
	}
	w.next = w.start
	if w.start == 0 {
		w.next = s.store.Revision() + 1
		if err := s.goLive(w); err != nil {
			return err
		}
	} else {
		// This includes a watcher that starts in the future. It becomes live after it has found
		// no history.
		s.fallBehind(w)
	}
	s.watchers[w.id] = w
	return nil
}

func (s *watchStream) refusal(reason string) *pb.WatchResponse {
	return &pb.WatchResponse{
		Header: s.header(s.store.Revision()), WatchId: clientv3.InvalidWatchID,
		Created: true, Canceled: true, CancelReason: reason,
	}
}

func (s *watchStream) mayWatch(r *pb.WatchCreateRequest) error {
	who, err := s.caller(s.rpc.Context())
	if err != nil {
		return err
	}
	if who == nil {
		who = &auth.AuthInfo{}
	}
	return s.store.Auth().IsRangePermitted(who, r.Key, r.RangeEnd)
}

// refusalReason returns a text that clients recognize, so that they get a new token.
func refusalReason(err error) string {
	for _, e := range []error{auth.ErrInvalidAuthToken, auth.ErrAuthOldRevision, auth.ErrUserEmpty} {
		if errors.Is(err, e) {
			return statusOf[e].Error()
		}
	}
	return rpctypes.ErrGRPCPermissionDenied.Error()
}

func filtersOf(r *pb.WatchCreateRequest) []mvcc.FilterFunc {
	var out []mvcc.FilterFunc
	for _, f := range r.Filters {
		switch f {
		case pb.WatchCreateRequest_NOPUT:
			out = append(out, func(e *mvccpb.Event) bool { return e.Type == mvccpb.Event_PUT })
		case pb.WatchCreateRequest_NODELETE:
			out = append(out, func(e *mvccpb.Event) bool { return e.Type == mvccpb.Event_DELETE })
		}
	}
	return out
}

// cancel ends a watcher. Its messages in the queue are not sent any more. An unknown id gets no
// answer.
func (s *watchStream) cancel(id int64) *pb.WatchResponse {
	w := s.watchers[id]
	if w == nil {
		return nil
	}
	s.end(w)
	delete(s.watchers, id)
	return &pb.WatchResponse{Header: s.header(s.store.Revision()), WatchId: id, Canceled: true}
}

// reportAll announces the progress of the whole stream, if no watcher of it is behind. The
// store's report comes through the same channel as the events, and so after the events that it
// covers.
func (s *watchStream) reportAll() {
	if len(s.behind) > 0 {
		return
	}
	revision := s.store.Revision()
	for _, w := range s.watchers {
		if w.start > revision {
			return
		}
	}
	s.live.RequestProgressAll()
}

// reportProgress sends progress to the watchers that asked for it and got no event since the
// last report.
func (s *watchStream) reportProgress() {
	s.mu.Lock()
	defer s.mu.Unlock()
	revision := s.store.Revision()
	for _, w := range s.watchers {
		if !w.progress {
			continue
		}
		if w.quiet && w.registered != 0 && w.start <= revision {
			s.live.RequestProgress(w.registered)
		}
		w.quiet = true
	}
}

func (s *watchStream) header(revision int64) *pb.ResponseHeader {
	h := &pb.ResponseHeader{Revision: revision}
	s.fillWithoutRevision(h)
	return h
}
