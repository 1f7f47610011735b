package e2e

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// limited prepares the program with a limit of open files. It runs the ulimit command that the
// caller gives: "ulimit -n 120" sets the soft and the hard limit.
func (c *cluster) limited(ulimit string, args ...string) *exec.Cmd {
	c.t.Helper()
	shell, err := exec.LookPath("sh")
	if err != nil {
		c.t.Skip("needs sh(1)")
	}
	cmd := exec.Command(shell, append([]string{"-c", ulimit + ` && exec "$@"`, "sh", binary}, args...)...)
	cmd.Stderr = c.logs
	return cmd
}

// upLimited starts a leader with a limit of open files.
func (c *cluster) upLimited(ulimit string, args ...string) {
	c.t.Helper()
	filesFor(c.t, 4096)
	cmd := c.limited(ulimit, append([]string{"up", "--config", c.config}, args...)...)
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	if id, err := proc.Identify(cmd.Process.Pid); err == nil {
		c.note(id)
		c.last = id
	}
	go func() { _ = cmd.Wait() }()
}

// noneLacked fails the test if a member ran out of descriptors.
func (c *cluster) noneLacked() {
	c.t.Helper()
	for line := range strings.Lines(c.logText()) {
		if strings.Contains(line, "too many open files") || strings.Contains(line, "too few open files") {
			c.t.Errorf("a member ran out of descriptors: %s", line)
		}
	}
}

// greetOnly is the first message of a gRPC client, after which it sends nothing more.
const greetOnly = http2Hello + "\x00\x00\x00\x04\x01\x00\x00\x00\x00"

// besiege lets n clients connect to an address, again and again when their connections end. They
// send no request and stay until the returned function is called.
func besiege(t *testing.T, address string, n int) (leave func()) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	var wg, first sync.WaitGroup
	first.Add(n)
	for range n {
		wg.Go(func() {
			tried := sync.OnceFunc(first.Done)
			defer tried()
			for ctx.Err() == nil {
				c, err := (&net.Dialer{}).DialContext(ctx, "tcp", address)
				if err != nil {
					continue
				}
				stop := context.AfterFunc(ctx, func() { _ = c.Close() })
				_, _ = c.Write([]byte(greetOnly))
				tried()
				for buf := make([]byte, 512); err == nil; {
					_, err = c.Read(buf)
				}
				stop()
				_ = c.Close()
			}
		})
	}
	leave = sync.OnceFunc(func() { cancel(); wg.Wait() })
	t.Cleanup(leave)
	first.Wait()
	return leave
}

// happened waits for an event of a kind.
func (c *cluster) happened(kind string) {
	c.t.Helper()
	eventually(c.t, "event "+kind, func() bool {
		_, out := c.run("events", "--config", c.config, "--json")
		return strings.Contains(out, `"`+kind+`"`)
	})
}

// TestTooFewFiles: a limit that is too low is refused at the start, in one line with the required
// number.
func TestTooFewFiles(t *testing.T) {
	filesFor(t, 4096)
	for _, tc := range []struct{ limit, followers, need int }{
		{64, 2, 120}, {119, 2, 120}, {103, 1, 104}, {87, 0, 88}, {183, 6, 184},
	} {
		c := newCluster(t)
		cmd := c.limited(fmt.Sprintf("ulimit -n %d", tc.limit), "up", "--config", c.config,
			"--followers", fmt.Sprint(tc.followers), "--replication-min-sync", "0")
		err := cmd.Run()
		text := c.logText()
		if cmd.ProcessState.ExitCode() != 2 {
			t.Errorf("limit %d, %d followers: error %v, want exit code 2\n%s", tc.limit, tc.followers, err, text)
		}
		for _, want := range []string{"dynast: ", fmt.Sprintf("the limit is %d,", tc.limit), fmt.Sprintf("a cluster with %d follower", tc.followers),
			fmt.Sprintf("needs %d ", tc.need), "ulimit -n", "LimitNOFILE=", "--ulimit nofile="} {
			if !strings.Contains(text, want) {
				t.Errorf("limit %d, %d followers: the message does not contain %q: %q", tc.limit, tc.followers, want, text)
			}
		}
		if strings.Count(text, "\n") != 1 {
			t.Errorf("limit %d, %d followers: the message must have one line\n%s", tc.limit, tc.followers, text)
		}
		if _, err := os.Stat(c.dir); err == nil {
			t.Errorf("limit %d, %d followers: the refused process created a data directory", tc.limit, tc.followers)
		}
	}
}

