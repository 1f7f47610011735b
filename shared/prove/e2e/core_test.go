package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net/http"
	"os/exec"
	"runtime"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/metadata"

	"google.golang.org/grpc"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/replica/store"
)

// recorder writes unique keys with a stock client and records the acknowledged ones.
type recorder struct {
	mu    sync.Mutex
	acked map[string]string
	stop  context.CancelFunc
	wg    sync.WaitGroup
}

func record(t *testing.T, c *cluster, writers int) *recorder {
	ctx, cancel := context.WithCancel(context.Background())
	r := &recorder{acked: map[string]string{}, stop: cancel}
	for w := range writers {
		cl := c.dial()
		r.wg.Go(func() {
			for i := 0; ctx.Err() == nil; i++ {
				key, value := fmt.Sprintf("rec/%d/%06d", w, i), fmt.Sprintf("%d-%d", w, i)
				put, done := context.WithTimeout(ctx, 10*time.Second)
				_, err := cl.Put(put, key, value)
				done()
				if err == nil {
					r.mu.Lock()
					r.acked[key] = value
					r.mu.Unlock()
				}
			}
		})
	}
	t.Cleanup(func() { cancel(); r.wg.Wait() })
	return r
}

func (r *recorder) count() int {
	r.mu.Lock()
	defer r.mu.Unlock()
	return len(r.acked)
}

// more waits until n more writes are acknowledged.
func (r *recorder) more(t *testing.T, n int) {
	t.Helper()
	before := r.count()
	eventually(t, fmt.Sprintf("%d more acknowledged writes", n), func() bool { return r.count() >= before+n })
}

// check stops the writers and compares the acknowledged writes with the store.
func (r *recorder) check(t *testing.T, c *cluster) {
	t.Helper()
	r.stop()
	r.wg.Wait()
	resp, err := c.dial().Get(testContext(t), "rec/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	there := map[string]string{}
	for _, kv := range resp.Kvs {
		there[string(kv.Key)] = string(kv.Value)
	}
	missing := 0
	for k, v := range r.acked {
		if there[k] != v {
			missing++
			t.Errorf("%s = %s was acknowledged, but the store has %q", k, v, there[k])
		}
		if missing > 10 {
			break
		}
	}
	t.Logf("%d acknowledged writes, all compared", len(r.acked))
	if len(r.acked) == 0 {
		t.Error("no write was acknowledged: nothing was tested")
	}
}

func TestUpServesAStockClient(t *testing.T) {
	c := start(t)
	cl := c.dial()
	ctx := testContext(t)
	if _, err := cl.Put(ctx, "a", "1"); err != nil {
		t.Fatal(err)
	}
	resp, err := cl.Get(ctx, "a")
	if err != nil || len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != "1" {
		t.Fatalf("get: %v, %v", resp, err)
	}
	tr := c.full()
	if tr.Schema != 1 || tr.Epoch != 1 || tr.Client != c.client || tr.Heir != followersOf(tr)[0].Address {
		t.Errorf("tree: %+v", tr)
	}
	for _, m := range followersOf(tr) {
		if m.Role != "follower" || m.Slot < 1 || m.PPID != leaderOf(tr).PID || m.RSSBytes == 0 || m.Version == "" {
			t.Errorf("follower: %+v", m)
		}
	}
}

func TestASecondUpIsRefused(t *testing.T) {
	c := start(t)
	l := leaderOf(c.full())
	var stderr bytes.Buffer
	cmd := exec.Command(binary, "up", "--config", c.config)
	cmd.Stderr = &stderr
	err := cmd.Run()
	var exit *exec.ExitError
	if !errors.As(err, &exit) || exit.ExitCode() != 3 {
		t.Fatalf("second up: %v, want exit code 3\n%s", err, stderr.String())
	}
	for _, want := range []string{l.Address, fmt.Sprint(l.PID)} {
		if !strings.Contains(stderr.String(), want) {
			t.Errorf("the refusal does not name %s:\n%s", want, stderr.String())
		}
	}
}

func TestLeaderKilledClientsCarryOn(t *testing.T) {
	c := start(t)
	rec := record(t, c, 4)
	for range 3 {
		before := c.full()
		rec.more(t, 20)
		c.signal(leaderOf(before), syscall.SIGKILL)
		after := c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != before.Leader })
		if after.Epoch != before.Epoch+1 {
			t.Errorf("the takeover led to epoch %d, the epoch before was %d", after.Epoch, before.Epoch)
		}
		rec.more(t, 20)
		for _, m := range followersOf(before) {
			now, ok := find(after, m.Address)
			if !ok || now.PID != m.PID {
				t.Errorf("the takeover replaced the healthy member %s (pid %d): %+v", m.Address, m.PID, now)
			}
		}
	}
	final := c.full()
	if len(final.Deaths) != 3 {
		t.Errorf("the tree must show 3 deaths: %+v", final.Deaths)
	}
	rec.check(t, c)
}

