package store

import (
	"bytes"
	"errors"
	"sync"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.etcd.io/etcd/api/v3/mvccpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/pkg/v3/traceutil"
	"go.etcd.io/etcd/server/v3/lease"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// watchable is etcd's key-value store with watchers.
//
// etcd's own implementation looks for slow watchers ten times a second, in every member and
// even if nothing is watched. Here the owner of a slow watcher has to catch up by itself
// (see WatchStream.Lost). So nothing runs except during a write, and a store without
// watchers makes no events.
type watchable struct {
	mvcc.KV

	// mu is locked while a write becomes visible. It may be taken while locks of the store are
	// held, never the other way round.
	mu sync.RWMutex
	// revision is the revision of the last change.
	revision int64
	watchers watchers
}

func newWatchable(kv mvcc.KV, lessor lease.Lessor) *watchable {
	w := &watchable{KV: kv, revision: kv.Rev(), watchers: newWatchers()}
	// The end of a lease deletes its keys, which is an event too.
	lessor.SetRangeDeleter(func() lease.TxnDelete { return &leaseEnd{kv: w} })
	return w
}

// leaseEnd is the transaction that deletes the keys of a lease. It begins with the first key,
// because most leases that end have none left.
type leaseEnd struct {
	kv *watchable
	tx mvcc.TxnWrite
}

func (t *leaseEnd) DeleteRange(key, end []byte) (n, rev int64) {
	if t.tx == nil {
		t.tx = t.kv.Write(untraced)
	}
	return t.tx.DeleteRange(key, end)
}

func (t *leaseEnd) End() {
	if t.tx != nil {
		t.tx.End()
	}
}

// Write begins a transaction.
func (k *watchable) Write(trace *traceutil.Trace) mvcc.TxnWrite {
	return &watchedTxn{TxnWrite: k.KV.Write(trace), kv: k}
}

// Put is a transaction of one change.
func (k *watchable) Put(key, value []byte, id lease.LeaseID) (rev int64) {
	tx := k.Write(traceutil.TODO())
	defer tx.End()
	return tx.Put(key, value, id)
}

// DeleteRange is a transaction of one change.
func (k *watchable) DeleteRange(key, end []byte) (n, rev int64) {
	tx := k.Write(traceutil.TODO())
	defer tx.End()
	return tx.DeleteRange(key, end)
}

type watchedTxn struct {
	mvcc.TxnWrite
	kv *watchable
}

// End notifies the watchers and makes the changes visible. For everybody who registers or asks
// for progress, both happen at once.
func (t *watchedTxn) End() {
	changes := t.Changes()
	if len(changes) == 0 {
		t.TxnWrite.End()
		return
	}
	t.kv.mu.Lock()
	defer t.kv.mu.Unlock()
	t.kv.revision = t.Rev() + 1
	if len(t.kv.watchers.all) > 0 {
		t.kv.notify(changes)
	}
	t.TxnWrite.End()
}

// notify sends the events of a write. mu is locked.
func (k *watchable) notify(changes []*mvccpb.KeyValue) {
	batches := map[*watcher][]*mvccpb.Event{}
	for _, kv := range changes {
		event := mvccpb.Event{Kv: kv}
		if kv.CreateRevision == 0 {
			event.Type, kv.ModRevision = mvccpb.Event_DELETE, k.revision
		}
		k.watchers.of(string(kv.Key), func(w *watcher) {
			if !w.filtered(&event) {
				// One event for each watcher, because its owner adds the previous value.
				batches[w] = append(batches[w], &mvccpb.Event{Type: event.Type, Kv: kv})
			}
		})
	}
	for w, events := range batches {
		if w.stream.send(mvcc.WatchResponse{WatchID: w.id, Events: events, Revision: k.revision}) {
			eventsPending.Add(float64(len(events)))
		} else {
			k.watchers.remove(w)
		}
	}
}

// watchBuffer is how many responses may wait for the owner of a stream.
const watchBuffer = 128

// WatchStream has watchers of future writes. All their events come through one channel.
type WatchStream struct {
	kv *watchable
	ch chan mvcc.WatchResponse

	// These fields are guarded by watchable.mu.
	watchers map[mvcc.WatchID]*watcher
	closed   bool

	// mu is held while sending, so that whoever drains a full channel finds the watchers that
	// were lost because of it.
	mu   sync.Mutex
	lost []mvcc.WatchID
}

// NewWatchStream returns a stream, which must be closed when it is no longer needed.
func (s *Store) NewWatchStream() *WatchStream {
	streamsTotal.Inc()
	return &WatchStream{kv: s.kv, ch: make(chan mvcc.WatchResponse, watchBuffer), watchers: map[mvcc.WatchID]*watcher{}}
}

// Watch registers a watcher for a key, or for the range up to end if its length is not 0. The
// id must be new in the stream.
func (s *WatchStream) Watch(id mvcc.WatchID, key, end []byte, filters ...mvcc.FilterFunc) error {
	if len(end) != 0 && bytes.Compare(key, end) >= 0 {
		return mvcc.ErrEmptyWatcherRange
	}
	w := &watcher{stream: s, id: id, key: key, end: end, filters: filters}
	s.kv.mu.Lock()
	defer s.kv.mu.Unlock()
	switch {
	case s.closed:
		return errClosed
	case s.watchers[id] != nil:
		return mvcc.ErrWatcherDuplicateID
	}
	s.kv.watchers.add(w)
	return nil
}

// Chan returns the channel of all responses. The receiver of a response must call Lost
// afterwards.
func (s *WatchStream) Chan() <-chan mvcc.WatchResponse { return s.ch }

// Lost returns, once, the watchers that were removed because the channel was full. They miss
// events that are later than all events in the channel.
func (s *WatchStream) Lost() []mvcc.WatchID {
	s.mu.Lock()
	defer s.mu.Unlock()
	lost := s.lost
	s.lost = nil
	return lost
}

// Cancel removes the watcher with an id, if there is one. Responses that are in the channel
// stay there.
func (s *WatchStream) Cancel(id mvcc.WatchID) {
	s.kv.mu.Lock()
	defer s.kv.mu.Unlock()
	if w := s.watchers[id]; w != nil {
		s.kv.watchers.remove(w)
	}
}

// RequestProgress sends a response without events. It comes after all events up to its
// revision, and so says that the watcher misses none of them.
func (s *WatchStream) RequestProgress(id mvcc.WatchID) {
	s.kv.mu.RLock()
	defer s.kv.mu.RUnlock()
	if s.watchers[id] != nil {
		s.offer(mvcc.WatchResponse{WatchID: id, Revision: s.kv.revision})
	}
}

// RequestProgressAll does the same for all watchers at once. The id in the response is
// clientv3.InvalidWatchID. Nothing is sent if there is no watcher or if one was lost.
func (s *WatchStream) RequestProgressAll() {
	s.kv.mu.RLock()
	defer s.kv.mu.RUnlock()
	if len(s.watchers) > 0 {
		s.offer(mvcc.WatchResponse{WatchID: clientv3.InvalidWatchID, Revision: s.kv.revision})
	}
}

// Close removes all watchers and closes the channel.
func (s *WatchStream) Close() {
	s.kv.mu.Lock()
	defer s.kv.mu.Unlock()
	for _, w := range s.watchers {
		s.kv.watchers.remove(w)
	}
	s.closed = true
	close(s.ch)
	streamsTotal.Dec()
}

// send is called with watchable.mu locked. It returns false if the channel is full and the
// watcher is lost.
func (s *WatchStream) send(r mvcc.WatchResponse) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	select {
	case s.ch <- r:
		return true
	default:
		s.lost = append(s.lost, r.WatchID)
		return false
	}
}