// TestFewestFiles uses the lowest accepted limit. Hundreds of clients and strangers take no
// descriptors from members: a follower takes over from a killed leader, and all followers get in
// sync again, whether they were adopted, started or sent a snapshot.
func TestFewestFiles(t *testing.T) {
	for limit, clients := range map[int]int{120: 16, 128: 24} {
		t.Run(fmt.Sprint(limit), func(t *testing.T) {
			c := newCluster(t)
			ready := filepath.Join(t.TempDir(), "ready")
			c.upLimited(fmt.Sprintf("ulimit -n %d", limit), "--ready-file", ready)
			before := c.full()
			rec := record(t, c, 2)
			rec.more(t, 50)
			stored{}.grow(t, c.dial()) // until snapshots are needed
			leave := besiege(t, c.client, 300)
			for _, m := range before.Members {
				crowd(t, m.Address, 160, "")
			}
			c.happened("clients_wait")
			for range 2 {
				before = c.full()
				c.kill(leaderOf(before))
				after := c.full()
				if after.Leader == before.Leader {
					t.Fatal("the killed leader still leads: there was no takeover")
				}
				// The leader is ready although its own read would wait like the clients.
				eventually(t, "the next leader is ready", func() bool {
					raw, _ := os.ReadFile(ready)
					return strings.Contains(string(raw), fmt.Sprintf("PID=%d\n", leaderOf(after).PID))
				})
				if n := openFiles(leaderOf(after).PID); n > limit-8 {
					t.Errorf("the leader uses %d of %d descriptors", n, limit)
				}
			}
			// All followers are killed at once and their copies are removed, so that each gets a
			// snapshot.
			before = c.full()
			for _, m := range followersOf(before) {
				c.signal(m, syscall.SIGSTOP) // from here on the process changes no file
				removeAll(t, c.openDir().Slot(m.Slot).Path())
			}
			for _, m := range followersOf(before) {
				c.signal(m, syscall.SIGKILL)
			}
			c.happened("rebuilt")
			c.wait("new followers are in sync", func(t *tree.Tree) bool {
				return count(t, "in_sync") == 2 && followersOf(t)[0].PID != followersOf(before)[0].PID
			})
			if code, out := c.run("promote", "--config", c.config); code != 0 {
				t.Errorf("promote: exit code %d\n%s", code, out)
			}
			c.full()
			leave()
			rec.more(t, 50)
			rec.check(t, c)
			c.noneLacked()
			if text := c.logText(); !strings.Contains(text, fmt.Sprintf("connections=%d", clients)) {
				t.Errorf("the log does not say that %d connections of clients are possible", clients)
			}
		})
	}
}

// putsOnce starts a put on a new connection, without a retry, and reports its result.
func (c *cluster) putsOnce() <-chan error {
	done := make(chan error, 1)
	conn, err := grpc.NewClient("passthrough:///"+c.client, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.t.Fatal(err)
	}
	ctx := testContext(c.t)
	go func() {
		_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte("a waiting client"), Value: []byte("is served")})
		_ = conn.Close()
		done <- err
	}()
	return done
}

