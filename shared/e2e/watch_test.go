package e2e

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynast-io/dynast/shared/tree"
)

// happening is an event as a watcher saw it, and as the history has it.
type happening struct {
	revision int64
	sub      string // type, key and value
	prev     string
}

func happeningOf(e *clientv3.Event) happening {
	h := happening{revision: e.Kv.ModRevision, sub: fmt.Sprintf("%s %s=%s", e.Type, e.Kv.Key, e.Kv.Value)}
	if e.PrevKv != nil {
		h.prev = fmt.Sprintf("%s@%d", e.PrevKv.Value, e.PrevKv.ModRevision)
	}
	return h
}

// observer is a stock client's watch and all that it saw.
type observer struct {
	name string
	mu   sync.Mutex
	saw  []happening
	last int64 // the revision up to which it knows everything
	err  error
}

func (o *observer) watch(ctx context.Context, ch clientv3.WatchChan) {
	for r := range ch {
		o.mu.Lock()
		if r.Err() != nil && ctx.Err() == nil {
			o.err = r.Err()
		}
		for _, e := range r.Events {
			o.saw = append(o.saw, happeningOf(e))
			o.last = e.Kv.ModRevision
		}
		if r.IsProgressNotify() {
			o.last = max(o.last, r.Header.Revision)
		}
		o.mu.Unlock()
	}
	o.mu.Lock()
	defer o.mu.Unlock()
	if ctx.Err() == nil && o.err == nil {
		o.err = fmt.Errorf("the watch ended by itself")
	}
}

func (o *observer) knows(revision int64) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.last >= revision || o.err != nil
}

func (o *observer) compare(t *testing.T, want []happening) {
	t.Helper()
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.err != nil {
		t.Errorf("%s: %v", o.name, o.err)
		return
	}
	for i := range max(len(o.saw), len(want)) {
		var got, wanted happening
		if i < len(o.saw) {
			got = o.saw[i]
		}
		if i < len(want) {
			wanted = want[i]
		}
		if got != wanted {
			t.Errorf("%s: event %d of %d is %+v, the history's, of %d, is %+v", o.name, i, len(o.saw), got, len(want), wanted)
			return
		}
	}
	t.Logf("%s: %d events, all compared", o.name, len(want))
}

// churn puts, overwrites and deletes keys, alone and in transactions.
func churn(ctx context.Context, cl *clientv3.Client, w int, done func()) {
	for i := 0; ctx.Err() == nil; i++ {
		key := fmt.Sprintf("w/%d/%d", w, i%7)
		var err error
		switch i % 5 {
		case 3:
			_, err = cl.Delete(ctx, key)
		case 4:
			_, err = cl.Txn(ctx).Then(clientv3.OpPut(key, fmt.Sprint(i)), clientv3.OpPut(key+"/t", fmt.Sprint(i))).Commit()
		default:
			_, err = cl.Put(ctx, key, fmt.Sprint(i))
		}
		if err == nil {
			done()
		}
	}
}

// eventsOf reads what happened, from the store as it is in the end, one
// revision after the other.
func eventsOf(t *testing.T, cl *clientv3.Client, from, to int64) []happening {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	var out []happening
	for r := range cl.Watch(ctx, "w/", clientv3.WithPrefix(), clientv3.WithRev(from), clientv3.WithPrevKV()) {
		for _, e := range r.Events {
			out = append(out, happeningOf(e))
		}
		if len(out) > 0 && out[len(out)-1].revision >= to {
			break
		}
	}
	// That is one watch's word. What keys there were at each revision is another's.
	keys := map[string]string{}
	for i, h := range out {
		kind, kv, _ := strings.Cut(h.sub, " ")
		key, value, _ := strings.Cut(kv, "=")
		if kind == "PUT" {
			keys[key] = value
		} else {
			delete(keys, key)
		}
		if i+1 < len(out) && out[i+1].revision == h.revision || i%25 != 0 && i+1 < len(out) {
			continue
		}
		r, err := cl.Get(ctx, "w/", clientv3.WithPrefix(), clientv3.WithRev(h.revision))
		if err != nil {
			t.Fatal(err)
		}
		for _, kv := range r.Kvs {
			if keys[string(kv.Key)] != string(kv.Value) {
				t.Fatalf("revision %d: %s is %q, by the events %q", h.revision, kv.Key, kv.Value, keys[string(kv.Key)])
			}
		}
		if len(r.Kvs) != len(keys) {
			t.Fatalf("revision %d: %d keys, by the events %d", h.revision, len(r.Kvs), len(keys))
		}
	}
	return out
}

