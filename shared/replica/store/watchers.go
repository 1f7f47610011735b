package store

import (
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/pkg/v3/adt"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
)

// watcher is one registration in a stream.
type watcher struct {
	stream   *WatchStream
	id       mvcc.WatchID
	key, end []byte // nil end: one key; empty end: no upper limit
	filters  []mvcc.FilterFunc
}

func (w *watcher) filtered(e *mvccpb.Event) bool {
	for _, out := range w.filters {
		if out(e) {
			return true
		}
	}
	return false
}

type watcherSet map[*watcher]struct{}

// watchers finds the watchers of a key, like etcd's watcherGroup.
type watchers struct {
	all    watcherSet
	keys   map[string]watcherSet
	ranges adt.IntervalTree // of watcherSet
}

func newWatchers() watchers {
	return watchers{all: watcherSet{}, keys: map[string]watcherSet{}, ranges: adt.NewIntervalTree()}
}

func (ws *watchers) add(w *watcher) {
	watchersTotal.Inc()
	w.stream.watchers[w.id] = w
	ws.all[w] = struct{}{}
	if w.end == nil {
		set := ws.keys[string(w.key)]
		if set == nil {
			set = watcherSet{}
			ws.keys[string(w.key)] = set
		}
		set[w] = struct{}{}
		return
	}
	span := w.span()
	if at := ws.ranges.Find(span); at != nil {
		at.Val.(watcherSet)[w] = struct{}{}
		return
	}
	ws.ranges.Insert(span, watcherSet{w: {}})
}

func (ws *watchers) remove(w *watcher) {
	watchersTotal.Dec()
	delete(w.stream.watchers, w.id)
	delete(ws.all, w)
	if w.end == nil {
		set := ws.keys[string(w.key)]
		delete(set, w)
		if len(set) == 0 {
			delete(ws.keys, string(w.key))
		}
		return
	}
	span := w.span()
	if at := ws.ranges.Find(span); at != nil {
		set := at.Val.(watcherSet)
		delete(set, w)
		if len(set) == 0 {
			ws.ranges.Delete(span)
		}
	}
}

// of calls f once for each watcher of a key.
func (ws *watchers) of(key string, f func(*watcher)) {
	for w := range ws.keys[key] {
		f(w)
	}
	if ws.ranges.Len() == 0 {
		return
	}
	for _, at := range ws.ranges.Stab(adt.NewStringAffinePoint(key)) {
		for w := range at.Val.(watcherSet) {
			f(w)
		}
	}
}

func (w *watcher) span() adt.Interval {
	return adt.NewStringAffineInterval(string(w.key), string(w.end))
}
