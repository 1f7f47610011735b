package e2e

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/tree"
)

// startWithOneAway is a cluster whose second follower is stopped, and not given up for that.
func startWithOneAway(t *testing.T) (c *cluster, cl *clientv3.Client, all stored, leader, away tree.Member) {
	t.Helper()
	c, all = start(t, withTimeout("60s")), stored{}
	cl = c.dial()
	all.write(t, cl, "before", 10)
	tr := c.full()
	leader, away = leaderOf(tr), followersOf(tr)[1]
	c.signal(away, syscall.SIGSTOP)
	return c, cl, all, leader, away
}

// caughtUp waits until a follower lacks nothing, and nobody else is missing.
func (c *cluster) caughtUp(m tree.Member) *tree.Tree {
	c.t.Helper()
	return c.wait("it has caught up", func(tr *tree.Tree) bool {
		now, there := findPID(tr, m.PID)
		return there && now.State == "in_sync" && now.Lag == 0 && count(tr, "in_sync") == 2
	})
}

// outlastCompaction writes until whoever would let go of its log has done so, which is
// once a second, and looks at the tree meanwhile.
func (c *cluster) outlastCompaction(cl *clientv3.Client, look func(*tree.Tree)) {
	c.t.Helper()
	var began time.Time
	c.wait("three seconds are over", func(tr *tree.Tree) bool {
		if began.IsZero() {
			began = tr.At
		}
		put(c.t, cl, "meanwhile", fmt.Sprint(tr.At))
		look(tr)
		return tr.At.Sub(began) > 3*time.Second
	})
}

// TestWhoWasAwayCatchesUpFromTheLog: a follower lacks more than anybody has in memory,
// and the leader whose follower it was is dead. The next one still has it on the disk, as
// the leader told it how far back to keep it: no snapshot is sent.
func TestWhoWasAwayCatchesUpFromTheLog(t *testing.T) {
	c, cl, all, leader, away := startWithOneAway(t)
	all.grow(t, cl)
	c.outlastCompaction(cl, func(*tree.Tree) {})
	c.signal(leader, syscall.SIGKILL)
	all.write(t, cl, "between", 10)
	c.signal(away, syscall.SIGCONT)
	after := c.caughtUp(away)
	if text := c.logText(); strings.Contains(text, "sending a snapshot") {
		t.Error("a snapshot was sent")
	}
	all.check(t, cl)
	for _, m := range followersOf(after) {
		c.promote(m.Slot)
		all.check(t, cl)
	}
}

// TestWhoOpensItsCopyCatchesUpFromTheLog: a new follower takes long to open its copy, as
// with a large database, and the leader is written to meanwhile.
func TestWhoOpensItsCopyCatchesUpFromTheLog(t *testing.T) {
	c := start(t)
	all := stored{}
	cl := c.dial()
	all.write(t, cl, "before", 10)
	tr := c.full()
	victim := followersOf(tr)[0]
	db, err := os.Open(database(c.openDir().Slot(victim.Slot)))
	if err != nil {
		t.Fatal(err)
	}
	defer db.Close()
	locked := make(chan error, 1)
	// Who waits gets the lock before the next process, which looks again and again.
	go func() { locked <- unix.Flock(int(db.Fd()), unix.LOCK_EX) }()
	c.signal(victim, syscall.SIGKILL)
	if err := <-locked; err != nil {
		t.Fatal(err)
	}
	opening := func(tr *tree.Tree) bool { return count(tr, "starting") == 1 }
	c.wait("the next one opens the copy", opening)
	all.grow(t, cl)
	c.outlastCompaction(cl, func(tr *tree.Tree) {
		if !opening(tr) {
			t.Fatal("it does not wait for the lock: nothing is tested")
		}
	})
	if err := unix.Flock(int(db.Fd()), unix.LOCK_UN); err != nil {
		t.Fatal(err)
	}
	c.full()
	if text := c.logText(); strings.Contains(text, "sending a snapshot") {
		t.Error("a snapshot was sent")
	}
	c.promote(victim.Slot)
	all.check(t, cl)
}

// TestWhoWasAwayTooLongIsSentASnapshot: the log is not kept without end.
func TestWhoWasAwayTooLongIsSentASnapshot(t *testing.T) {
	c, cl, all, leader, away := startWithOneAway(t)
	oldest := func() string {
		names, err := filepath.Glob(filepath.Join(c.openDir().Slot(leader.Slot).LogDir(), "*.wal"))
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		return names[0]
	}
	was := oldest()
	for range 5 {
		all.grow(t, cl) // more than the 64 MiB that are kept in any case
	}
	eventually(t, "the log is let go of", func() bool { return oldest() != was })
	c.signal(away, syscall.SIGCONT)
	c.caughtUp(away)
	if !strings.Contains(c.logText(), "sending a snapshot") {
		t.Error("no snapshot was sent")
	}
	c.promote(away.Slot)
	all.check(t, cl)
}