func TestFollowerKilledIsReplaced(t *testing.T) {
	c := start(t)
	rec := record(t, c, 2)
	for range 3 {
		before := c.full()
		victim := followersOf(before)[0]
		c.signal(victim, syscall.SIGKILL)
		c.wait("the tree no longer has the dead follower", func(t *tree.Tree) bool {
			m, ok := find(t, victim.Address)
			return !ok || m.PID != victim.PID
		})
		after := c.full()
		d := after.Deaths[len(after.Deaths)-1]
		if d.PID != victim.PID || d.ReplacedBy == "" || d.Reason == "" {
			t.Errorf("unexpected fields of a death: %+v", d)
		}
		rec.more(t, 10)
	}
	rec.check(t, c)
}

func TestColdStartAfterAllProcessesDied(t *testing.T) {
	c := start(t)
	for range 3 {
		rec := record(t, c, 4)
		rec.more(t, 100)
		tr := c.full()
		for _, m := range tr.Members {
			c.signal(m, syscall.SIGKILL)
		}
		rec.stop()
		c.awaitGone(tr)
		c.up()
		c.full()
		rec.check(t, c)
	}
}

// awaitGone waits until no process of a tree is left.
func (c *cluster) awaitGone(tr *tree.Tree) {
	c.t.Helper()
	eventually(c.t, "all processes are gone", func() bool {
		for _, m := range tr.Members {
			if !c.gone(m) {
				return false
			}
		}
		return true
	})
}

func TestStoppedFollowerIsReplacedAndWritesGoOn(t *testing.T) {
	c := start(t)
	rec := record(t, c, 2)
	before := c.full()
	victim := followersOf(before)[0]
	c.signal(victim, syscall.SIGSTOP)
	rec.more(t, 50) // the other follower acknowledges the writes
	c.wait("the tree no longer has the stopped follower", func(t *tree.Tree) bool {
		m, ok := find(t, victim.Address)
		return !ok || m.PID != victim.PID
	})
	after := c.full()
	if d := after.Deaths[0]; d.PID != victim.PID || !strings.Contains(d.Reason, "silent") {
		t.Errorf("unexpected fields of a death: %+v", d)
	}
	rec.check(t, c)
}

func TestStoppedLeaderIsFenced(t *testing.T) {
	c := start(t)
	rec := record(t, c, 2)
	before := c.full()
	rec.more(t, 20)
	old := leaderOf(before)
	c.signal(old, syscall.SIGSTOP)
	after := c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != before.Leader })
	if !c.gone(old) {
		t.Errorf("the stopped leader, pid %d, is still alive while %s leads", old.PID, after.Leader)
	}
	rec.more(t, 20)
	c.full()
	rec.check(t, c)
}

