package e2e

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"golang.org/x/net/http2"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/observe/tree"
)

// filesFor raises the limit of this process to n open files.
func filesFor(t *testing.T, n uint64) {
	t.Helper()
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
		t.Fatal(err)
	}
	if limit.Max < n {
		t.Skipf("needs %d open files, the hard limit is %d (ulimit -Hn)", n, limit.Max)
	}
	if limit.Cur < n {
		limit.Cur = limit.Max
		if err := unix.Setrlimit(unix.RLIMIT_NOFILE, &limit); err != nil {
			t.Fatal(err)
		}
	}
}

// crowd opens n connections to an address. Each sends the same text, or nothing. They stay open
// on this side until the test ends or leave is called.
func crowd(t *testing.T, address string, n int, says string) (leave func()) {
	t.Helper()
	var mu sync.Mutex
	var conns []net.Conn
	leave = func() {
		mu.Lock()
		defer mu.Unlock()
		for _, c := range conns {
			_ = c.Close()
		}
		conns = nil
	}
	t.Cleanup(leave)
	var wg sync.WaitGroup
	for range 16 {
		wg.Go(func() {
			for range n / 16 {
				c, err := net.DialTimeout("tcp", address, patience)
				if err != nil {
					t.Error(err)
					return
				}
				_, _ = c.Write([]byte(says)) // the connection may already be closed
				if says == http2Hello {
					_ = c.SetReadDeadline(time.Now().Add(patience))
					_, _ = c.Read(make([]byte, 9)) // the server's answer shows that it has read the text
				}
				mu.Lock()
				conns = append(conns, c)
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	return leave
}

// openFiles returns the number of descriptors of a process, or 0 if it is gone.
func openFiles(pid int) int {
	names, _ := os.ReadDir(filepath.Join("/proc", fmt.Sprint(pid), "fd"))
	return len(names)
}

func rss(t *testing.T, c *cluster) uint64 {
	t.Helper()
	tr := c.full()
	return leaderOf(tr).RSSBytes
}

const http2Hello = http2.ClientPreface + "\x00\x00\x00\x04\x00\x00\x00\x00\x00"

// TestTenThousandStrangersOnTheMemberPort: with ten thousand connections, the leader still sends
// heartbeats and accepts a follower that joins, and a follower takes over when the leader is
// killed.
func TestTenThousandStrangersOnTheMemberPort(t *testing.T) {
	n, mayTake := 10_000, uint64(64<<20)
	if testing.Short() || raceEnabled {
		n = 2_000
	}
	if raceEnabled {
		mayTake *= 2 // for the race detector's own memory
	}
	filesFor(t, uint64(n)+1000)
	c := start(t)
	rec := record(t, c, 2)
	rec.more(t, 20)
	before := c.full()
	leader := leaderOf(before)
	files, memory := openFiles(leader.PID), rss(t, c)
	leave := crowd(t, leader.Address, n, "")
	if now := openFiles(leader.PID); now > files+200 {
		t.Errorf("the leader has %d open files; it had %d before %d connections were opened", now, files, n)
	}
	rec.more(t, 50)
	sameProcesses(t, before, c.full())
	if now := rss(t, c); now > memory+mayTake {
		t.Errorf("the leader uses %d bytes of memory; it used %d before", now, memory)
	}
	// A follower that dies is replaced, and the new one can connect.
	c.kill(followersOf(before)[0])
	before = c.full()
	rec.more(t, 20)
	// The same happens at the port of the heir.
	heir, ok := find(before, before.Heir)
	if !ok {
		t.Fatalf("no heir: %+v", before)
	}
	leave()
	crowd(t, heir.Address, n, "\x16\x03\x01") // the beginning of a handshake only
	c.signal(leaderOf(before), syscall.SIGKILL)
	c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != before.Leader })
	rec.more(t, 50)
	c.full()
	rec.check(t, c)
}

// TestTenThousandStrangersOnTheClientPort: silent connections do not keep clients out, and
// unfinished handshakes cost a bounded amount of memory.
func TestTenThousandStrangersOnTheClientPort(t *testing.T) {
	n := 10_000
	if testing.Short() || raceEnabled {
		n = 2_000
	}
	filesFor(t, uint64(n)+1000)
	c := start(t)
	rec := record(t, c, 2)
	rec.more(t, 20)
	before, memory := c.full(), rss(t, c)
	leave := crowd(t, c.client, n, "")
	if now := openFiles(leaderOf(before).PID); now > 1024+200 {
		t.Errorf("the leader has %d open files with %d silent clients", now, n)
	}
	put(t, c.dial(), "a client that speaks", "is served")
	rec.more(t, 20)
	leave()
	leave = crowd(t, c.client, n, http2Hello)
	put(t, c.dial(), "a client among idle ones", "is served")
	rec.more(t, 20)
	now := rss(t, c)
	each := (int64(now) - int64(memory)) / int64(n)
	t.Logf("%d idle connections: %d bytes each", n, each)
	if each > 100<<10 && !raceEnabled { // the race detector keeps a shadow of all memory
		t.Errorf("an idle connection takes %d bytes of memory", each)
	}
	sameProcesses(t, before, c.full())
	c.signal(leaderOf(before), syscall.SIGKILL)
	c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != before.Leader })
	rec.more(t, 20)
	leave()
	c.full()
	rec.check(t, c)
}

// TestLimitsOfClients: requests above a limit are refused with the name of the limit.
func TestLimitsOfClients(t *testing.T) {
	c := newCluster(t)
	raw, err := os.ReadFile(c.config)
	if err == nil {
		err = os.WriteFile(c.config, []byte(strings.Replace(string(raw), "client {", "client {\n max_connections = 16\n max_streams = 3\n max_request = \"64KiB\"\n", 1)), 0o600)
	}
	if err != nil {
		t.Fatal(err)
	}
	c.up()
	before := c.full()
	cl := c.dial()
	put(t, cl, "small", strings.Repeat("x", 60<<10))
	_, err = cl.Put(testContext(t), "large", strings.Repeat("x", 65<<10))
	if !errors.Is(err, rpctypes.ErrRequestTooLarge) {
		t.Errorf("a request of 65 KiB: error %v, want \"request is too large\"", err)
	}
	_, err = cl.Put(testContext(t), "huge", strings.Repeat("x", 4<<20))
	if status.Code(err) != codes.ResourceExhausted || !strings.Contains(err.Error(), "larger than max") {
		t.Errorf("a request of 4 MiB: error %v, want ResourceExhausted", err)
	}
	leave := crowd(t, c.client, 16, http2Hello)
	ctx, done := context.WithTimeout(context.Background(), patience)
	defer done()
	eventually(t, "one more client gets an error that names the limit", func() bool {
		attempt, done := context.WithTimeout(ctx, 2*time.Second)
		defer done()
		conn, err := grpc.NewClient("passthrough:///"+c.client, grpc.WithTransportCredentials(insecure.NewCredentials()))
		if err != nil {
			t.Fatal(err)
		}
		defer conn.Close()
		_, err = pb.NewKVClient(conn).Put(attempt, &pb.PutRequest{Key: []byte("one more")}, grpc.WaitForReady(true))
		return err != nil && strings.Contains(err.Error(), "client.max_connections")
	})
	leave()
	accepted(t, c.dial())
	sameProcesses(t, before, c.full())
}
