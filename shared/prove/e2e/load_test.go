package e2e

import (
	"bufio"
	"context"
	big "encoding/binary"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	bolt "go.etcd.io/bbolt"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/prove/chaos"
)

// fullLoad turns on the promised sizes, which need minutes and gigabytes. Only then is a stall
// measured, on an otherwise idle machine.
var fullLoad = os.Getenv("DYNAST_E2E_LOAD") == "full"

// inflate adds keys to the databases of a stopped cluster, in the format of etcd's mvcc package.
// This takes seconds; clients would need many minutes. All replicas get the same keys.
func (c *cluster) inflate(keys, valueBytes int) {
	c.t.Helper()
	dir := c.openDir()
	slots, err := dir.Slots()
	if err != nil {
		c.t.Fatal(err)
	}
	for _, n := range slots {
		if err := inflate(database(dir.Slot(n)), keys, valueBytes); err != nil {
			c.t.Fatalf("slot %d: %v", n, err)
		}
	}
}

func inflate(path string, keys, valueBytes int) error {
	db, err := bolt.Open(path, 0o600, &bolt.Options{Timeout: time.Second, NoSync: true, NoFreelistSync: true, FreelistType: bolt.FreelistMapType})
	if err != nil {
		return err
	}
	defer db.Close()
	value := make([]byte, valueBytes)
	batch := min(max(64<<20/(valueBytes+64), 1), keys)
	first := int64(0)
	for done := 0; done < keys; done += batch {
		err := db.Update(func(tx *bolt.Tx) error {
			b := tx.Bucket([]byte("key"))
			b.FillPercent = 1
			if first == 0 {
				first = 2
				if last, _ := b.Cursor().Last(); len(last) >= 8 {
					first = int64(big.BigEndian.Uint64(last)) + 1
				}
			}
			for i := done; i < min(done+batch, keys); i++ {
				revision := first + int64(i)
				k := append(big.BigEndian.AppendUint64(nil, uint64(revision)), '_', 0, 0, 0, 0, 0, 0, 0, 0)
				v, err := proto.Marshal(&mvccpb.KeyValue{Key: fmt.Appendf(nil, "big/%09d", i), Value: value, CreateRevision: revision, ModRevision: revision, Version: 1})
				if err == nil {
					err = b.Put(k, v)
				}
				if err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return db.Sync()
}

// anonymous returns the memory of a process without the page cache, in bytes.
func anonymous(t *testing.T, pid int) int {
	t.Helper()
	f, err := os.Open(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Errorf("a member is gone: %v", err)
		return 0
	}
	defer f.Close()
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		if rest, ok := strings.CutPrefix(lines.Text(), "RssAnon:"); ok {
			kib, err := strconv.Atoi(strings.Fields(rest)[0])
			if err != nil {
				t.Fatal(err)
			}
			return kib << 10
		}
	}
	t.Fatal("no RssAnon in /proc")
	return 0
}

// memory returns the largest memory of any member, and checks it against the bound in
// docs/guarantees.md.
func (c *cluster) memory(tr *tree.Tree, when string, keys, clients, watchers int) {
	c.t.Helper()
	const queue = 64 << 20 // replication.queue_bytes
	bound := 192<<20 + keys*600 + 4*queue + clients*256<<10 + watchers*64<<10
	for _, m := range tr.Members {
		used := anonymous(c.t, m.PID)
		c.t.Logf("%s: the %s takes %d MiB, the bound is %d MiB", when, m.Role, used>>20, bound>>20)
		if used > bound && !raceEnabled {
			c.t.Errorf("%s: the %s takes %d MiB, more than the bound of %d MiB", when, m.Role, used>>20, bound>>20)
		}
	}
}

// load starts clients that write and read. The returned function stops them and returns their
// history.
func (c *cluster) load(rng *rand.Rand, clients, valueBytes int, pause time.Duration) (*chaos.History, func()) {
	c.t.Helper()
	h := chaos.NewHistory()
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	for i := range clients {
		w := &chaos.Client{History: h, ID: i, Stock: c.dial(), Rand: rand.New(rand.NewPCG(rng.Uint64(), 0)), ValueBytes: valueBytes, Pause: pause}
		for k := range max(clients/4, 3) {
			w.Keys = append(w.Keys, fmt.Sprintf("load/%d", k))
		}
		wg.Go(func() { w.Run(ctx) })
	}
	var once sync.Once
	stop := func() { once.Do(func() { cancel(); wg.Wait() }) }
	c.t.Cleanup(stop)
	return h, stop
}

// stalled checks the longest time without an acknowledged write.
func stalled(t *testing.T, what string, h *chaos.History) {
	t.Helper()
	stall := h.Stall()
	t.Logf("%s: %d answers, the longest time without an acknowledged write was %s", what, h.Known(), stall.Round(time.Millisecond))
	if fullLoad && stall > time.Second {
		t.Errorf("%s: no write was acknowledged for %s", what, stall)
	}
}

// unexpected reports deaths that the test did not cause.
func (c *cluster) unexpected(tr *tree.Tree, caused map[int]bool) {
	c.t.Helper()
	for _, d := range tr.Deaths {
		if !caused[d.PID] {
			c.t.Errorf("a process died that the test did not kill: %+v", d)
		}
	}
}

// TestLargeDatabases: members open large databases, follow, are rebuilt under load and take over.
// No working process is considered dead, although opening takes longer than spawn.timeout here.
func TestLargeDatabases(t *testing.T) {
	if testing.Short() {
		t.Skip("-short skips this test, because it takes long")
	}
	sizes := map[string]struct {
		keys, valueBytes int
		spawnTimeout     string
	}{"many keys": {500_000, 64, "1s"}}
	if fullLoad {
		sizes["many keys"] = struct {
			keys, valueBytes int
			spawnTimeout     string
		}{1_000_000, 128, "1s"}
		sizes["2 GiB"] = struct {
			keys, valueBytes int
			spawnTimeout     string
		}{32 << 10, 64 << 10, "1s"}
	}
	for name, size := range sizes {
		t.Run(name, func(t *testing.T) {
			_, rng := seeded(t)
			c := start(t, withExtra(fmt.Sprintf(`spawn { timeout = %q }
store { quota = "8GiB" }`, size.spawnTimeout)))
			stored{}.grow(t, c.dial()) // the log alone no longer has all data
			put(t, c.dial(), "kept", "1")
			if code, out := c.run("stop", "--config", c.config); code != 0 {
				t.Fatalf("stop: %s", out)
			}
			c.inflate(size.keys, size.valueBytes)
			caused := map[int]bool{}
			began := time.Now()
			c.up()
			tr := c.full()
			t.Logf("%d keys of %d bytes: all followers in sync after %s", size.keys, size.valueBytes, time.Since(began).Round(time.Millisecond))
			c.unexpected(tr, caused)
			h, stop := c.load(rng, 8, 256, 4*time.Millisecond)
			c.more(h, 100)

			victim := followersOf(tr)[0]
			began = time.Now()
			caused[victim.PID] = true
			logged := len(c.logText())
			c.signal(victim, syscall.SIGSTOP) // from here on the process changes no file
			removeAll(t, c.openDir().Slot(victim.Slot).Path())
			c.signal(victim, syscall.SIGKILL)
			tr = c.wait("the follower is rebuilt", func(t *tree.Tree) bool {
				_, ok := find(t, victim.Address)
				return (!ok || victim.PID != mustFind(t, victim.Address).PID) && count(t, "in_sync") == 2
			})
			if !strings.Contains(c.logText()[logged:], "sending a snapshot") {
				t.Error("no snapshot was sent: the test checked nothing")
			}
			t.Logf("rebuilt under load after %s", time.Since(began).Round(time.Millisecond))
			c.more(h, 100)
			stalled(t, "while it was rebuilt", h)
			c.memory(tr, "after it was rebuilt", size.keys, 8, 0)
			c.unexpected(tr, caused)

			began = time.Now()
			caused[leaderOf(tr).PID] = true
			c.signal(leaderOf(tr), syscall.SIGKILL)
			next := c.wait("another member leads", func(now *tree.Tree) bool { return now.Leader != tr.Leader })
			c.more(h, 100)
			tr = c.full()
			t.Logf("epoch %d; all followers in sync %s after the leader's death", next.Epoch, time.Since(began).Round(time.Millisecond))
			stalled(t, "with a takeover", h)
			stop()
			c.unexpected(tr, caused)
			reads(t, c.dial(), "kept", "1")
			check(t, h)
		})
	}
}

func mustFind(t *tree.Tree, address string) tree.Member {
	m, _ := find(t, address)
	return m
}

// TestManyClients has many clients and watchers, some values at the size limit, and a takeover
// during all of this. No watcher misses an event.
func TestManyClients(t *testing.T) {
	if testing.Short() {
		t.Skip("-short skips this test, because it takes long")
	}
	clients, watchers, perClient := 60, 300, 30
	if fullLoad {
		clients, watchers, perClient = 1000, 5000, 100
	}
	_, rng := seeded(t)
	c := start(t)
	tr := c.full()
	caused := map[int]bool{}
	crowd := c.audience(watchers, perClient)
	h, stop := c.load(rng, clients, 256, 200*time.Millisecond)
	c.more(h, 10*clients)
	stalled(t, "many clients", h)
	writer := c.dial()
	limit := strings.Repeat("x", 1<<20+400<<10) // the limit of a request is 1.5 MiB
	var large sync.WaitGroup
	for i := range 8 {
		large.Go(func() {
			for range 4 {
				if _, err := writer.Put(testContext(t), fmt.Sprint("limit/", i), limit); err != nil {
					t.Errorf("put of a value at the size limit: %v", err)
				}
			}
		})
	}
	watched := func(value string) {
		for range 15 {
			eventually(t, "an acknowledged write", func() bool {
				ctx, done := context.WithTimeout(context.Background(), patience)
				defer done()
				_, err := writer.Put(ctx, "watched", value)
				return err == nil
			})
		}
	}
	watched("before")
	large.Wait()
	c.memory(tr, "with values at the limit", 1000, clients, watchers)
	stalled(t, "with values at the limit", h)
	c.unexpected(c.full(), caused)
	if _, err := writer.Put(testContext(t), "limit/0", limit+limit[:300<<10]); !errors.Is(err, rpctypes.ErrRequestTooLarge) {
		t.Errorf("put of a value above the size limit: error %v", err)
	}
	caused[leaderOf(tr).PID] = true
	c.signal(leaderOf(tr), syscall.SIGKILL)
	c.wait("another member leads", func(now *tree.Tree) bool { return now.Leader != tr.Leader })
	watched("after")
	c.more(h, clients)
	tr = c.full()
	stop()
	stalled(t, "with a takeover", h)
	crowd.all(t, writer)
	c.memory(tr, "after the takeover", 1000, clients, watchers)
	crowd.leave(t)
	c.unexpected(tr, caused)
	check(t, h)
}

// audience is a set of watchers of one key.
type audience struct {
	saw      []atomic.Int64 // number of events of each watcher
	broken   atomic.Int64
	watching sync.WaitGroup
	cancel   context.CancelFunc
}

func (c *cluster) audience(watchers, perClient int) *audience {
	c.t.Helper()
	w := &audience{saw: make([]atomic.Int64, watchers)}
	var ctx context.Context
	ctx, w.cancel = context.WithCancel(context.Background())
	c.t.Cleanup(w.cancel)
	var cl *clientv3.Client
	for i := range watchers {
		if i%perClient == 0 {
			cl = c.dial()
		}
		ch := cl.Watch(ctx, "watched", clientv3.WithRev(1))
		w.watching.Go(func() {
			last := int64(0)
			for r := range ch {
				for _, e := range r.Events {
					if e.Kv.ModRevision <= last {
						w.broken.Add(1) // an event came twice or out of order
					}
					last = e.Kv.ModRevision
					w.saw[i].Add(1)
				}
				if r.Err() != nil && ctx.Err() == nil {
					w.broken.Add(1)
				}
			}
		})
	}
	return w
}

// all waits until every watcher has seen every event.
func (w *audience) all(t *testing.T, cl *clientv3.Client) {
	t.Helper()
	resp, err := cl.Get(testContext(t), "watched")
	if err != nil || len(resp.Kvs) != 1 {
		t.Fatal(resp, err)
	}
	events := resp.Kvs[0].Version // the key was never deleted, so its version counts its changes
	eventually(t, fmt.Sprintf("every watcher saw %d events", events), func() bool {
		for i := range w.saw {
			if w.saw[i].Load() < events {
				return false
			}
		}
		return true
	})
	for i := range w.saw {
		if n := w.saw[i].Load(); n != events {
			t.Errorf("watcher %d saw %d events, want %d", i, n, events)
		}
	}
}

func (w *audience) leave(t *testing.T) {
	t.Helper()
	w.cancel()
	w.watching.Wait()
	if n := w.broken.Load(); n > 0 {
		t.Errorf("%d watches ended early, or got an event twice or out of order", n)
	}
}
