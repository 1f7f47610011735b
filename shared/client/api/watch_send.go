package api

import (
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/protobuf/proto"
)

// This file runs on the sending goroutine. Only that goroutine sends, and only it makes
// watchers live that were behind.

// messagesPerTurn is how many messages of the queue are sent between two pieces of history, so
// that all watchers of a stream make progress.
const messagesPerTurn = 64

// sendSome sends a part of what is waiting, and reports whether there may be more.
func (s *watchStream) sendSome() (busy bool, err error) {
	for range messagesPerTurn {
		m, ok := s.pop()
		if !ok {
			break
		}
		busy = true
		if err := s.sendMessage(m); err != nil {
			return false, err
		}
	}
	caughtUp, err := s.catchUp()
	return busy || caughtUp, err
}

func (s *watchStream) sendMessage(m message) error {
	switch {
	case m.answer != nil:
		err := s.rpc.Send(m.answer)
		<-s.ahead
		return err
	case m.watcher == nil:
		return s.rpc.Send(&pb.WatchResponse{Header: s.header(m.revision), WatchId: clientv3.InvalidWatchID})
	default:
		return s.sendEvents(m.watcher, m.events, m.revision)
	}
}

// sendEvents sends events to one watcher, or its progress if there are no events.
func (s *watchStream) sendEvents(w *watcher, events []*mvccpb.Event, revision int64) error {
	if w.prevKV {
		events = s.withPrevious(events)
	}
	r := &pb.WatchResponse{Header: s.header(revision), WatchId: w.id, Events: events}
	if len(events) > 0 {
		s.mu.Lock()
		w.quiet = false
		s.mu.Unlock()
	}
	if !w.fragment {
		return s.rpc.Send(r)
	}
	for _, f := range fragments(r, s.fragmentBytes) {
		if err := s.rpc.Send(f); err != nil {
			return err
		}
	}
	return nil
}

// withPrevious adds the previous values of the keys. After a compaction a value may be unknown
// and is left out, as with etcd. The events are copied, because other watchers may share them.
func (s *watchStream) withPrevious(events []*mvccpb.Event) []*mvccpb.Event {
	out := make([]*mvccpb.Event, len(events))
	for i, e := range events {
		out[i] = &mvccpb.Event{Type: e.Type, Kv: e.Kv}
		if e.Type == mvccpb.Event_PUT && e.Kv.CreateRevision == e.Kv.ModRevision {
			continue
		}
		r, err := s.store.KV().Range(s.rpc.Context(), e.Kv.Key, nil, mvcc.RangeOptions{Rev: e.Kv.ModRevision - 1})
		if err == nil && len(r.KVs) > 0 {
			out[i].PrevKv = r.KVs[0]
		}
	}
	return out
}

// fragments splits a response with more than one event into responses below a size. All but the
// last say that more follow.
func fragments(r *pb.WatchResponse, maxBytes int) []*pb.WatchResponse {
	if len(r.Events) < 2 || proto.Size(r) < maxBytes {
		return []*pb.WatchResponse{r}
	}
	fragment := func() *pb.WatchResponse {
		return &pb.WatchResponse{Header: r.Header, WatchId: r.WatchId, Fragment: true}
	}
	f := fragment()
	empty := proto.Size(f)
	var out []*pb.WatchResponse
	size := empty
	for _, e := range r.Events {
		// As a field of the response, an event also needs a tag (one byte) and a length.
		n := proto.Size(&pb.WatchResponse{Events: []*mvccpb.Event{e}})
		if len(f.Events) > 0 && size+n >= maxBytes {
			out = append(out, f)
			f, size = fragment(), empty
		}
		f.Events = append(f.Events, e)
		size += n
	}
	f.Fragment = false
	return append(out, f)
}
