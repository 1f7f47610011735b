package e2e

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/health/grpc_health_v1"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/replica/store"
)

// order runs a command that must succeed on the cluster, and returns its output.
func (c *cluster) order(args ...string) string {
	c.t.Helper()
	code, out := c.run(append(args, "--config", c.config)...)
	if code != 0 {
		c.t.Fatalf("dynast %s: exit code %d\n%s", strings.Join(args, " "), code, out)
	}
	return out
}

// load is a set of clients that write, read and watch, and count failed requests.
type load struct {
	t            *testing.T
	puts, failed atomic.Int64
	firstFailure atomic.Value
	cancel       context.CancelFunc
	wg           sync.WaitGroup
	acked        sync.Map // key -> value
	longest      atomic.Int64
}

// startLoad starts clients, each with its own connection.
func (c *cluster) startLoad(writers int) *load {
	ctx, cancel := context.WithCancel(context.Background())
	l := &load{t: c.t, cancel: cancel}
	for w := range writers {
		cl := c.dial()
		l.wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key, value := fmt.Sprintf("load/%d", w), fmt.Sprint(i)
				began := time.Now()
				_, err := cl.Put(ctx, key, value)
				if err == nil {
					var got *clientv3.GetResponse
					if got, err = cl.Get(ctx, key); err == nil && (len(got.Kvs) != 1 || string(got.Kvs[0].Value) != value) {
						err = fmt.Errorf("read %v after %s", got.Kvs, value)
					}
				}
				if err != nil {
					if ctx.Err() == nil {
						l.failed.Add(1)
						l.firstFailure.CompareAndSwap(nil, err)
					}
					continue
				}
				l.longest.Store(max(l.longest.Load(), int64(time.Since(began))))
				l.acked.Store(key, value)
				l.puts.Add(1)
			}
		})
	}
	eventually(c.t, "the clients write", func() bool { return l.puts.Load() > int64(10*writers) })
	return l
}

// end stops the clients and reports every failed request.
func (l *load) end() {
	l.t.Helper()
	before := l.puts.Load()
	eventually(l.t, "the clients go on", func() bool { return l.puts.Load() > before+100 })
	l.cancel()
	l.wg.Wait()
	l.t.Logf("%d pairs of a write and a read, the longest pair took %s", l.puts.Load(), time.Duration(l.longest.Load()).Round(time.Millisecond))
	if n := l.failed.Load(); n > 0 {
		l.t.Errorf("%d requests failed, the first one: %v", n, l.firstFailure.Load())
	}
}

// TestHandoverWithoutAFailedRequest hands over while clients write, read and watch: by commands
// to the heir and to a named follower, by MoveLeader, and by removing the leader.
func TestHandoverWithoutAFailedRequest(t *testing.T) {
	c := start(t)
	l := c.startLoad(8)
	watcher := c.dial()
	var events atomic.Int64
	last := map[string]int64{}
	go func() {
		for resp := range watcher.Watch(clientv3.WithRequireLeader(testContext(t)), "load/", clientv3.WithPrefix()) {
			if err := resp.Err(); err != nil {
				l.firstFailure.CompareAndSwap(nil, err)
				l.failed.Add(1)
				return
			}
			for _, e := range resp.Events {
				if v := last[string(e.Kv.Key)] + 1; e.Kv.Version != v && v != 1 {
					t.Errorf("watch of %s: version %d came after version %d", e.Kv.Key, e.Kv.Version, v-1)
				}
				last[string(e.Kv.Key)] = e.Kv.Version
				events.Add(1)
			}
		}
	}()
	for round := range rounds(2) {
		for _, how := range []string{"heir", "named", "client", "remove"} {
			before := c.full()
			followers := followersOf(before)
			to := before.Heir
			switch how {
			case "heir":
				if out := c.order("promote"); !strings.Contains(out, to+" leads") {
					t.Errorf("promote printed %q, the heir was %s", out, to)
				}
			case "named":
				to = followers[len(followers)-1].Address
				if out := c.order("promote", to); !strings.HasPrefix(out, to+" leads") {
					t.Errorf("promote %s printed %q", to, out)
				}
			case "client":
				cl := c.dial()
				if _, err := cl.MoveLeader(testContext(t), memberID(t, cl, to)); err != nil {
					t.Error(err)
				}
			case "remove":
				cl := c.dial()
				if _, err := cl.MemberRemove(testContext(t), memberID(t, cl, before.Leader)); err != nil {
					t.Error(err)
				}
			}
			after := c.wait(how+": another member leads", func(now *tree.Tree) bool { return now.Epoch > before.Epoch })
			if after.Leader != to || after.Epoch != before.Epoch+1 {
				t.Errorf("round %d, %s: %s leads in epoch %d, want %s in %d", round, how, after.Leader, after.Epoch, to, before.Epoch+1)
			}
			if m, ok := find(after, before.Leader); ok && m.PID == leaderOf(before).PID {
				t.Errorf("the old leader is still a member: %+v", m)
			}
			for _, f := range followers { // the new leader must adopt the followers and not start them again
				if m, ok := find(after, f.Address); !ok || m.PID != f.PID {
					t.Errorf("follower %s was restarted: %+v", f.Address, m)
				}
			}
		}
	}
	c.full()
	l.end()
	if events.Load() == 0 {
		t.Error("the watch saw no event")
	}
}