func TestBriefPauseOfTheLeaderCausesNoTakeover(t *testing.T) {
	c := start(t, withTimeout("5s"))
	rec := record(t, c, 2)
	before := c.full()
	rec.more(t, 10)
	c.signal(leaderOf(before), syscall.SIGSTOP)
	stopped := rec.count()
	c.signal(leaderOf(before), syscall.SIGCONT)
	eventually(t, "writes go on", func() bool { return rec.count() > stopped+10 })
	after := c.full()
	if after.Epoch != before.Epoch || len(after.Deaths) != 0 {
		t.Errorf("after a short pause of the leader: epoch %d, deaths %+v; want no takeover and no death", after.Epoch, after.Deaths)
	}
	rec.check(t, c)
}

func TestJoinerWithALowerAddressFollows(t *testing.T) {
	c := start(t, withHost("127.0.0.2"))
	before := c.full()
	cmd := c.command("join", "--config", c.config, "--leader", before.Leader, "--address", fmt.Sprintf("127.0.0.1:%d", c.first))
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	after := c.full(3)
	joined, ok := find(after, fmt.Sprintf("127.0.0.1:%d", c.first))
	if !ok || joined.Role != "follower" || after.Leader != before.Leader || after.Epoch != before.Epoch {
		t.Fatalf("after the join: %+v", after)
	}
	if after.Heir != joined.Address {
		t.Errorf("heir %s, want the lowest address %s", after.Heir, joined.Address)
	}
	// The joined follower inherits everything, including the clients' socket.
	rec := record(t, c, 2)
	rec.more(t, 20)
	c.signal(leaderOf(after), syscall.SIGKILL)
	c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != after.Leader })
	rec.more(t, 20)
	c.full()
	rec.check(t, c)
}

func TestRosterInResponsesAndMemberList(t *testing.T) {
	c := start(t)
	tr := c.full()
	ctx := testContext(t)
	cl := c.dial()
	var md metadata.MD
	if _, err := pb.NewKVClient(cl.ActiveConnection()).Range(ctx, &pb.RangeRequest{Key: []byte("a")}, grpc.Header(&md)); err != nil {
		t.Fatal(err)
	}
	if got := strings.Join(md.Get("dynast-leader"), ""); got != tr.Leader {
		t.Errorf("dynast-leader %q, want %q", got, tr.Leader)
	}
	if got := strings.Join(md.Get("dynast-heir"), ""); got != tr.Heir {
		t.Errorf("dynast-heir %q, want %q", got, tr.Heir)
	}
	for _, m := range tr.Members {
		if !strings.Contains(strings.Join(md.Get("dynast-members"), ""), m.Address) {
			t.Errorf("dynast-members %q lacks %s", md.Get("dynast-members"), m.Address)
		}
	}
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	for i := range 2 {
		resp, err := web.Post("http://"+c.client+"/v3/kv/range", "application/json", strings.NewReader(`{"key":"YQ=="}`))
		if err != nil {
			t.Fatal(err)
		}
		_ = resp.Body.Close()
		if got := resp.Header.Get("Grpc-Metadata-Dynast-Leader"); got != tr.Leader {
			t.Errorf("answer %d over HTTP: leader %q, want %q", i, got, tr.Leader)
		}
	}
	list, err := cl.MemberList(ctx)
	if err != nil || len(list.Members) != 3 {
		t.Fatalf("member list: %v, %v", list, err)
	}
	for _, m := range list.Members {
		if leads := m.Name == tr.Leader; leads != (len(m.ClientURLs) == 1) || m.Name == "" {
			t.Errorf("member list: %+v, the leader is %s; only the leader has a client URL", m, tr.Leader)
		}
	}
	// A client that takes its endpoints from the member list still works.
	if err := cl.Sync(ctx); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Put(ctx, "after", "sync"); err != nil {
		t.Fatal(err)
	}
}

