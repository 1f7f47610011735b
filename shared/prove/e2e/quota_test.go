package e2e

import (
	"errors"
	"fmt"
	"net/http"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// TestQuotaAcrossTakeovers: a store at its quota also refuses writes under the next leader. When
// keys are deleted and compacted, the store accepts writes again under any leader, without an
// operator.
func TestQuotaAcrossTakeovers(t *testing.T) {
	c := start(t, withExtra(`store { quota = "1MiB" }`))
	cl, ctx := c.dial(), testContext(t)
	value := strings.Repeat("x", 16<<10)
	put := func() error {
		_, err := cl.Put(ctx, "one more", value)
		return err
	}
	keys := 0
	var last *clientv3.PutResponse
	for {
		resp, err := cl.Put(ctx, fmt.Sprintf("k%04d", keys), value)
		if errors.Is(err, rpctypes.ErrNoSpace) {
			break
		}
		if err != nil || keys > 200 {
			t.Fatalf("put %d: %v", keys, err)
		}
		last = resp
		keys++
	}
	alarms := func() int { return len(must(cl.AlarmList(ctx))(t).Alarms) }
	c.nextLeader()
	var err error
	eventually(t, "the next leader answers", func() bool { err = put(); return !unavailable(err) })
	if !errors.Is(err, rpctypes.ErrNoSpace) || alarms() != 1 {
		t.Errorf("a write under the next leader: error %v and %d alarms, want etcd's error for no space and 1 alarm", err, alarms())
	}
	if n := must(cl.Get(ctx, "k", clientv3.WithPrefix(), clientv3.WithCountOnly()))(t).Count; n != int64(keys) {
		t.Errorf("%d of %d keys are there", n, keys)
	}
	// Deleting the keys is not enough, because the history still has them.
	must(cl.Delete(ctx, "k", clientv3.WithPrefix()))(t)
	must(cl.Compact(ctx, last.Header.Revision+1))(t)
	c.signal(leaderOf(c.full()), syscall.SIGKILL)
	eventually(t, "writes are accepted again", func() bool {
		err := put()
		if err != nil && !errors.Is(err, rpctypes.ErrNoSpace) && !errors.Is(err, rpctypes.ErrTimeout) && !unavailable(err) {
			t.Fatal(err)
		}
		return err == nil
	})
	if alarms() != 0 {
		t.Errorf("%d alarms are left, want none", alarms())
	}
	if code, text, err := ask(ctx, &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}, "GET", "http://"+c.client+"/health", ""); err != nil || code != 200 {
		t.Errorf("/health: status %d, want 200: %s, %v", code, text, err)
	}
	c.full()
}
