package e2e

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// disk is a small file system that the test can fill.
type disk struct {
	t       *testing.T
	path    string
	ballast string
}

const (
	diskBytes    = 160 << 20
	reserveBytes = 16 << 20 // store.disk_reserve of these tests
)

// mount mounts a disk. Only root can do this.
func mount(t *testing.T) *disk { return mountTmpfs(t, diskBytes) }

func mountTmpfs(t *testing.T, bytes int64) *disk {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	d := &disk{t: t, path: filepath.Join(t.TempDir(), "disk")}
	if err := os.Mkdir(d.path, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("dynast-e2e", d.path, "tmpfs", 0, fmt.Sprintf("size=%d,mode=0700", bytes)); err != nil {
		if errors.Is(err, unix.EPERM) || errors.Is(err, unix.EACCES) {
			t.Skipf("this user may not mount a small file system: %v", err)
		}
		t.Fatal(err)
	}
	t.Cleanup(func() {
		// The unmount is lazy, because a process that is exiting may have a file open.
		if err := unix.Unmount(d.path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	d.ballast = filepath.Join(d.path, "somebody-elses-file")
	return d
}

// fill writes a file until no more than leave bytes are free.
func (d *disk) fill(leave uint64) {
	d.t.Helper()
	f, err := os.OpenFile(d.ballast, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		d.t.Fatal(err)
	}
	defer f.Close()
	page := make([]byte, os.Getpagesize())
	for d.free() > leave {
		n := max(int(d.free()-leave)/len(page), 1)
		if _, err := f.Write(slices.Repeat(page, n)); err != nil && !errors.Is(err, syscall.ENOSPC) {
			d.t.Fatal(err)
		}
	}
}

func (d *disk) free() uint64 {
	n, err := proc.FreeBytes(d.path)
	if err != nil {
		d.t.Fatal(err)
	}
	return n
}

func (d *disk) makeRoom() {
	d.t.Helper()
	if err := os.Remove(d.ballast); err != nil {
		d.t.Fatal(err)
	}
}

func startOnDisk(t *testing.T) (*disk, *cluster) {
	d := mount(t)
	c := start(t, withDataDir(filepath.Join(d.path, "data")), withExtra(fmt.Sprintf("store { disk_reserve = \"%dB\" }", reserveBytes)))
	return d, c
}

// refused waits until a write is refused for lack of space.
func refused(t *testing.T, cl *clientv3.Client) {
	t.Helper()
	eventually(t, "a write is refused for lack of space", func() bool {
		_, err := cl.Put(testContext(t), "refused", "?")
		if err != nil && !errors.Is(err, rpctypes.ErrNoSpace) && status.Code(err) != codes.Unavailable {
			t.Fatalf("the write failed with %v, want ResourceExhausted and etcd's text for no space", err)
		}
		return errors.Is(err, rpctypes.ErrNoSpace)
	})
}

func accepted(t *testing.T, cl *clientv3.Client) {
	t.Helper()
	eventually(t, "a write is accepted again", func() bool {
		ctx, done := context.WithTimeout(context.Background(), time.Second)
		defer done()
		_, err := cl.Put(ctx, "accepted", "!")
		return err == nil
	})
}

// alarmed waits until the NOSPACE alarm is raised, or disarmed.
func alarmed(t *testing.T, cl *clientv3.Client, want bool) {
	t.Helper()
	eventually(t, fmt.Sprintf("NOSPACE alarm %t", want), func() bool {
		resp, err := cl.AlarmList(testContext(t))
		if status.Code(err) == codes.Unimplemented {
			return true
		}
		if err != nil {
			return false
		}
		there := slices.ContainsFunc(resp.Alarms, func(a *pb.AlarmMember) bool { return a.Alarm == pb.AlarmType_NOSPACE })
		return there == want
	})
}

func reads(t *testing.T, cl *clientv3.Client, key, value string) {
	t.Helper()
	resp, err := cl.Get(testContext(t), key)
	if err != nil || len(resp.Kvs) != 1 || string(resp.Kvs[0].Value) != value {
		t.Errorf("get %s: %v, %v; want %s", key, resp, err, value)
	}
}

// sameProcesses fails the test if a process died between two trees.
func sameProcesses(t *testing.T, before, after *tree.Tree) {
	t.Helper()
	if len(after.Deaths) > len(before.Deaths) {
		t.Errorf("processes died: %+v", after.Deaths)
	}
	for _, m := range before.Members {
		if now, ok := find(after, m.Address); !ok || now.PID != m.PID {
			t.Errorf("%s (pid %d) is gone or was replaced: %+v", m.Address, m.PID, now)
		}
	}
}

func TestDiskFullRefusesWritesAndRecovers(t *testing.T) {
	d, c := startOnDisk(t)
	rec := record(t, c, 2)
	rec.more(t, 50)
	before, cl := c.full(), c.dial()
	put(t, cl, "kept", "1")
	for _, leave := range []uint64{reserveBytes / 2, reserveBytes / 8} {
		d.fill(leave)
		refused(t, cl)
		alarmed(t, cl, true)
		reads(t, cl, "kept", "1")
		// Deletes still work, except for the very last bytes. So clients can free space.
		if leave > reserveBytes/4 {
			if _, err := cl.Delete(testContext(t), "nothing"); err != nil {
				t.Errorf("delete on a full disk: %v", err)
			}
		}
		sameProcesses(t, before, c.full())
		d.makeRoom()
		accepted(t, cl)
		alarmed(t, cl, false)
	}
	rec.more(t, 50)
	sameProcesses(t, before, c.full())
	rec.check(t, c)
}

func put(t *testing.T, cl *clientv3.Client, key, value string) {
	t.Helper()
	if _, err := cl.Put(testContext(t), key, value); err != nil {
		t.Fatal(err)
	}
}

func TestLeaderKilledWhileTheDiskIsFull(t *testing.T) {
	for _, leave := range []uint64{reserveBytes / 8, 0} {
		t.Run(fmt.Sprintf("%d bytes free", leave), func(t *testing.T) {
			d, c := startOnDisk(t)
			rec := record(t, c, 2)
			rec.more(t, 50)
			before, cl := c.full(), c.dial()
			put(t, cl, "kept", "1")
			eventually(t, "room is kept for a takeover", func() bool {
				_, err := os.Stat(filepath.Join(c.dir, "succession.json.new"))
				return err == nil
			})
			d.fill(leave)
			refused(t, cl)
			c.signal(leaderOf(before), syscall.SIGKILL)
			c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != before.Leader })
			reads(t, cl, "kept", "1")
			refused(t, cl)
			d.makeRoom()
			accepted(t, cl)
			alarmed(t, cl, false)
			reads(t, cl, "kept", "1")
			c.full()
			rec.check(t, c)
		})
	}
}

// TestALaterLeaderDisarmsTheAlarm: the leader that raised the alarm dies, or all processes die,
// before it sees that there is room again. The next leader disarms the alarm.
func TestALaterLeaderDisarmsTheAlarm(t *testing.T) {
	d, c := startOnDisk(t)
	cl := c.dial()
	put(t, cl, "kept", "1")
	for _, all := range []bool{false, true} {
		before := c.full()
		d.fill(reserveBytes / 2)
		refused(t, cl)
		alarmed(t, cl, true)
		c.signal(leaderOf(before), syscall.SIGSTOP) // so that the leader does not see that there is room
		d.makeRoom()
		if all {
			for _, m := range followersOf(before) {
				c.signal(m, syscall.SIGKILL)
			}
		}
		c.signal(leaderOf(before), syscall.SIGKILL)
		if all {
			c.awaitGone(before)
			c.up()
		}
		accepted(t, cl)
		alarmed(t, cl, false)
		reads(t, cl, "kept", "1")
	}
}

// TestDiskFilledToTheLastByte: another program fills the disk within a moment. This may block the
// cluster, but no acknowledged write is lost.
func TestDiskFilledToTheLastByte(t *testing.T) {
	d, c := startOnDisk(t)
	rec := record(t, c, 2)
	rec.more(t, 200)
	before, cl := c.full(), c.dial()
	put(t, cl, "kept", "1")
	d.fill(0)
	refused(t, cl)
	reads(t, cl, "kept", "1")
	deaths := func() string {
		var b strings.Builder
		if tr := c.tree(); tr != nil {
			for _, d := range tr.Deaths {
				fmt.Fprintf(&b, "%s: %s; ", d.Address, d.Reason)
			}
		}
		return b.String()
	}
	refused(t, cl)
	if s := deaths(); s != "" {
		t.Errorf("processes died because the disk was full: %s", s)
	}
	d.makeRoom()
	accepted(t, cl)
	alarmed(t, cl, false)
	reads(t, cl, "kept", "1")
	rec.more(t, 20)
	sameProcesses(t, before, c.full())

	// All processes are killed, and the cluster is started on the full disk.
	d.fill(0)
	refused(t, cl)
	for _, m := range before.Members {
		c.signal(m, syscall.SIGKILL)
	}
	c.awaitGone(before)
	logged := len(c.logText())
	c.up()
	eventually(t, "the leader serves clients on the full disk, or has ended", func() bool {
		return !same(c.last) || strings.Contains(c.logText()[logged:], "serving clients")
	})
	d.makeRoom()
	c.raise()
	cl = c.dial() // the old client pauses after its failures
	accepted(t, cl)
	reads(t, cl, "kept", "1")
	c.full()
	rec.check(t, c)
}
