package e2e

import (
	"bytes"
	"context"
	"fmt"
	"slices"
	"sort"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

func client(t *testing.T, endpoint, user, password string) *clientv3.Client {
	t.Helper()
	cl, err := clientv3.New(clientv3.Config{
		Endpoints: []string{endpoint}, Username: user, Password: password, DialTimeout: patience, Logger: zap.NewNop(),
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = cl.Close() })
	return cl
}

// must returns the first of two results.
func must[T any](v T, err error) func(testing.TB) T {
	return func(t testing.TB) T {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
		return v
	}
}

// fill writes data of every kind: keys with a history, deleted keys, transactions, leases with
// keys, a revoked lease, a compaction, more history; users, roles and permissions, with
// authentication turned on.
func fill(t *testing.T, cl *clientv3.Client) {
	t.Helper()
	ctx := testContext(t)
	for i := range 60 {
		must(cl.Put(ctx, fmt.Sprintf("k%02d", i%20), fmt.Sprint(i)))(t)
	}
	for _, ttl := range []int64{600, 3600, 7200} {
		lease := must(cl.Grant(ctx, ttl))(t)
		must(cl.Put(ctx, fmt.Sprintf("leased/%d", ttl), "x", clientv3.WithLease(lease.ID)))(t)
		if ttl == 600 {
			must(cl.Revoke(ctx, lease.ID))(t)
		}
	}
	last := must(cl.Delete(ctx, "k00", clientv3.WithRange("k05")))(t)
	must(cl.Compact(ctx, last.Header.Revision-10, clientv3.WithCompactPhysical()))(t)
	for i := range 20 {
		must(cl.Txn(ctx).If(clientv3.Compare(clientv3.Version("k10"), ">", 0)).
			Then(clientv3.OpPut("chosen", fmt.Sprint("t", i)), clientv3.OpDelete(fmt.Sprintf("k%02d", i)), clientv3.OpPut("sub/"+fmt.Sprint(i), "v")).
			Else(clientv3.OpPut("k10", "again")).Commit())(t)
	}
	must(cl.RoleAdd(ctx, "root"))(t)
	must(cl.RoleAdd(ctx, "reader"))(t)
	must(cl.RoleGrantPermission(ctx, "reader", "k", "l", clientv3.PermissionType(authpb.READ)))(t)
	must(cl.UserAdd(ctx, "root", "secret"))(t)
	must(cl.UserAdd(ctx, "anna", "pass"))(t)
	must(cl.UserGrantRole(ctx, "root", "root"))(t)
	must(cl.UserGrantRole(ctx, "anna", "reader"))(t)
	must(cl.AuthEnable(ctx))(t)
}

// fillMore writes as root, after the last commit of etcd.
func fillMore(t *testing.T, root *clientv3.Client) {
	t.Helper()
	ctx := testContext(t)
	lease := must(root.Grant(ctx, 900))(t)
	gone := must(root.Grant(ctx, 901))(t)
	must(root.Put(ctx, "late/gone", "x", clientv3.WithLease(gone.ID)))(t)
	must(root.Revoke(ctx, gone.ID))(t)
	for i := range 20 {
		must(root.Put(ctx, fmt.Sprintf("late/%02d", i), "x", clientv3.WithLease(lease.ID)))(t)
	}
	must(root.Delete(ctx, "late/1", clientv3.WithPrefix()))(t)
	must(root.Txn(ctx).Then(clientv3.OpPut("late/txn", "1"), clientv3.OpDelete("late/00")).Commit())(t)
}

// picture is everything that clients can see of a store, as lines of text that can be compared.
type picture []string

func (p *picture) add(format string, args ...any) { *p = append(*p, fmt.Sprintf(format, args...)) }

// takePicture reads the store as root.
func takePicture(t *testing.T, endpoint string) picture {
	t.Helper()
	cl, ctx := client(t, endpoint, "root", "secret"), testContext(t)
	defer cl.Close()
	var p picture
	now := must(cl.Get(ctx, "", clientv3.WithFromKey()))(t)
	p.add("revision %d, %d keys", now.Header.Revision, now.Count)
	hash := must(cl.HashKV(ctx, endpoint, 0))(t)
	p.add("hash %d at %d, compacted %d", hash.Hash, hash.HashRevision, hash.CompactRevision)
	for rev := int64(1); rev <= now.Header.Revision; rev++ {
		at, err := cl.Get(ctx, "", clientv3.WithFromKey(), clientv3.WithRev(rev))
		if err != nil {
			p.add("at %d: %v", rev, err)
			continue
		}
		for _, kv := range at.Kvs {
			p.add("at %d: %v", rev, kv)
		}
	}
	p.lookAtLeases(t, ctx, cl)
	p.lookAtUsers(t, ctx, cl)
	for _, ev := range eventsFrom(t, cl, hash.CompactRevision+1, now.Header.Revision) {
		p.add("event %s", ev)
	}
	anna := client(t, endpoint, "anna", "pass")
	defer anna.Close()
	must(anna.Get(ctx, "k", clientv3.WithPrefix()))(t)
	_, err := anna.Put(ctx, "k", "v")
	p.add("a put of anna: %v", err)
	return p
}

func (p *picture) lookAtLeases(t *testing.T, ctx context.Context, cl *clientv3.Client) {
	leases := must(cl.Leases(ctx))(t).Leases
	sort.Slice(leases, func(i, j int) bool { return leases[i].ID < leases[j].ID })
	for _, l := range leases {
		ttl := must(cl.TimeToLive(ctx, l.ID, clientv3.WithAttachedKeys()))(t)
		slices.SortFunc(ttl.Keys, bytes.Compare) // etcd returns them in random order
		p.add("lease %x of %d s, %q, alive %v", l.ID, ttl.GrantedTTL, ttl.Keys, ttl.TTL > 0 && ttl.TTL <= ttl.GrantedTTL)
	}
}

func (p *picture) lookAtUsers(t *testing.T, ctx context.Context, cl *clientv3.Client) {
	status := must(cl.AuthStatus(ctx))(t)
	p.add("auth %v, revision %d", status.Enabled, status.AuthRevision)
	for _, u := range must(cl.UserList(ctx))(t).Users {
		p.add("user %s: %q", u, must(cl.UserGet(ctx, u))(t).Roles)
	}
	for _, r := range must(cl.RoleList(ctx))(t).Roles {
		p.add("role %s: %v", r, must(cl.RoleGet(ctx, r))(t).Perm)
	}
}

// eventsFrom returns the events from one revision to another.
func eventsFrom(t *testing.T, cl *clientv3.Client, from, to int64) []string {
	t.Helper()
	ctx, cancel := context.WithCancel(testContext(t))
	defer cancel()
	var events []string
	for resp := range cl.Watch(ctx, "", clientv3.WithFromKey(), clientv3.WithRev(from), clientv3.WithPrevKV()) {
		if err := resp.Err(); err != nil {
			t.Fatal(err)
		}
		for _, ev := range resp.Events {
			events = append(events, fmt.Sprintf("%s %v before %v", ev.Type, ev.Kv, ev.PrevKv))
			if ev.Kv.ModRevision > to {
				t.Fatalf("the watch returned an event after revision %d: %v", to, ev)
			}
		}
		if len(resp.Events) > 0 && resp.Events[len(resp.Events)-1].Kv.ModRevision == to {
			break
		}
	}
	return events
}

// same fails the test if two pictures differ.
func (p picture) same(t *testing.T, want picture) {
	t.Helper()
	if slices.Equal(p, want) {
		return
	}
	for i := range max(len(p), len(want)) {
		var a, b string
		if i < len(p) {
			a = p[i]
		}
		if i < len(want) {
			b = want[i]
		}
		if a != b {
			t.Fatalf("line %d\n got: %s\nwant: %s", i, a, b)
		}
	}
}