func memberID(t *testing.T, cl *clientv3.Client, address string) uint64 {
	t.Helper()
	list, err := cl.MemberList(testContext(t))
	if err != nil {
		t.Fatal(err)
	}
	for _, m := range list.Members {
		if m.Name == address {
			return m.ID
		}
	}
	t.Fatalf("the member list does not contain %s: %v", address, list.Members)
	return 0
}

// TestHandoverDoesNotWaitForClientsThatHang has a client that reads nothing, and connections that
// send nothing.
func TestHandoverDoesNotWaitForClientsThatHang(t *testing.T) {
	c := start(t)
	for _, said := range []string{"", "PR", "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", "POST /v3/kv/put HTTP/1.1\r\nHo"} {
		silent, err := net.Dial("tcp", c.client)
		if err != nil {
			t.Fatal(err)
		}
		defer silent.Close()
		if _, err := io.WriteString(silent, said); err != nil {
			t.Fatal(err)
		}
	}
	conn, err := grpc.NewClient("passthrough:///"+c.client, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	// A stream that the client never ends.
	if _, err := grpc_health_v1.NewHealthClient(conn).Watch(testContext(t), &grpc_health_v1.HealthCheckRequest{}); err != nil {
		t.Fatal(err)
	}
	l := c.startLoad(2)
	before := c.tree()
	c.order("promote")
	c.wait("another member leads", func(now *tree.Tree) bool { return now.Epoch > before.Epoch })
	l.end()
}

// decoded runs a command that prints JSON.
func decoded[T any](c *cluster, args ...string) (v T) {
	c.t.Helper()
	out := c.order(append(args, "--json")...)
	if err := json.Unmarshal([]byte(out), &v); err != nil {
		c.t.Fatalf("%v: %v in %s", args, err, out)
	}
	return v
}

// TestScaleAndRemove: the requested number of followers also holds under later leaders. On the way, it
// kills members by command, and looks at the status.
func TestScaleAndRemove(t *testing.T) {
	c := start(t)
	if out := c.order("add"); !strings.Contains(out, "followers: 2 -> 3") {
		t.Errorf("add printed %q", out)
	}
	before := c.full(3)
	if out := c.order("kill", "leader"); !strings.HasPrefix(out, fmt.Sprintf("killed the leader %s (pid %d); ", before.Leader, leaderOf(before).PID)) {
		t.Errorf("kill leader printed %q", out)
	}
	after := c.full(3)
	if out := c.order("status", "--check"); !strings.HasPrefix(out, "healthy: epoch 2, 3 of 3 followers, clients at ") {
		t.Errorf("status --check printed %q", out)
	}
	if after.Leader == before.Leader || after.Followers != 3 {
		t.Errorf("after the death of the leader: leader %s, %d requested followers; want another leader and 3", after.Leader, after.Followers)
	}
	gone := followersOf(after)[0]
	if out := c.order("remove", gone.Address); !strings.Contains(out, gone.Address) || !strings.Contains(out, "is gone") {
		t.Errorf("remove printed %q", out)
	}
	now := c.full(3)
	if m, ok := find(now, gone.Address); ok && m.PID == gone.PID {
		t.Errorf("the removed follower is still a member: %+v", m)
	}
	for _, d := range now.Deaths {
		if d.PID == gone.PID {
			t.Errorf("the removed follower is listed as a death: %+v", d)
		}
	}
	type killed struct {
		Schema, PID           int
		Address, Role, Leader string
	}
	heir, _ := find(now, now.Heir)
	if k := decoded[killed](c, "kill", "heir"); k != (killed{1, heir.PID, heir.Address, "follower", now.Leader}) {
		t.Errorf("kill heir printed %+v", k)
	}
	type scaled struct{ Schema, Before, Followers int }
	if s := decoded[scaled](c, "scale", "1"); s != (scaled{1, 3, 1}) {
		t.Errorf("scale printed %+v", s)
	}
	c.wait("one follower is left", func(t *tree.Tree) bool { return len(t.Members) == 2 && count(t, "in_sync") == 1 })
	type promoted struct {
		Schema                    int
		Before, Leader, Successor string
		Epoch                     uint64
	}
	now = c.tree()
	if p := decoded[promoted](c, "promote"); p != (promoted{1, now.Leader, now.Heir, now.Heir, now.Epoch + 1}) {
		t.Errorf("promote printed %+v, the tree was %+v", p, now)
	}
	c.full(1)
	for _, args := range [][]string{{"kill", "127.0.0.1:1"}, {"kill", "leader", "heir"}, {"scale", "33"}, {"scale", "-1"}, {"scale", "x"}, {"remove", "127.0.0.1:1"}, {"remove", "x"}, {"promote", "127.0.0.1:1"}} {
		if code, out := c.run(append(args, "--config", c.config)...); code == 0 || !strings.Contains(out, "dynast: ") {
			t.Errorf("%v: exit code %d, want an error: %q", args, code, out)
		}
	}
	c.order("scale", "0")
	c.wait("only the leader is left", func(t *tree.Tree) bool { return len(t.Members) == 1 })
	if code, out := c.run("promote", "--config", c.config); code != 1 || !strings.Contains(out, "nobody to hand over to") {
		t.Errorf("promote without followers: exit code %d, want 1: %q", code, out)
	}
	type stopped struct {
		Schema, Processes int
		Killed            bool
	}
	if s := decoded[stopped](c, "stop"); s != (stopped{1, 1, false}) {
		t.Errorf("stop printed %+v", s)
	}
	if code, out := c.run("status", "--check", "--config", c.config); code != 4 || !strings.Contains(out, "'dynast up' starts it") {
		t.Errorf("status of a stopped cluster: exit code %d, want 4: %q", code, out)
	}
}

// TestDefragmentationUnderLoad: every member's file shrinks under load, and no request fails.
func TestDefragmentationUnderLoad(t *testing.T) {
	c := start(t)
	cl := c.dial()
	value := strings.Repeat("x", 100<<10)
	var last int64
	for i := range 100 {
		resp, err := cl.Put(testContext(t), "big", fmt.Sprint(i, value))
		if err != nil {
			t.Fatal(err)
		}
		last = resp.Header.Revision
	}
	if _, err := cl.Compact(testContext(t), last, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	eventually(t, "the data is in the files of all members", func() bool { return smallest(c) > 4<<20 })
	before := c.full()
	l := c.startLoad(4)
	if _, err := cl.Defragment(testContext(t), c.client); err != nil {
		t.Fatal(err)
	}
	after := c.wait("another member leads", func(now *tree.Tree) bool { return now.Epoch > before.Epoch })
	if after.Epoch != before.Epoch+1 {
		t.Errorf("the epoch is %d, the epoch before was %d", after.Epoch, before.Epoch)
	}
	eventually(t, "all files are small", func() bool { return largest(c) < 4<<20 })
	c.full()
	l.end()
}

func smallest(c *cluster) int64 { s := sizes(c); return min(s[0], s[1], s[2]) }
func largest(c *cluster) int64  { s := sizes(c); return max(s[0], s[1], s[2]) }

func sizes(c *cluster) (s [3]int64) {
	dir, err := datadir.OpenForReading(c.dir)
	if err != nil {
		c.t.Fatal(err)
	}
	for i := range s {
		if st, err := os.Stat(store.Path(dir.Slot(i + 1).DBDir())); err == nil {
			s[i] = st.Size()
		}
	}
	return s
}

// corruptKey changes a value in the database of a slot that no process has open. It returns false
// if all values are only in the log.
func corruptKey(t *testing.T, c *cluster, slot int) (done bool) {
	t.Helper()
	dir, err := datadir.OpenForReading(c.dir)
	if err != nil {
		t.Fatal(err)
	}
	db, err := bolt.Open(store.Path(dir.Slot(slot).DBDir()), 0o600, &bolt.Options{Timeout: 5 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	err = db.Update(func(tx *bolt.Tx) error {
		b := tx.Bucket([]byte("key"))
		k, v := b.Cursor().First()
		if done = k != nil; !done {
			return nil
		}
		v = append([]byte{}, v...)
		v[len(v)-1] ^= 1
		return b.Put(k, v)
	})
	if err = errors.Join(err, db.Close()); err != nil {
		t.Fatal(err)
	}
	return done
}

// TestReplicaThatDiffersIsRebuilt changes a follower's copy, and then the leader's own.
func TestReplicaThatDiffersIsRebuilt(t *testing.T) {
	c := start(t, withExtra("store {\n compare_interval = \"100ms\"\n commit_interval = \"10ms\"\n}"))
	cl := c.dial()
	for i := range 20 {
		if _, err := cl.Put(testContext(t), fmt.Sprint("k", i), "right"); err != nil {
			t.Fatal(err)
		}
	}
	whole := func() {
		t.Helper()
		got, err := cl.Get(testContext(t), "k", clientv3.WithPrefix())
		if err != nil || len(got.Kvs) != 20 {
			t.Fatalf("get: want 20 keys: %v, %v", got, err)
		}
		for _, kv := range got.Kvs {
			if string(kv.Value) != "right" {
				t.Errorf("a client sees the changed value: %s=%s", kv.Key, kv.Value)
			}
		}
	}
	for _, who := range []string{"follower", "leader"} {
		before := c.full()
		bad := leaderOf(before)
		if who == "follower" {
			bad = followersOf(before)[0]
		}
		// All processes are stopped, so that none has the file open. Later a process opens the
		// changed copy.
		eventually(t, "the database file has a value that can be changed", func() bool {
			c.order("stop")
			if corruptKey(t, c, bad.Slot) {
				return true
			}
			c.up()
			c.full()
			return false
		})
		c.up()
		if who == "leader" {
			eventually(t, "the leader with the changed copy hands over", func() bool {
				now := c.tree()
				return now != nil && now.Epoch > before.Epoch+1 && count(now, "in_sync") == 2
			})
		} else {
			c.wait("the follower with the changed copy is replaced", func(now *tree.Tree) bool {
				return count(now, "in_sync") == 2 && len(now.Deaths) > 0 && strings.Contains(now.Deaths[0].Reason, "keys differ")
			})
			// A new follower uses its slot.
			c.order("add")
			c.full(3)
			if !strings.Contains(c.logText(), "is condemned, fetching a new one") {
				t.Error("the condemned copy was used again")
			}
			c.order("scale", "2")
		}
		now := c.full()
		whole()
		found := false
		for _, d := range now.Deaths {
			found = found || strings.Contains(d.Reason, "keys differ") || strings.Contains(d.Reason, "handing over")
		}
		if !found {
			t.Errorf("%s: no death gives the difference as its reason: %+v", who, now.Deaths)
		}
		if !strings.Contains(c.logText(), "a replica holds wrong keys") {
			t.Errorf("%s: the log does not report that a replica holds wrong keys", who)
		}
	}
	// Without writes, the copies are equal.
	final := c.full()
	c.order("stop")
	want := ""
	for _, m := range final.Members {
		s, err := store.Open(store.Config{Dir: slotOf(c, m.Slot).DBDir()})
		if err != nil {
			t.Fatal(err)
		}
		h, err := s.Digest(t.Context(), 0)
		if got := fmt.Sprint(h); err != nil || want != "" && got != want {
			t.Errorf("slot %d has the digest %s (error %v), want %s", m.Slot, got, err, want)
		} else {
			want = got
		}
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func slotOf(c *cluster, n int) datadir.Slot {
	dir, err := datadir.OpenForReading(c.dir)
	if err != nil {
		c.t.Fatal(err)
	}
	return dir.Slot(n)
}

// TestClusterAPI checks the calls of etcd's Cluster API.
func TestClusterAPI(t *testing.T) {
	c := start(t)
	cl := c.dial()
	before := c.full()
	f := followersOf(before)[1]
	resp, err := cl.MemberRemove(testContext(t), memberID(t, cl, f.Address))
	if err != nil || len(resp.Members) != 2 {
		t.Fatalf("remove a member: %v, %v", resp, err)
	}
	c.wait("the removed member is gone and replaced", func(now *tree.Tree) bool {
		m, ok := find(now, f.Address)
		return (!ok || m.PID != f.PID) && count(now, "in_sync") == 2
	})
	if _, err := cl.MemberRemove(testContext(t), 12345); !errors.Is(err, rpctypes.ErrMemberNotFound) {
		t.Errorf("remove an unknown member: error %v", err)
	}
	if _, err := cl.MoveLeader(testContext(t), 12345); !errors.Is(err, rpctypes.ErrBadLeaderTransferee) {
		t.Errorf("move the leadership to an unknown member: error %v", err)
	}
	now := c.tree()
	if _, err := cl.MoveLeader(testContext(t), memberID(t, cl, now.Leader)); err != nil {
		t.Errorf("move the leadership to the leader itself: %v", err)
	}
	if after := c.tree(); after.Epoch != now.Epoch {
		t.Errorf("the epoch is %d, the epoch before was %d", after.Epoch, now.Epoch)
	}
}

// TestHandoverAnswersAcceptedRequests: during a hand-over, the old leader still answers a slow
// request over HTTP, and renewals of leases, each on its own stream.
func TestHandoverAnswersAcceptedRequests(t *testing.T) {
	c := start(t)
	cl := c.dial()
	lease, err := cl.Grant(testContext(t), 60)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(testContext(t))
	renewed := make(chan error, 1)
	go func() {
		var err error
		for err == nil && ctx.Err() == nil {
			_, err = cl.KeepAliveOnce(ctx, lease.ID)
		}
		if ctx.Err() != nil {
			err = nil
		}
		renewed <- err
	}()
	slow, err := net.Dial("tcp", c.client)
	if err != nil {
		t.Fatal(err)
	}
	defer slow.Close()
	const body = `{"key":"c2xvdw==","value":"c2xvdw=="}`
	if _, err := fmt.Fprintf(slow, "POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: %d\r\n\r\n%s", len(body), body[:10]); err != nil {
		t.Fatal(err)
	}
	before := c.tree()
	// The handler waits for the rest of the request before the leader hands over.
	if out := c.order("get", "slow"); out != "" {
		t.Fatalf("the key exists before the request is complete: %q", out)
	}
	promoted := make(chan struct{})
	go func() { c.order("promote"); close(promoted) }()
	eventually(t, "the leader hands over", func() bool { return strings.Contains(c.logText(), "handing over") })
	<-time.After(700 * time.Millisecond) // longer than a hand-over waits for a client that hangs
	if _, err := fmt.Fprint(slow, body[10:]); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(slow)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		t.Errorf("the slow request: error %v, want status 200: %s", err, answer)
	}
	<-promoted
	c.wait("another member leads", func(now *tree.Tree) bool { return now.Epoch > before.Epoch })
	cancel()
	if err := <-renewed; err != nil {
		t.Errorf("renew the lease during the hand-over: %v", err)
	}
	if got, err := cl.Get(testContext(t), "slow"); err != nil || len(got.Kvs) != 1 {
		t.Errorf("get the key of the slow request: %v, %v", got, err)
	}
}
