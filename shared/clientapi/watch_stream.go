package clientapi

import (
	"bytes"
	"slices"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"github.com/dynast-io/dynast/shared/store"
)

// watchStream is one client's stream and its watchers.
type watchStream struct {
	*watchServer
	rpc pb.Watch_WatchServer
	// live is the stream's part of the store.
	live *store.WatchStream
	// wake tells the sending goroutine that there is something to do.
	wake chan struct{}
	// ahead has an element for each request that waits for its answer to be sent.
	ahead chan struct{}
	// over is closed when the stream ends.
	over chan struct{}

	// mu may be held when locks of the store are taken, never the other way.
	mu     sync.Mutex
	closed bool
	// watchers by the id that the client knows. It may be canceled by the
	// server (compacted) and still be there, until the client cancels it.
	watchers map[int64]*watcher
	nextID   int64
	// registered has those that are live, by the id that the store knows. That
	// is never used twice: late events of an earlier registration are nobody's.
	registered     map[mvcc.WatchID]*watcher
	lastRegistered mvcc.WatchID
	// behind has those that are behind, in the order of their turns.
	behind []*watcher
	// queue has what is to be sent; queued and sent number its elements.
	queue        []message
	queueBytes   int
	queued, sent uint64
}

// watcher is one watch of a stream. Its fields but the first ones, which do
// not change, are guarded by the stream's mu.
//
// Invariant: it is live (registered != 0), or in the stream's list behind, or ended.
// All its events before revision next are in the queue or sent.
type watcher struct {
	id               int64
	key, end         []byte // end as mvcc wants it: nil is one key, empty is no end
	filters          []mvcc.FilterFunc
	start            int64
	prevKV, fragment bool
	progress         bool

	registered mvcc.WatchID
	next       int64
	// lastQueued is the number of its last element in the queue: what is read
	// from the store must not be sent before.
	lastQueued uint64
	// quiet is set while it is owed a word about its progress.
	quiet bool
	// ended: canceled, by the client or because of a compaction.
	ended bool
}

// message is an answer, or events for a watcher, or its progress (no events).
// Without either, it is the progress of all.
type message struct {
	answer   *pb.WatchResponse
	watcher  *watcher
	events   []*mvccpb.Event
	revision int64

	bytes  int
	number uint64
}

// enqueue is called with mu held, like all that follow but pump and close.
func (s *watchStream) enqueue(m message) {
	for _, e := range m.events {
		m.bytes += len(e.Kv.Key) + len(e.Kv.Value)
	}
	s.queued++
	m.number = s.queued
	if m.watcher != nil {
		m.watcher.lastQueued = m.number
	}
	s.queueBytes += m.bytes
	s.queue = append(s.queue, m)
	s.wakeUp()
}

func (s *watchStream) wakeUp() {
	select {
	case s.wake <- struct{}{}:
	default:
	}
}

func (s *watchStream) full() bool {
	return len(s.queue) >= s.watchServer.queueMessages || s.queueBytes >= s.watchServer.queueBytes
}

// pop takes the next message to send.
func (s *watchStream) pop() (message, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 {
		m := s.queue[0]
		s.queue[0] = message{}
		s.queue = s.queue[1:]
		s.queueBytes -= m.bytes
		s.sent = m.number // sent before anything that is looked at later
		if m.watcher == nil || !m.watcher.ended {
			return m, true
		}
	}
	s.queue = nil
	return message{}, false
}

// pump takes what the store has for the live watchers. It is there to take
// it whatever the client does; a watcher for which it was too late all the same
// is behind.
func (s *watchStream) pump() {
	for r := range s.live.Chan() {
		mvcc.ReportEventReceived(len(r.Events))
		s.store.AwaitRevision(r.Revision) // its client may read next
		s.mu.Lock()
		s.take(r)
		for _, id := range s.live.Lost() {
			if w := s.registered[id]; w != nil {
				s.fallBehind(w)
			}
		}
		s.mu.Unlock()
	}
}

func (s *watchStream) take(r mvcc.WatchResponse) {
	if r.WatchID == clientv3.InvalidWatchID {
		// Not true any more if one of them fell behind since it was said.
		if len(s.behind) == 0 && !s.full() {
			s.enqueue(message{revision: r.Revision})
		}
		return
	}
	w := s.registered[r.WatchID]
	if w == nil {
		return
	}
	if len(r.Events) == 0 {
		if !s.full() {
			s.enqueue(message{watcher: w, revision: r.Revision})
		}
		return
	}
	events := since(r.Events, w.next)
	if len(events) == 0 {
		return
	}
	if s.full() {
		w.next = events[0].Kv.ModRevision
		s.fallBehind(w)
		return
	}
	w.next = events[len(events)-1].Kv.ModRevision + 1
	s.enqueue(message{watcher: w, events: events, revision: r.Revision})
}

// since leaves out the events before a revision.
func since(events []*mvccpb.Event, revision int64) []*mvccpb.Event {
	i := slices.IndexFunc(events, func(e *mvccpb.Event) bool { return e.Kv.ModRevision >= revision })
	if i < 0 {
		return nil
	}
	return events[i:]
}

// goLive registers a watcher for all that is written from now on.
func (s *watchStream) goLive(w *watcher) error {
	s.lastRegistered++
	if err := s.live.Watch(s.lastRegistered, w.key, w.end, w.filters...); err != nil {
		return err
	}
	w.registered = s.lastRegistered
	s.registered[w.registered] = w
	return nil
}

// leave ends a registration.
func (s *watchStream) leave(w *watcher) {
	if w.registered == 0 {
		return
	}
	s.live.Cancel(w.registered)
	delete(s.registered, w.registered)
	w.registered = 0
}

// fallBehind lets a watcher get its events from w.next on out of the store.
func (s *watchStream) fallBehind(w *watcher) {
	s.leave(w)
	s.behind = append(s.behind, w)
	s.wakeUp()
}

// end is for a watcher that gets no more events.
func (s *watchStream) end(w *watcher) {
	s.leave(w)
	w.ended = true
	s.behind = slices.DeleteFunc(s.behind, func(b *watcher) bool { return b == w })
}

// close lets go of the store.
func (s *watchStream) close() {
	s.mu.Lock()
	s.closed = true
	s.queue, s.behind = nil, nil
	s.mu.Unlock()
	close(s.over)
	s.live.Close()
}

// wants reports whether an event of the past is for w.
func (w *watcher) wants(e *mvccpb.Event) bool {
	switch {
	case w.end == nil:
		if !bytes.Equal(e.Kv.Key, w.key) {
			return false
		}
	case bytes.Compare(e.Kv.Key, w.key) < 0, len(w.end) > 0 && bytes.Compare(e.Kv.Key, w.end) >= 0:
		return false
	}
	return !slices.ContainsFunc(w.filters, func(out mvcc.FilterFunc) bool { return out(e) })
}