// Watches of stock clients go on through the deaths of leaders: no event is
// missed, none comes twice, and none that did not happen.
func TestWatchAcrossLeaderKills(t *testing.T) {
	c := start(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var watching, writing sync.WaitGroup
	observe := func(name string, cl *clientv3.Client, key string, opts ...clientv3.OpOption) *observer {
		o := &observer{name: name}
		ch := cl.Watch(ctx, key, append(opts, clientv3.WithPrevKV())...)
		watching.Go(func() { o.watch(ctx, ch) })
		return o
	}
	shared := c.dial() // several watchers on one stream
	all := []*observer{
		observe("prefix", shared, "w/", clientv3.WithPrefix(), clientv3.WithRev(1)),
		observe("fragments", shared, "w/", clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithFragment(), clientv3.WithProgressNotify()),
		observe("from key", c.dial(), "w/", clientv3.WithFromKey(), clientv3.WithRev(1)),
	}
	one := observe("one key", shared, "w/1/1", clientv3.WithRev(1))
	deletes := observe("deletes", shared, "w/", clientv3.WithPrefix(), clientv3.WithRev(1), clientv3.WithFilterPut())

	writeCtx, stop := context.WithCancel(ctx)
	var mu sync.Mutex
	writes := 0
	for w := range 4 {
		cl := c.dial()
		writing.Go(func() { churn(writeCtx, cl, w, func() { mu.Lock(); writes++; mu.Unlock() }) })
	}
	more := func(n int) {
		mu.Lock()
		before := writes
		mu.Unlock()
		eventually(t, fmt.Sprintf("%d more writes", n), func() bool { mu.Lock(); defer mu.Unlock(); return writes >= before+n })
	}
	for range 4 {
		before := c.full()
		more(100)
		all = append(all, observe("late", c.dial(), "w/", clientv3.WithPrefix(), clientv3.WithRev(1)))
		c.signal(leaderOf(before), syscall.SIGKILL)
		c.wait("another leads", func(t *tree.Tree) bool { return t.Leader != before.Leader })
		more(100)
	}
	stop()
	writing.Wait()

	cl := c.dial()
	end, err := cl.Put(testContext(t), "w/1/1", "end")
	if err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Delete(testContext(t), "w/1/1"); err != nil {
		t.Fatal(err)
	}
	last := end.Header.Revision + 1
	want := eventsOf(t, cl, 1, last)
	for _, o := range append(all, one, deletes) {
		eventually(t, o.name+" saw the last event", func() bool { return o.knows(last) })
	}
	cancel()
	watching.Wait()
	for _, o := range all {
		o.compare(t, want)
	}
	one.compare(t, onlyThose(want, func(h happening) bool {
		return strings.HasPrefix(h.sub, "PUT w/1/1=") || h.sub == "DELETE w/1/1="
	}))
	deletes.compare(t, onlyThose(want, func(h happening) bool { return strings.HasPrefix(h.sub, "DELETE") }))
	if len(want) < 800 {
		t.Errorf("only %d events", len(want))
	}
}

func onlyThose(all []happening, keep func(happening) bool) (out []happening) {
	for _, h := range all {
		if keep(h) {
			out = append(out, h)
		}
	}
	return out
}
