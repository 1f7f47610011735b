package e2e

import (
	"context"
	"fmt"
	"net"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/prove/chaos"
)

// everyone returns all processes of the cluster by their arguments, including those that do not
// own a slot yet.
func (c *cluster) everyone() []proc.Identity {
	c.t.Helper()
	found, err := chaos.Processes(c.dir, c.config)
	if err != nil {
		c.t.Fatal(err)
	}
	for _, id := range found {
		c.note(id)
	}
	return found
}

// killEveryone sends SIGKILL until no process is left, including processes that are started
// meanwhile.
func (c *cluster) killEveryone() {
	c.t.Helper()
	eventually(c.t, "no process is left", func() bool {
		all := c.everyone()
		for _, id := range all {
			signalSame(id, syscall.SIGKILL)
		}
		return len(all) == 0
	})
}

// TestClusterKilledAtRandomMoments kills all processes at random moments, mostly during a start,
// and starts the cluster again. No acknowledged write is lost.
func TestClusterKilledAtRandomMoments(t *testing.T) {
	_, rng := seeded(t)
	c := newCluster(t)
	all := stored{}
	for round := range rounds(10) {
		c.up()
		ctx, cancel := context.WithTimeout(context.Background(), time.Duration(rng.IntN(350))*time.Millisecond)
		c.writeUntil(ctx, all, round)
		<-ctx.Done() // the random moment
		cancel()
		c.killEveryone()
	}
	c.up()
	c.full()
	t.Logf("%d acknowledged writes", len(all))
	all.check(t, c.dial())
	if strings.Contains(c.logText(), "may be lost") {
		t.Error("the log reports a loss, although nothing was damaged")
	}
}

// writeUntil writes one key after the other with its own client, as soon as a leader answers.
func (c *cluster) writeUntil(ctx context.Context, all stored, round int) {
	c.t.Helper()
	for {
		conn, err := net.Dial("tcp", c.client)
		if err == nil {
			conn.Close()
			break
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(time.Millisecond): // the polling interval
		}
	}
	cl := c.dial()
	defer cl.Close()
	for i := 0; ctx.Err() == nil; i++ {
		k, v := fmt.Sprintf("stored/%d/%06d", round, i), fmt.Sprint(round, i)
		if _, err := cl.Put(ctx, k, v); err == nil {
			all[k] = v
		}
	}
}

// TestAFollowerThatKeepsDyingIsStartedMoreSlowly kills every process of one slot until a start is
// delayed. When the test stops doing so, the cluster is complete again.
func TestAFollowerThatKeepsDyingIsStartedMoreSlowly(t *testing.T) {
	c := start(t)
	before := c.full()
	leader := leaderOf(before)
	eventually(t, "the log shows a delayed start", func() bool {
		tr := c.tree()
		if tr == nil {
			return false
		}
		for _, m := range followersOf(tr) {
			if m.Slot == 2 {
				c.signal(m, syscall.SIGKILL)
			}
		}
		return strings.Contains(c.logText(), "event=spawn_delayed")
	})
	line := c.logText()[strings.Index(c.logText(), "event=spawn_delayed"):]
	line, _, _ = strings.Cut(line, "\n")
	if !strings.Contains(line, "slot 2") || !strings.Contains(line, "next start in") {
		t.Errorf("the line about the delay must name the slot and the time of the next start: %s", line)
	}
	after := c.full()
	if after.Leader != leader.Address || len(after.Deaths) < 3 {
		t.Errorf("leader %s with deaths %+v, want the same leader as before and at least 3 deaths", after.Leader, after.Deaths)
	}
	for _, d := range after.Deaths {
		if d.PID == 0 || d.Reason == "" {
			t.Errorf("a death without a pid or a reason: %+v", d)
		}
	}
}

// TestJoinerIsBuiltFromASnapshot: the log no longer has the entries that the new follower lacks,
// and clients continue to write. Later this follower becomes leader, and it has all data.
func TestJoinerIsBuiltFromASnapshot(t *testing.T) {
	c := start(t)
	all, rec := stored{}, record(t, c, 2)
	all.grow(t, c.dial())
	before := c.full()
	logged := len(c.logText())
	joiner := fmt.Sprintf("%s:%d", c.host, c.first-1) // sorts before all others
	cmd := c.command("join", "--config", c.config, "--leader", before.Leader, "--address", joiner)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	c.full(3)
	if !strings.Contains(c.logText()[logged:], "sending a snapshot") {
		t.Error("no snapshot was sent: the test checked nothing")
	}
	rec.more(t, 50)
	c.signal(leaderOf(before), syscall.SIGKILL)
	c.wait("the joiner leads", func(t *tree.Tree) bool { return t.Leader == joiner })
	rec.more(t, 50)
	all.check(t, c.dial())
	rec.check(t, c)
}

// grow writes more than the leader keeps in memory of its log.
func (s stored) grow(t *testing.T, cl *clientv3.Client) {
	t.Helper()
	s.write(t, cl, "before", 10)
	big := strings.Repeat("x", 1<<20)
	for i := range 24 {
		put(t, cl, fmt.Sprint("big/", i%6), big)
	}
	s.write(t, cl, "after", 10)
}

// TestDeathsInTheMiddleOfASnapshot kills the follower that receives a snapshot, and the leader
// that sends it.
func TestDeathsInTheMiddleOfASnapshot(t *testing.T) {
	c := start(t)
	all := stored{}
	cl := c.dial()
	all.grow(t, cl)
	for round := range 4 {
		tr := c.full()
		victim := followersOf(tr)[0]
		slot := c.openDir().Slot(victim.Slot)
		logged := len(c.logText())
		c.signal(victim, syscall.SIGSTOP) // from here on the process changes no file
		removeAll(t, slot.Path())
		c.signal(victim, syscall.SIGKILL)
		eventually(t, "a snapshot is on its way", func() bool { return strings.Contains(c.logText()[logged:], "sending a snapshot") })
		if round%2 == 0 {
			c.signal(leaderOf(tr), syscall.SIGKILL)
		} else if meta, err := slot.ReadMeta(); err == nil {
			signalSame(proc.Identity{PID: meta.PID, StartTime: meta.StartTime}, syscall.SIGKILL)
		}
		all.write(t, cl, fmt.Sprint("round", round), 5)
		c.full()
		all.check(t, cl)
	}
	// The rebuilt copy is as good as any other.
	for _, m := range c.full().Members {
		c.promote(m.Slot)
		all.check(t, cl)
	}
}
