package e2e

import (
	"fmt"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestLimitsOfEtcdsFlags checks limits that the test suites of other clients set: etcd's
// --max-txn-ops, a small --quota-backend-bytes, and --watch-progress-notify-interval, which is
// reloaded.
func TestLimitsOfEtcdsFlags(t *testing.T) {
	c := newCluster(t)
	c.up("--client-max-txn-ops", "200", "--store-quota", "512KiB")
	c.full()
	cl := c.dial()
	ops := func(n int) (out []clientv3.Op) {
		for i := range n {
			out = append(out, clientv3.OpPut(fmt.Sprint("key", i), ""))
		}
		return out
	}
	if _, err := cl.Txn(testContext(t)).Then(ops(200)...).Commit(); err != nil {
		t.Error(err)
	}
	if _, err := cl.Txn(testContext(t)).Then(ops(201)...).Commit(); err == nil || !strings.Contains(err.Error(), "too many operations") {
		t.Errorf("a transaction with 201 operations: error %v, want \"too many operations\"", err)
	}
	progress := cl.Watch(testContext(t), "nothing", clientv3.WithProgressNotify(), clientv3.WithCreatedNotify())
	<-progress
	c.reconfigure("client {", "client {\n  watch_progress_interval = \"100ms\"\n")
	if code, out, errs := c.reload(); code != 0 || !strings.Contains(out, "client.watch_progress_interval") {
		t.Fatalf("reload: exit code %d\n%s%s", code, out, errs)
	}
	select {
	case w := <-progress:
		if !w.IsProgressNotify() {
			t.Errorf("the watch must only report progress: %+v", w)
		}
	case <-time.After(patience):
		t.Error("the watch reported no progress after the reload")
	}
	for i := range 1000 {
		if _, err := cl.Put(testContext(t), "big", strings.Repeat("x", 100<<10)); err != nil {
			if !strings.Contains(err.Error(), "space exceeded") {
				t.Errorf("put %d: %v", i, err)
			}
			return
		}
	}
	t.Error("100 MiB were written, although the quota is 512 KiB")
}
