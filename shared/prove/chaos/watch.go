package chaos

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/anishathalye/porcupine"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// Event is a change of a key as a watch reported it.
type Event struct {
	Revision int64
	Delete   bool
	Key      string
	Value    string
	// Prev is the previous value with its revision; 0 if there was none.
	Prev         string
	PrevRevision int64
}

func (e Event) String() string {
	text := fmt.Sprintf("revision %d: put %s = %s", e.Revision, e.Key, e.Value)
	if e.Delete {
		text = fmt.Sprintf("revision %d: delete %s", e.Revision, e.Key)
	}
	return fmt.Sprintf("%s (previous value: %q of revision %d)", text, e.Prev, e.PrevRevision)
}

// eventOf converts a stock client's event; values are without padding, see Client.short.
func eventOf(e *clientv3.Event, valueBytes int) Event {
	out := Event{Revision: e.Kv.ModRevision, Delete: e.Type == clientv3.EventTypeDelete, Key: string(e.Kv.Key), Value: short(string(e.Kv.Value), valueBytes)}
	if e.PrevKv != nil {
		out.Prev, out.PrevRevision = short(string(e.PrevKv.Value), valueBytes), e.PrevKv.ModRevision
	}
	return out
}

// Observer is a stock client's watch and everything that it reported.
type Observer struct {
	Name string
	// Want selects the events that the watch asked for; nil means all.
	Want func(Event) bool
	// ValueBytes is Client.ValueBytes.
	ValueBytes int
	// OnEvent is called with each event, on the watching goroutine.
	OnEvent func(Event)

	mu   sync.Mutex
	saw  []Event
	last int64 // the watch has reported everything up to this revision
	err  error
}

