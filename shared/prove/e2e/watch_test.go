package e2e

import (
	"context"
	"fmt"
	"sync"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/prove/chaos"
)

// churn puts, overwrites and deletes keys, separately and in transactions.
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

// TestWatchAcrossLeaderKills: watches of stock clients continue when leaders die. No event is
// missing, none comes twice, and none is wrong.
func TestWatchAcrossLeaderKills(t *testing.T) {
	c := start(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var watching, writing sync.WaitGroup
	observe := func(name string, cl *clientv3.Client, key string, opts ...clientv3.OpOption) *chaos.Observer {
		o := &chaos.Observer{Name: name}
		ch := cl.Watch(ctx, key, append(opts, clientv3.WithPrevKV())...)
		watching.Go(func() { o.Watch(ctx, ch) })
		return o
	}
	shared := c.dial() // several watchers on one stream
	all := []*chaos.Observer{
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
		c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != before.Leader })
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
	want, err := chaos.ReadEvents(testContext(t), cl, "w/", 1, last, 0)
	if err != nil {
		t.Fatal(err)
	}
	one.Want = func(e chaos.Event) bool { return e.Key == "w/1/1" }
	deletes.Want = func(e chaos.Event) bool { return e.Delete }
	all = append(all, one, deletes)
	for _, o := range all {
		eventually(t, o.Name+" saw the last event", func() bool { return o.Knows(last) })
	}
	cancel()
	watching.Wait()
	for _, o := range all {
		for _, wrong := range chaos.SameEvents(o, want) {
			t.Error(wrong)
		}
	}
	if len(want) < 800 {
		t.Errorf("the test produced only %d events", len(want))
	}
}