func TestTakeoverWhileEveryHandlerIsBusy(t *testing.T) {
	c := start(t)
	before := c.full()
	// Both followers are stopped, so every write waits in its handler.
	for _, f := range followersOf(before) {
		c.signal(f, syscall.SIGSTOP)
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	var wg sync.WaitGroup
	for w := range 8 {
		cl := c.dial()
		for i := range 100 {
			wg.Go(func() {
				_, _ = cl.Put(ctx, fmt.Sprintf("busy/%d/%d", w, i), "x")
			})
		}
	}
	c.signal(leaderOf(before), syscall.SIGKILL)
	for _, f := range followersOf(before) {
		c.signal(f, syscall.SIGCONT)
	}
	c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != before.Leader })
	if _, err := c.dial().Put(testContext(t), "after", "1"); err != nil {
		t.Fatal(err)
	}
	cancel()
	wg.Wait()
	c.full()
}

func TestLaterLeadersLogToTheFirstLeadersTerminal(t *testing.T) {
	c := start(t)
	before := c.full()
	c.signal(leaderOf(before), syscall.SIGKILL)
	after := c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != before.Leader })
	eventually(t, "the new leader's log", func() bool {
		return strings.Contains(c.logText(), "took_over") && strings.Contains(c.logText(), "address="+after.Leader)
	})
}

func TestStopEndsAll(t *testing.T) {
	c := start(t)
	c.full()
	c.order("scale", "3")
	c.full(3)
	c.order("promote")
	tr := c.full(3)
	leader := leaderOf(tr).PID
	eventually(t, "the leader has a reaper", func() bool { _, ok := proc.Reapers()[leader]; return ok || runtime.GOARCH != "amd64" })
	out, err := exec.Command(binary, "stop", "--config", c.config).CombinedOutput()
	if err != nil {
		t.Fatalf("stop: %v\n%s", err, out)
	}
	for _, m := range tr.Members {
		if !c.gone(m) {
			t.Errorf("%s, pid %d, is still alive after the command printed: %s", m.Address, m.PID, out)
		}
		s, err := store.Open(store.Config{Dir: slotOf(c, m.Slot).DBDir()}) // the database opens at once, because no process has it open
		if err != nil {
			t.Errorf("cannot open the database of slot %d after the command printed: %s%v", m.Slot, out, err)
			continue
		}
		if err := s.Close(); err != nil {
			t.Error(err)
		}
	}
	if strings.Contains(c.logText(), "did not leave in time") || !strings.Contains(c.logText(), "dismissed by the leader") {
		t.Error("the followers did not leave by themselves")
	}
	// A start, a hand-over and a stop are no reason to warn an operator.
	for line := range strings.Lines(c.logText()) {
		if strings.Contains(line, "[WARN]") && (strings.Contains(line, "exit status 0") || strings.Contains(line, "event=degraded")) {
			t.Errorf("a warning without a fault: %s", line)
		}
	}
	// The cluster starts again with its data, and stopping a stopped cluster succeeds.
	if out, err := exec.Command(binary, "stop", "--config", c.config).CombinedOutput(); err != nil {
		t.Errorf("stop of a stopped cluster: %v\n%s", err, out)
	}
	c.up()
	c.full()
}

func TestInterruptEndsAll(t *testing.T) {
	c := start(t)
	tr := c.full()
	c.signal(leaderOf(tr), syscall.SIGINT)
	c.awaitGone(tr)
}

func TestTakenPortIsSkipped(t *testing.T) {
	c := newCluster(t)
	blocker := listen(t, fmt.Sprintf("%s:%d", c.host, c.first+1))
	defer blocker.Close()
	c.up()
	tr := c.full()
	want := map[string]bool{}
	for _, p := range []int{0, 2, 3} {
		want[fmt.Sprintf("%s:%d", c.host, c.first+p)] = true
	}
	for _, m := range tr.Members {
		if !want[m.Address] {
			t.Errorf("member at %s, want %v", m.Address, want)
		}
	}
}
