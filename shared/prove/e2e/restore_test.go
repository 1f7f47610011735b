package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynast-io/dynast/shared/replica/restore"
)

// saveSnapshot writes the same file as "etcdctl snapshot save".
func saveSnapshot(t *testing.T, cl *clientv3.Client, path string) {
	t.Helper()
	body := must(cl.Snapshot(testContext(t)))(t)
	defer body.Close()
	raw := must(io.ReadAll(body))(t)
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// restored starts a cluster from a source, and reads its content.
func restored(t *testing.T, source string, args ...string) (*cluster, restore.Result) {
	t.Helper()
	c := newCluster(t)
	out, err := c.command(append([]string{"snapshot", "restore", source, "--config", c.config, "--json"}, args...)...).Output()
	if err != nil {
		t.Fatalf("restore: %v\n%s", err, c.logText())
	}
	var res restore.Result
	if err := json.Unmarshal(out, &res); err != nil {
		t.Fatal(err)
	}
	c.up()
	c.full()
	return c, res
}

// continues checks that the cluster continues where the source ended, also under the next leader.
func (c *cluster) continues(want picture, revision int64) {
	c.t.Helper()
	takePicture(c.t, c.client).same(c.t, want)
	c.signal(leaderOf(c.full()), syscall.SIGKILL)
	c.full()
	takePicture(c.t, c.client).same(c.t, want)
	cl, ctx := client(c.t, c.client, "root", "secret"), testContext(c.t)
	events := cl.Watch(ctx, "next", clientv3.WithRev(revision+1))
	put := must(cl.Put(ctx, "next", "1"))(c.t)
	if put.Header.Revision != revision+1 {
		c.t.Errorf("the next write got revision %d, want %d", put.Header.Revision, revision+1)
	}
	if resp := <-events; resp.Err() != nil || len(resp.Events) != 1 || resp.Events[0].Kv.ModRevision != revision+1 {
		c.t.Errorf("the watch returned %v, error %v", resp.Events, resp.Err())
	}
}

// TestRestore restores a snapshot of etcd, the directory of an etcd that crashed while its last
// writes were only in its log, and a snapshot of another dynast cluster.
func TestRestore(t *testing.T) {
	base := t.TempDir()
	dir, file := filepath.Join(base, "default.etcd"), filepath.Join(base, "snapshot.db")
	stop, address := realEtcd(t, dir)
	fill(t, client(t, address, "", ""))
	root := client(t, address, "root", "secret")
	fillMore(t, root)
	// If etcd were killed now, it would leave these files. Copy them before the test reads from
	// etcd, because a read makes etcd commit.
	crashed := filepath.Join(base, "crashed.etcd")
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	want := takePicture(t, address)
	revision := must(root.Get(testContext(t), "k"))(t).Header.Revision
	saveSnapshot(t, root, file)
	refused := newCluster(t)
	if code, out := refused.run("snapshot", "restore", dir, "--config", refused.config); code != 1 || !strings.Contains(out, "etcdctl snapshot save") || !strings.Contains(out, dir) {
		t.Errorf("restore from a running etcd: exit code %d, want 1\n%s", code, out)
	}
	if _, err := os.Stat(refused.dir); !os.IsNotExist(err) {
		t.Errorf("the refused restore created a data directory: %v", err)
	}
	stop()

	c, res := restored(t, crashed)
	if res.Replayed < 20 || res.Revision != revision || !res.AuthEnabled || res.Users != 2 || res.Roles != 2 || res.Leases != 3 || res.Members != 1 {
		t.Errorf("restored from a crashed etcd: %+v", res)
	}
	t.Logf("restored from a crashed etcd: %+v", res)
	c.continues(want, revision)

	c, res = restored(t, file)
	if res.Replayed != 0 || res.Revision != revision || res.Keys == 0 || res.CompactRevision == 0 {
		t.Errorf("restored from a snapshot: %+v", res)
	}
	takePicture(t, c.client).same(t, want)

	own := filepath.Join(base, "own.db")
	saveSnapshot(t, client(t, c.client, "root", "secret"), own)
	c, _ = restored(t, own)
	c.continues(want, revision)
}

// TestRestoreOfAStoppedEtcd: an etcd that was stopped in order has everything in its database, so
// nothing of its log is replayed.
func TestRestoreOfAStoppedEtcd(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "default.etcd")
	stop, address := realEtcd(t, dir)
	fill(t, client(t, address, "", ""))
	want := takePicture(t, address)
	revision := must(client(t, address, "root", "secret").Get(testContext(t), "k"))(t).Header.Revision
	stop()
	c, res := restored(t, dir)
	if res.Replayed != 0 || res.Revision != revision {
		t.Errorf("restored from a stopped etcd: %+v", res)
	}
	takePicture(t, c.client).same(t, want)
}

// TestRestoreOfAMember: the directory of any one member is enough to restore a cluster.
func TestRestoreOfAMember(t *testing.T) {
	base := t.TempDir()
	var members []etcdConfig
	cluster := ""
	for i := range 3 {
		m := etcdConfig{
			Name: fmt.Sprint("m", i), Dir: filepath.Join(base, fmt.Sprint(i)),
			Client: fmt.Sprintf("http://127.0.0.1:%d", freePort(t)), Peer: fmt.Sprintf("http://127.0.0.1:%d", freePort(t)),
		}
		members = append(members, m)
		cluster += fmt.Sprintf(",%s=%s", m.Name, m.Peer)
	}
	var ready []func() string
	for _, m := range members {
		m.Cluster = cluster[1:]
		_, r := spawnEtcd(t, m)
		ready = append(ready, r)
	}
	var clients []*clientv3.Client
	for _, r := range ready {
		clients = append(clients, client(t, r(), "", ""))
	}
	for i := range 30 {
		must(clients[i%3].Put(testContext(t), fmt.Sprintf("k%03d", i), "v"))(t)
	}
	for i, cl := range clients {
		// After a linearizable read, this member has everything.
		all := must(cl.Get(testContext(t), "k", clientv3.WithPrefix()))(t)
		if all.Count != 30 {
			t.Fatalf("want 30 keys: %v", all)
		}
		crashed := filepath.Join(base, fmt.Sprint("copy", i))
		if err := os.CopyFS(crashed, os.DirFS(filepath.Join(base, fmt.Sprint(i)))); err != nil {
			t.Fatal(err)
		}
		res, err := restore.Restore(t.Context(), restore.Options{
			Source: crashed, DataDir: filepath.Join(base, fmt.Sprint("data", i)), Client: "127.0.0.1:2379", Member: "127.0.0.1:7400",
		})
		if err != nil || res.Keys != 30 || res.Members != 3 || res.Revision != all.Header.Revision {
			t.Errorf("restored from member %d: %+v, error %v", i, res, err)
		}
	}
}
