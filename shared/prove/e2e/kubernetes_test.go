package e2e

import (
	"context"
	"errors"
	"fmt"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
)

const registry = "/registry/pods/"

func kubernetesClient(cl *clientv3.Client) kubernetes.Interface {
	return kubernetes.Client{Client: cl}
}

// fillRegistry creates n objects with one lease, and returns the revision after the last one.
func fillRegistry(t *testing.T, cl *clientv3.Client, n int, lease clientv3.LeaseID) int64 {
	t.Helper()
	rev := int64(0)
	for i := range n {
		key := fmt.Sprintf("%s%02d", registry, i)
		put, err := kubernetesClient(cl).OptimisticPut(testContext(t), key, []byte("0"), 0, kubernetes.PutOptions{LeaseID: lease})
		if err != nil || !put.Succeeded {
			t.Fatalf("create %s: %+v %v", key, put, err)
		}
		rev = put.Revision
	}
	return rev
}

// TestKubernetesAcrossTakeovers sends the requests that kube-apiserver sends to its store: lists
// in pages at one revision, writes that compare revisions, compacted revisions, progress of
// watches, and many objects with one lease. In the middle of each, the leader changes.
func TestKubernetesAcrossTakeovers(t *testing.T) {
	c := start(t)
	cl := c.dial()
	lease, err := cl.Grant(testContext(t), 600)
	if err != nil {
		t.Fatal(err)
	}
	rev := fillRegistry(t, cl, 20, lease.ID)
	t.Run("pages", func(t *testing.T) { listInPages(t, c, cl, rev) })
	t.Run("compare", func(t *testing.T) { compareRevisions(t, c, cl) })
	t.Run("progress", func(t *testing.T) { askForProgress(t, c, cl) })
	t.Run("compacted", func(t *testing.T) { readCompacted(t, c, cl, rev) })
	t.Run("lease", func(t *testing.T) {
		c.takeover()
		keys, err := cl.TimeToLive(testContext(t), lease.ID, clientv3.WithAttachedKeys())
		if err != nil || len(keys.Keys) != 19 { // one object was updated without the lease
			t.Fatalf("%d keys have the lease, want 19: %v", len(keys.Keys), err)
		}
		if _, err := cl.Revoke(testContext(t), lease.ID); err != nil {
			t.Fatal(err)
		}
		left, err := kubernetesClient(cl).Count(testContext(t), registry, kubernetes.CountOptions{})
		if err != nil || left != 1 {
			t.Errorf("%d objects are left after their lease was revoked, want 1: %v", left, err)
		}
	})
}

// listInPages reads the second page under another leader, at the revision of the first page. It
// must not contain an object that was created in between.
func listInPages(t *testing.T, c *cluster, cl *clientv3.Client, rev int64) {
	k := kubernetesClient(cl)
	first, err := k.List(testContext(t), registry, kubernetes.ListOptions{Limit: 7})
	if err != nil || first.Revision != rev || first.Count != 20 || len(first.Kvs) != 7 {
		t.Fatalf("first page %+v, %v, want 7 of 20 at revision %d", first, err, rev)
	}
	if _, err := cl.Put(testContext(t), registry+"99", "late"); err != nil {
		t.Fatal(err)
	}
	c.takeover()
	rest, err := k.List(testContext(t), registry, kubernetes.ListOptions{Revision: rev, Continue: string(first.Kvs[6].Key) + "\x00"})
	if err != nil {
		t.Fatal(err)
	}
	if len(rest.Kvs) != 13 || string(rest.Kvs[0].Key) != registry+"07" || string(rest.Kvs[12].Key) != registry+"19" {
		t.Errorf("the second page has %d objects, want 13: %v", len(rest.Kvs), rest.Kvs)
	}
	if _, err := cl.Delete(testContext(t), registry+"99"); err != nil {
		t.Fatal(err)
	}
}

// compareRevisions updates an object that was read from the previous leader.
func compareRevisions(t *testing.T, c *cluster, cl *clientv3.Client) {
	k := kubernetesClient(cl)
	key := registry + "00"
	got, err := k.Get(testContext(t), key, kubernetes.GetOptions{})
	if err != nil || got.KV == nil {
		t.Fatalf("get %s: %+v, %v", key, got, err)
	}
	read := got.KV.ModRevision
	c.takeover()
	put, err := k.OptimisticPut(testContext(t), key, []byte("1"), read, kubernetes.PutOptions{})
	if err != nil || !put.Succeeded {
		t.Fatalf("an update that compares with the current revision must succeed: %+v, %v", put, err)
	}
	again, err := k.OptimisticPut(testContext(t), key, []byte("2"), read, kubernetes.PutOptions{GetOnFailure: true})
	if err != nil || again.Succeeded || again.KV == nil || again.KV.ModRevision != put.Revision {
		t.Errorf("an update that compares with an old revision must return the current object: %+v, %v", again, err)
	}
	gone, err := k.OptimisticDelete(testContext(t), key, read, kubernetes.DeleteOptions{GetOnFailure: true})
	if err != nil || gone.Succeeded || gone.KV == nil || string(gone.KV.Value) != "1" {
		t.Errorf("a delete that compares with an old revision must return the current object: %+v, %v", gone, err)
	}
}

// askForProgress checks that a watch on keys without writes learns the latest revision, from the
// next leader too.
func askForProgress(t *testing.T, c *cluster, cl *clientv3.Client) {
	ctx, cancel := context.WithCancel(clientv3.WithRequireLeader(testContext(t)))
	defer cancel()
	watch := cl.Watch(ctx, "/registry/quiet/", clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	<-watch
	for range 2 {
		put, err := cl.Put(ctx, "/registry/busy", "")
		if err != nil {
			t.Fatal(err)
		}
		eventually(t, "the watch reports its progress", func() bool {
			// A request on a stream that just broke gets no answer.
			if err := cl.RequestProgress(ctx); err != nil {
				t.Fatal(err)
			}
			select {
			case w := <-watch:
				return w.IsProgressNotify() && w.Header.Revision >= put.Header.Revision
			case <-time.After(patience / 20):
				return false
			}
		})
		c.takeover()
	}
}

// readCompacted checks that reads and watches of old revisions get etcd's error, and that the
// newest values stay.
func readCompacted(t *testing.T, c *cluster, cl *clientv3.Client, rev int64) {
	if _, err := cl.Compact(testContext(t), rev+1); err != nil {
		t.Fatal(err)
	}
	c.takeover()
	_, err := kubernetesClient(cl).List(testContext(t), registry, kubernetes.ListOptions{Revision: rev})
	if !errors.Is(err, rpctypes.ErrCompacted) {
		t.Errorf("a list before the compacted revision: error %v, want etcd's error", err)
	}
	w := <-cl.Watch(testContext(t), registry, clientv3.WithPrefix(), clientv3.WithRev(rev))
	if !errors.Is(w.Err(), rpctypes.ErrCompacted) || w.CompactRevision != rev+1 {
		t.Errorf("a watch before the compacted revision: error %v, compacted revision %d", w.Err(), w.CompactRevision)
	}
	now, err := kubernetesClient(cl).List(testContext(t), registry, kubernetes.ListOptions{})
	if err != nil || now.Count != 20 {
		t.Errorf("%d objects are left after the compaction, want 20: %v", now.Count, err)
	}
}