// TestClientsWait: a client without a free descriptor waits in the kernel's queue. It is served
// without an error when another client leaves, or by the next leader.
func TestClientsWait(t *testing.T) {
	c := newCluster(t)
	c.upLimited("ulimit -n 128")
	before := c.full()
	leave := crowd(t, c.client, 32, greetOnly)
	c.happened("clients_wait")
	waits := c.putsOnce()
	// The client waits behind the waiting clients of the crowd, until clients of the crowd leave.
	select {
	case err := <-waits:
		t.Fatalf("the client was served while other clients used all descriptors: %v", err)
	default:
	}
	leave()
	if err := <-waits; err != nil {
		t.Errorf("the put of a client that had to wait: %v", err)
	}
	c.happened("clients_accepted")
	crowd(t, c.client, 32, greetOnly)
	eventually(t, "clients use all descriptors again", func() bool { return strings.Count(c.logText(), "clients wait to be accepted") == 2 })
	waits = c.putsOnce()
	c.kill(leaderOf(before))
	if err := <-waits; err != nil {
		t.Errorf("the put of a client that was waiting when the leader was killed: %v", err)
	}
	c.full()
	c.noneLacked()
}

// TestSoftLimitIsRaised: all members raise the soft limit to the hard limit, including those that
// a later leader starts.
func TestSoftLimitIsRaised(t *testing.T) {
	c := newCluster(t)
	c.upLimited("ulimit -Sn 64 && ulimit -Hn 120")
	check := func(tr *tree.Tree) {
		t.Helper()
		for _, m := range tr.Members {
			raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/limits", m.PID))
			if err != nil {
				t.Fatal(err)
			}
			for line := range strings.Lines(string(raw)) {
				if rest, ok := strings.CutPrefix(line, "Max open files"); ok {
					if f := strings.Fields(rest); f[0] != "120" || f[1] != "120" {
						t.Errorf("%s has other limits than 120: %s", m.Address, line)
					}
				}
			}
		}
	}
	before := c.full()
	check(before)
	c.kill(leaderOf(before))
	check(c.full())
}

// TestMoreFollowersThanFiles: a number of followers that the limit does not allow is refused and
// changes nothing. A number that it allows works, although clients used the descriptors.
func TestMoreFollowersThanFiles(t *testing.T) {
	c := newCluster(t)
	c.upLimited("ulimit -n 151")
	besiege(t, c.client, 100) // 47 clients can be connected at the same time
	c.happened("clients_wait")
	if code, out := c.run("scale", "3", "--config", c.config); code != 0 {
		t.Fatalf("scale 3: exit code %d\n%s", code, out)
	}
	before := c.full(3)
	if n := openFiles(leaderOf(before).PID); n > 151-16 {
		t.Errorf("the leader uses %d of 151 descriptors: it closed no connection of a client", n)
	}
	refused := func(code, want int, out string) {
		t.Helper()
		if code != want || !strings.Contains(out, "the limit is 151, and a cluster with 4 followers needs 152 ") {
			t.Errorf("a number of followers above the limit: exit code %d, want %d\n%s", code, want, out)
		}
		sameProcesses(t, before, c.full(3))
	}
	for _, args := range [][]string{{"scale", "4"}, {"add"}} {
		code, out := c.run(append(args, "--config", c.config)...)
		refused(code, 1, out)
	}
	code, out := c.run("join", "--config", c.config, "--leader", before.Leader)
	refused(code, 4, out)
	c.reconfigure("followers = 2", "followers = 4")
	code, _, out = c.reload()
	refused(code, 1, out)
	// A process that could not lead this number of followers does not join.
	cmd := c.limited("ulimit -n 150", "join", "--config", c.config, "--leader", before.Leader)
	err := cmd.Run()
	if cmd.ProcessState.ExitCode() != 2 || !strings.Contains(c.logText(), "the limit is 150, and a cluster with 4 followers needs 152 ") {
		t.Errorf("join with a lower limit than the leader's: error %v, want exit code 2", err)
	}
	sameProcesses(t, before, c.full(3))
	if strings.Contains(c.logText(), "too many open files") {
		t.Error("a member ran out of descriptors")
	}
}
