package e2e

import (
	"encoding/json"
	"fmt"
	"io"
	"net/url"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/server/v3/embed"

	"github.com/dynast-io/dynast/shared/restore"
)

// saveSnapshot writes what "etcdctl snapshot save" does.
func saveSnapshot(t *testing.T, cl *clientv3.Client, path string) {
	t.Helper()
	body := must(cl.Snapshot(testContext(t)))(t)
	defer body.Close()
	raw := must(io.ReadAll(body))(t)
	if err := os.WriteFile(path, raw, 0o600); err != nil {
		t.Fatal(err)
	}
}

// restored starts a cluster from a source, and looks at it.
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

// goesOn wants the cluster to go on where the source ended, also under the next leader.
func (c *cluster) goesOn(want picture, revision int64) {
	c.t.Helper()
	takePicture(c.t, c.client).same(c.t, want)
	c.signal(leaderOf(c.full()), syscall.SIGKILL)
	c.full()
	takePicture(c.t, c.client).same(c.t, want)
	cl, ctx := client(c.t, c.client, "root", "secret"), testContext(c.t)
	events := cl.Watch(ctx, "next", clientv3.WithRev(revision+1))
	put := must(cl.Put(ctx, "next", "1"))(c.t)
	if put.Header.Revision != revision+1 {
		c.t.Errorf("the next write is at %d, want %d", put.Header.Revision, revision+1)
	}
	if resp := <-events; resp.Err() != nil || len(resp.Events) != 1 || resp.Events[0].Kv.ModRevision != revision+1 {
		c.t.Errorf("watched %v %v", resp.Events, resp.Err())
	}
}

// Moving in from etcd: by a snapshot of it, and by the directory of one that
// crashed when its last writes were in its log only. And from a cluster of dynast
// to another.
func TestRestore(t *testing.T) {
	base := t.TempDir()
	dir, file := filepath.Join(base, "default.etcd"), filepath.Join(base, "snapshot.db")
	stop, address := realEtcd(t, dir)
	fill(t, client(t, address, "", ""))
	root := client(t, address, "root", "secret")
	fillMore(t, root)
	// An etcd that was killed now would leave these files. (To look at it makes
	// it commit.)
	crashed := filepath.Join(base, "crashed.etcd")
	if err := os.CopyFS(crashed, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	want := takePicture(t, address)
	revision := must(root.Get(testContext(t), "k"))(t).Header.Revision
	saveSnapshot(t, root, file)
	refused := newCluster(t)
	if code, out := refused.run("snapshot", "restore", dir, "--config", refused.config); code != 1 || !strings.Contains(out, "etcdctl snapshot save") || !strings.Contains(out, dir) {
		t.Errorf("of an etcd that runs: exit code %d\n%s", code, out)
	}
	if _, err := os.Stat(refused.dir); !os.IsNotExist(err) {
		t.Errorf("a refusal left a data directory: %v", err)
	}
	stop()

	c, res := restored(t, crashed)
	if res.Replayed < 20 || res.Revision != revision || !res.AuthEnabled || res.Users != 2 || res.Roles != 2 || res.Leases != 3 || res.Members != 1 {
		t.Errorf("of a crashed etcd: %+v", res)
	}
	t.Logf("of a crashed etcd: %+v", res)
	c.goesOn(want, revision)

	c, res = restored(t, file)
	if res.Replayed != 0 || res.Revision != revision || res.Keys == 0 || res.CompactRevision == 0 {
		t.Errorf("of a snapshot: %+v", res)
	}
	takePicture(t, c.client).same(t, want)

	own := filepath.Join(base, "own.db")
	saveSnapshot(t, client(t, c.client, "root", "secret"), own)
	c, _ = restored(t, own)
	c.goesOn(want, revision)
}

// The directory of an etcd that was stopped in order has everything in its
// database, and a log that goes with it.
func TestRestoreOfAStoppedEtcd(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "default.etcd")
	stop, address := realEtcd(t, dir)
	fill(t, client(t, address, "", ""))
	want := takePicture(t, address)
	revision := must(client(t, address, "root", "secret").Get(testContext(t), "k"))(t).Header.Revision
	stop()
	c, res := restored(t, dir)
	if res.Replayed != 0 || res.Revision != revision {
		t.Errorf("%+v", res)
	}
	takePicture(t, c.client).same(t, want)
}

// One member's directory is enough of a cluster, whoever led it.
func TestRestoreOfAMember(t *testing.T) {
	base := t.TempDir()
	var peers []url.URL
	cluster := ""
	for i := range 3 {
		peers = append(peers, url.URL{Scheme: "http", Host: fmt.Sprintf("127.0.0.1:%d", freePort(t))})
		cluster += fmt.Sprintf("m%d=%s,", i, &peers[i])
	}
	var members []*embed.Etcd
	for i, peer := range peers {
		c := embed.NewConfig()
		c.Name, c.Dir = fmt.Sprint("m", i), filepath.Join(base, fmt.Sprint(i))
		c.LogLevel, c.LogOutputs = "error", []string{"/dev/null"}
		c.ListenPeerUrls, c.AdvertisePeerUrls = []url.URL{peer}, []url.URL{peer}
		c.ListenClientUrls = []url.URL{{Scheme: "http", Host: "127.0.0.1:0"}}
		c.InitialCluster = cluster[:len(cluster)-1]
		e, err := embed.StartEtcd(c)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		members = append(members, e)
	}
	for _, e := range members {
		select {
		case <-e.Server.ReadyNotify():
		case <-time.After(patience):
			t.Fatal("etcd is not ready")
		}
	}
	for i := range 30 {
		if _, err := members[i%3].Server.Put(t.Context(), &pb.PutRequest{Key: fmt.Appendf(nil, "k%03d", i), Value: []byte("v")}); err != nil {
			t.Fatal(err)
		}
	}
	for i, e := range members {
		// A linearizable read: this member has all.
		all, err := e.Server.Range(t.Context(), &pb.RangeRequest{Key: []byte("k"), RangeEnd: []byte("l")})
		if err != nil || all.Count != 30 {
			t.Fatal(all, err)
		}
		crashed := filepath.Join(base, fmt.Sprint("copy", i))
		if err := os.CopyFS(crashed, os.DirFS(filepath.Join(base, fmt.Sprint(i)))); err != nil {
			t.Fatal(err)
		}
		res, err := restore.Restore(t.Context(), restore.Options{
			Source: crashed, DataDir: filepath.Join(base, fmt.Sprint("data", i)), Client: "127.0.0.1:2379", Member: "127.0.0.1:7400",
		})
		if err != nil || res.Keys != 30 || res.Members != 3 || res.Revision != all.Header.Revision {
			t.Errorf("member %d: %+v %v", i, res, err)
		}
	}
}
