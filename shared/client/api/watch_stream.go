package api

import (
	"bytes"
	"slices"
	"sync"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"github.com/dynast-io/dynast/shared/replica/store"
)

// watchStream is one client's stream and its watchers.
type watchStream struct {
	*watchServer
	rpc pb.Watch_WatchServer
	// live is the stream's registration with the store.
	live *store.WatchStream
	// wake tells the sending goroutine that there is work.
	wake chan struct{}
	// ahead has an element for each request whose answer is not sent yet.
	ahead chan struct{}
	// over is closed when the stream ends.
	over chan struct{}

	// mu may be held while locks of the store are taken, never the other way round.
	mu     sync.Mutex
	closed bool
	// watchers maps the ids that the client knows. A watcher that the server canceled
	// (compacted) stays in it until the client cancels it too.
	watchers map[int64]*watcher
	nextID   int64
	// registered holds the live watchers by the id that the store knows. Such an id is never
	// reused, so that late events of an earlier registration are ignored.
	registered     map[mvcc.WatchID]*watcher
	lastRegistered mvcc.WatchID
	// behind holds the watchers that are behind, in the order of their turns.
	behind []*watcher
	// queue holds the messages to send. queued and sent number its elements.
	queue        []message
	queueBytes   int
	queued, sent uint64
}

// watcher is one watch of a stream. The first fields do not change. The others are guarded
// by the stream's mu.
//
// Invariant: a watcher is live (registered != 0), or in the stream's list behind, or
// ended. All its events before revision next are in the queue or sent.
type watcher struct {
	id               int64
	key, end         []byte // end as mvcc wants it: nil is one key, empty is no end
	filters          []mvcc.FilterFunc
	start            int64
	prevKV, fragment bool
	progress         bool

	registered mvcc.WatchID
	next       int64
	// lastQueued is the number of its last message in the queue. Events that are read from the
	// store must not be sent before that message.
	lastQueued uint64
	// quiet means that it got no event since the last progress report.
	quiet bool
	// ended means canceled, by the client or because of a compaction.
	ended bool
}

// message is an answer, or events for a watcher, or its progress (no events). Without answer
// and watcher it is the progress of all watchers.
type message struct {
	answer   *pb.WatchResponse
	watcher  *watcher
	events   []*mvccpb.Event
	revision int64

	bytes  int
	number uint64
}

// enqueue adds a message to the queue. mu is held, as in all methods below except pump and
// close.
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

// pop removes and returns the next message to send.
func (s *watchStream) pop() (message, bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for len(s.queue) > 0 {
		m := s.queue[0]
		s.queue[0] = message{}
		s.queue = s.queue[1:]
		s.queueBytes -= m.bytes
		s.sent = m.number // it is sent before anything that is looked at later
		if m.watcher == nil || !m.watcher.ended {
			return m, true
		}
	}
	s.queue = nil
	return message{}, false
}

// pump receives the store's events for the live watchers. It has a goroutine of its own, so
// that it receives whatever the client does. A watcher for which it was too slow nevertheless
// falls behind.
func (s *watchStream) pump() {
	for r := range s.live.Chan() {
		mvcc.ReportEventReceived(len(r.Events))
		s.store.AwaitRevision(r.Revision) // the client may read after this event
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
		// The report is no longer true if a watcher fell behind since it was made.
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

// goLive registers a watcher for all future writes.
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

// fallBehind makes a watcher read its events from w.next on from the store.
func (s *watchStream) fallBehind(w *watcher) {
	s.leave(w)
	s.behind = append(s.behind, w)
	s.wakeUp()
}

// end ends a watcher, which gets no more events.
func (s *watchStream) end(w *watcher) {
	s.leave(w)
	w.ended = true
	s.behind = slices.DeleteFunc(s.behind, func(b *watcher) bool { return b == w })
}

// close ends the stream's registration with the store.
func (s *watchStream) close() {
	s.mu.Lock()
	s.closed = true
	s.queue, s.behind = nil, nil
	s.mu.Unlock()
	close(s.over)
	s.live.Close()
}

// wants reports whether a past event is for w.
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