// Watch records events until the channel is closed; ctx is the context of the watch.
func (o *Observer) Watch(ctx context.Context, ch clientv3.WatchChan) {
	for r := range ch {
		o.mu.Lock()
		if r.Err() != nil && ctx.Err() == nil {
			o.err = r.Err()
		}
		n := len(o.saw)
		for _, e := range r.Events {
			o.saw = append(o.saw, eventOf(e, o.ValueBytes))
			o.last = e.Kv.ModRevision
		}
		if r.IsProgressNotify() {
			o.last = max(o.last, r.Header.Revision)
		}
		fresh := o.saw[n:]
		o.mu.Unlock()
		if o.OnEvent != nil {
			for _, e := range fresh {
				o.OnEvent(e)
			}
		}
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if ctx.Err() == nil && o.err == nil {
		o.err = errors.New("the watch ended without a reason")
	}
}

// Knows reports whether the watch has reported everything up to a revision, or has failed.
func (o *Observer) Knows(revision int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last >= revision || o.err != nil
}

// Saw returns the events so far, and the error that ended the watch.
func (o *Observer) Saw() ([]Event, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.saw[:len(o.saw):len(o.saw)], o.err
}

// SameEvents compares the events of an observer with all events of its range. None may be
// missing, duplicated, different or out of order.
func SameEvents(o *Observer, all []Event) (wrong []string) {
	saw, err := o.Saw()
	if err != nil {
		return []string{fmt.Sprintf("watch %q ended: %v", o.Name, err)}
	}
	var want []Event
	for _, e := range all {
		if o.Want == nil || o.Want(e) {
			want = append(want, e)
		}
	}
	for i := range max(len(saw), len(want)) {
		switch {
		case i >= len(want):
			return []string{fmt.Sprintf("watch %q: %d events, the history has %d; the first extra event is %s", o.Name, len(saw), len(want), saw[i])}
		case i >= len(saw):
			return []string{fmt.Sprintf("watch %q: %d events, the history has %d; the first missing event is %s", o.Name, len(saw), len(want), want[i])}
		case saw[i] != want[i]:
			return []string{fmt.Sprintf("watch %q: event %d of %d is %s, the history has %s", o.Name, i, len(saw), saw[i], want[i])}
		}
	}
	return nil
}

// CheckEvents compares events with the operations of clients. Each acknowledged change must have
// exactly one event, at its revision. Every other event must come from an operation with an
// unknown outcome, which can happen only once, or from the end of a leased key. The previous
// value in each event must be correct.
func CheckEvents(ops []porcupine.Operation, events []Event, leased func(key string) bool) (wrong []string) {
	c := explain(ops)
	seen := map[int64]bool{} // acknowledged changes that have an event
	state := map[string]Event{}
	last := int64(0)
	type place struct {
		revision int64
		key      string
	}
	told := map[place]bool{}
	for _, e := range events {
		at := place{e.Revision, e.Key}
		switch before := state[e.Key]; {
		case told[at]:
			wrong = append(wrong, "reported twice: "+e.String())
		case e.Revision < last:
			wrong = append(wrong, fmt.Sprintf("reported after revision %d: %s", last, e))
		case e.Prev != before.Value || before.Revision != e.PrevRevision:
			wrong = append(wrong, fmt.Sprintf("the previous value was %q of revision %d: %s", before.Value, before.Revision, e))
		case c.acked[e.Revision].Key == e.Key:
			if r := c.acked[e.Revision]; e.Delete != (r.Kind == Delete) || e.Value != r.To {
				wrong = append(wrong, fmt.Sprintf("differs from the acknowledged change %+v: %s", r, e))
			}
			seen[e.Revision] = true
		case !c.explains(e) && !(e.Delete && leased != nil && leased(e.Key)):
			wrong = append(wrong, "no operation explains this event: "+e.String())
		}
		told[at] = true
		last = max(last, e.Revision)
		if e.Delete {
			delete(state, e.Key)
		} else {
			state[e.Key] = e
		}
	}
	for rev, r := range c.acked {
		if !seen[rev] {
			wrong = append(wrong, fmt.Sprintf("no event for %+v, acknowledged at revision %d", r, rev))
		}
	}
	return wrong
}

// causes are the operations that can have caused an event.
type causes struct {
	acked   map[int64]Request // by revision
	values  map[string]bool   // of writes with an unknown outcome, as "key value"; each can happen once
	deletes map[string]int    // deletes with an unknown outcome, by key
}

func explain(ops []porcupine.Operation) causes {
	c := causes{acked: map[int64]Request{}, values: map[string]bool{}, deletes: map[string]int{}}
	for _, op := range ops {
		r, a := op.Input.(Request), op.Output.(Answer)
		switch {
		case a.Revision > 0:
			c.acked[a.Revision] = r
		case a.Unknown && r.Kind == Delete:
			c.deletes[r.Key]++
		case a.Unknown:
			c.values[r.Key+" "+r.To] = true
		}
	}
	return c
}

// explains reports whether an operation with an unknown outcome explains an event. It uses the
// operation up.
func (c causes) explains(e Event) bool {
	if e.Delete {
		c.deletes[e.Key]--
		return c.deletes[e.Key] >= 0
	}
	ok := c.values[e.Key+" "+e.Value]
	delete(c.values, e.Key+" "+e.Value)
	return ok
}

// ReadEvents reads the events of a range of revisions below a prefix from the store, through one
// watch from the beginning. As an independent check, it compares them with the keys that existed
// at some of the revisions.
func ReadEvents(ctx context.Context, cl *clientv3.Client, prefix string, from, to int64, valueBytes int) ([]Event, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var out []Event
	for r := range cl.Watch(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithPrevKV()) {
		if err := r.Err(); err != nil {
			return nil, fmt.Errorf("read events from revision %d: %w", from, err)
		}
		for _, e := range r.Events {
			out = append(out, eventOf(e, valueBytes))
		}
		if len(out) > 0 && out[len(out)-1].Revision >= to {
			break
		}
	}
	if err := ctx.Err(); err != nil {
		return nil, fmt.Errorf("read events from revision %d to %d: got only %d: %w", from, to, len(out), err)
	}
	out = eventsUntil(out, to)     // the last answer may have later ones, for example the end of a lease
	every := max(25, len(out)/200) // a check of every revision would take too long
	keys := map[string]string{}
	for i, e := range out {
		keys[e.Key] = e.Value
		if e.Delete {
			delete(keys, e.Key)
		}
		if i+1 < len(out) && (out[i+1].Revision == e.Revision || i%every != 0) {
			continue
		}
		if err := sameKeys(ctx, cl, prefix, e.Revision, keys, valueBytes); err != nil {
			return nil, err
		}
	}
	return out, nil
}

// eventsUntil returns the events up to a revision. Events must be in order.
func eventsUntil(events []Event, revision int64) []Event {
	if n := slices.IndexFunc(events, func(e Event) bool { return e.Revision > revision }); n >= 0 {
		return events[:n]
	}
	return events
}

// ErrEvents says that the events of the past do not match the keys of the past.
var ErrEvents = errors.New("the events do not match the keys in the store")

func sameKeys(ctx context.Context, cl *clientv3.Client, prefix string, revision int64, keys map[string]string, valueBytes int) error {
	ctx, done := context.WithTimeout(ctx, time.Minute)
	defer done()
	r, err := cl.Get(ctx, prefix, clientv3.WithPrefix(), clientv3.WithRev(revision))
	if err != nil {
		return fmt.Errorf("read keys at revision %d: %w", revision, err)
	}
	for _, kv := range r.Kvs {
		if got := short(string(kv.Value), valueBytes); keys[string(kv.Key)] != got {
			return fmt.Errorf("%w: revision %d: %s is %q in the store, %q by the events", ErrEvents, revision, kv.Key, got, keys[string(kv.Key)])
		}
	}
	if len(r.Kvs) != len(keys) {
		return fmt.Errorf("%w: revision %d: %d keys in the store, %d by the events", ErrEvents, revision, len(r.Kvs), len(keys))
	}
	return nil
}