// offer sends a response that may be dropped.
func (s *WatchStream) offer(r mvcc.WatchResponse) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.lost) > 0 {
		return
	}
	select {
	case s.ch <- r:
	default:
	}
}

// etcd's own package may have registered its metrics already.
var (
	streamsTotal  = registeredGauge("watch_stream_total", "Total number of watch streams.")
	watchersTotal = registeredGauge("watcher_total", "Total number of watchers.")
	eventsPending = registeredGauge("pending_events_total", "Total number of pending events to be sent.")
	keysTotal     = registeredGauge("keys_total", "Total number of keys.")
)

// Counts returns how many keys the key-value store of this process has, and how many watchers. etcd's
// code keeps both counts up to date, so nothing is scanned. If a process has several stores, the keys
// are those of the store that was opened last.
func Counts() (keys, watchers int64) { return valueOf(keysTotal), valueOf(watchersTotal) }

func valueOf(g prometheus.Gauge) int64 {
	var m dto.Metric
	if err := g.Write(&m); err != nil {
		panic(err) // a gauge has no reason to fail
	}
	return int64(m.GetGauge().GetValue())
}

func registeredGauge(name, help string) prometheus.Gauge {
	g := prometheus.NewGauge(prometheus.GaugeOpts{Namespace: "etcd_debugging", Subsystem: "mvcc", Name: name, Help: help})
	var there prometheus.AlreadyRegisteredError
	if err := prometheus.Register(g); errors.As(err, &there) {
		if existing, ok := there.ExistingCollector.(prometheus.Gauge); ok {
			return existing
		}
	}
	return g
}
