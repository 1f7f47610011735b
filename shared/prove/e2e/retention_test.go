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

	"github.com/dynast-io/dynast/shared/observe/tree"
)

// startWithOneAway starts a cluster and stops its second follower. The long heartbeat timeout
// keeps the leader from killing this follower.
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

// caughtUp waits until a follower has every entry and both followers are in sync.
func (c *cluster) caughtUp(m tree.Member) *tree.Tree {
	c.t.Helper()
	return c.wait("the follower has caught up", func(tr *tree.Tree) bool {
		now, there := findPID(tr, m.PID)
		return there && now.State == "in_sync" && now.Lag == 0 && count(tr, "in_sync") == 2
	})
}

// outlastCompaction writes for three seconds, and calls look with the tree meanwhile. Members
// compact their logs once a second, so afterwards all unneeded entries are gone.
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

// TestPausedFollowerCatchesUpFromTheLog: a follower lacks more entries than any member has in
// memory, and its leader is dead. The next leader still has the entries on disk, because the dead
// leader told it how far back to keep its log. No snapshot is sent.
func TestPausedFollowerCatchesUpFromTheLog(t *testing.T) {
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

// TestSlowlyOpeningFollowerCatchesUpFromTheLog: a new follower takes long to open its copy, as
// with a large database, and clients write meanwhile. No snapshot is sent.
func TestSlowlyOpeningFollowerCatchesUpFromTheLog(t *testing.T) {
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
	// The test waits for the lock in the kernel and the next process only polls. So the test gets
	// the lock first.
	go func() { locked <- unix.Flock(int(db.Fd()), unix.LOCK_EX) }()
	c.signal(victim, syscall.SIGKILL)
	if err := <-locked; err != nil {
		t.Fatal(err)
	}
	opening := func(tr *tree.Tree) bool { return count(tr, "starting") == 1 }
	c.wait("the next process opens the copy", opening)
	all.grow(t, cl)
	c.outlastCompaction(cl, func(tr *tree.Tree) {
		if !opening(tr) {
			t.Fatal("the new follower does not wait for the lock: the test checks nothing")
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

// TestFollowerPausedTooLongGetsASnapshot: the leader does not keep its log forever.
func TestFollowerPausedTooLongGetsASnapshot(t *testing.T) {
	c, cl, all, leader, away := startWithOneAway(t)
	// oldest is the number of the oldest segment that is left.
	oldest := func() (number int) {
		names, err := filepath.Glob(filepath.Join(c.openDir().Slot(leader.Slot).LogDir(), "*.wal"))
		if err != nil || len(names) == 0 {
			t.Fatal(names, err)
		}
		if _, err := fmt.Sscanf(filepath.Base(names[0]), "%x-", &number); err != nil {
			t.Fatal(err)
		}
		return number
	}
	for range 5 {
		all.grow(t, cl) // 120 MiB; 64 MiB are kept in any case, in segments of 4 MiB
	}
	// The leader may still have the segment open from which it was sending. The segments after it
	// have to be gone too.
	eventually(t, "the leader has removed the old segments of its log", func() bool { return oldest() >= 5 })
	c.signal(away, syscall.SIGCONT)
	c.caughtUp(away)
	if !strings.Contains(c.logText(), "sending a snapshot") {
		t.Error("no snapshot was sent")
	}
	c.promote(away.Slot)
	all.check(t, cl)
}
