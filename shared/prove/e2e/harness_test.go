package e2e

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/operator/cli"
	"github.com/dynast-io/dynast/shared/operator/term"
	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// binary is the program under test, built once.
var binary string

func TestMain(m *testing.M) {
	if c := os.Getenv(etcdProcess); c != "" {
		if err := beEtcd(c); err != nil {
			fmt.Fprintln(os.Stderr, "etcd:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	if os.Getenv(serviceProcess) != "" {
		if err := beService(); err != nil {
			fmt.Fprintln(os.Stderr, "service:", err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	// Neither the variables of a developer nor a file of this host decide what a test does.
	os.Setenv(config.FileEnv, config.Off)
	os.Unsetenv(config.DataDirEnv)
	os.Exit(func() int {
		dir, err := os.MkdirTemp("", "dynast-e2e-")
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		defer os.RemoveAll(dir)
		binary = filepath.Join(dir, "dynast")
		args := []string{"build", "-o", binary}
		if raceEnabled {
			// Optimization by profile does not matter there, and compiling everything again takes minutes.
			args = append(args, "-race", "-pgo=off")
			// By default, a process with the race detector sleeps for a second when it exits,
			// which looks like a hang.
			os.Setenv("GORACE", "atexit_sleep_ms=0")
		}
		build := exec.Command("go", append(args, "github.com/dynast-io/dynast")...)
		if out, err := build.CombinedOutput(); err != nil {
			fmt.Fprintf(os.Stderr, "build: %v\n%s", err, out)
			return 1
		}
		code := m.Run()
		// A client was not closed, or the test did not wait for a process.
		if err := goleak.Find(); err != nil && code == 0 {
			fmt.Fprintln(os.Stderr, err)
			return 1
		}
		return code
	}())
}

// patience bounds every wait. It measures nothing: a condition that becomes true late means a
// slow machine, and one that never does is a failure.
const patience = 60 * time.Second

// portBlock gives each cluster of this test process its own ports. The product skips ports that
// other programs use.
var portBlock atomic.Int32

// cluster is a running cluster in its own directory.
type cluster struct {
	t      *testing.T
	dir    string
	config string
	client string
	host   string
	first  int // first of the member ports

	// logs is the standard error of all processes. It is a file, because processes outlive the
	// one that was started with it.
	logs *os.File

	mu   sync.Mutex
	seen map[proc.Identity]bool
	last proc.Identity // the process of the last "up"
}

type option func(*settings)

type settings struct {
	host, dataDir, extra string
	dashboard            string // the dashboard is off, because tests run clusters side by side
	followers            int
	timeout              string
}

func withHost(h string) option    { return func(s *settings) { s.host = h } }
func withDataDir(d string) option { return func(s *settings) { s.dataDir = d } }
func withTimeout(d string) option { return func(s *settings) { s.timeout = d } }
func withDashboard(listen string) option {
	return func(s *settings) { s.dashboard = listen }
}
func withExtra(hcl string) option { return func(s *settings) { s.extra = hcl } }

// newCluster writes the configuration but starts nothing. When the test ends, all processes of
// the directory are killed.
func newCluster(t *testing.T, opts ...option) *cluster {
	t.Helper()
	s := settings{host: "127.0.0.1", followers: 2, timeout: "1s", dashboard: "off", dataDir: filepath.Join(t.TempDir(), "data")}
	for _, o := range opts {
		o(&s)
	}
	c := &cluster{
		t: t, dir: s.dataDir, host: s.host, client: fmt.Sprintf("127.0.0.1:%d", freePort(t)),
		first: 21000 + int(portBlock.Add(1))%290*40, config: filepath.Join(t.TempDir(), "config.hcl"),
		seen: map[proc.Identity]bool{},
	}
	hcl := fmt.Sprintf(`
data_dir  = %q
followers = %d
client {
  listen = %q
}
dashboard { listen = %q }
member {
  host  = %q
  ports = "%d-%d"
}
heartbeat { timeout = %q }
log { level = "debug" }
%s
`, c.dir, s.followers, c.client, s.dashboard, s.host, c.first, c.first+39, s.timeout, s.extra)
	if err := os.WriteFile(c.config, []byte(hcl), 0o600); err != nil {
		t.Fatal(err)
	}
	var err error
	if c.logs, err = os.Create(filepath.Join(t.TempDir(), "stderr")); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(c.end)
	return c
}

func freePort(t *testing.T) int {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

// end kills all processes, and shows the logs of a failed test.
func (c *cluster) end() {
	if err := cli.Stop(context.Background(), c.dir, 5*time.Second, &bytes.Buffer{}); err != nil && !errors.Is(err, os.ErrNotExist) {
		c.t.Logf("stop at the end of the test: %v", err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	defer c.logs.Close()
	for id := range c.seen {
		if p, err := proc.Open(id); err == nil {
			_ = p.Kill()
			<-p.Done()
			_ = p.Close()
		}
	}
	// If the path is long, the sockets of members are in their own directory.
	if dir, err := datadir.OpenForReading(c.dir); err == nil {
		if run, err := dir.RuntimeDir(); err == nil && strings.HasPrefix(run, filepath.Join(os.TempDir(), "dynast-")) {
			if err := os.RemoveAll(run); err != nil {
				c.t.Error(err)
			}
		}
	}
	if c.t.Failed() {
		c.t.Logf("logs of the cluster:\n%s", tail(c.logText(), 40000))
	}
}

func tail(s string, n int) string { return s[max(0, len(s)-n):] }

func (c *cluster) logText() string {
	raw, err := os.ReadFile(c.logs.Name())
	if err != nil {
		c.t.Error(err)
	}
	return string(raw)
}

// command prepares the program. Its standard error goes to the cluster's log.
func (c *cluster) command(args ...string) *exec.Cmd {
	cmd := exec.Command(binary, args...)
	cmd.Stderr = c.logs
	return cmd
}

// up starts a leader with further arguments and returns its process. A goroutine waits for its
// end.
func (c *cluster) up(args ...string) *exec.Cmd {
	c.t.Helper()
	cmd := c.command(append([]string{"up", "--config", c.config}, args...)...)
	c.launch(cmd)
	return cmd
}

// launch starts a leader. A goroutine waits for its end.
func (c *cluster) launch(cmd *exec.Cmd) {
	c.t.Helper()
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	c.started(cmd)
}

// started notes a leader that was started. A goroutine waits for its end.
func (c *cluster) started(cmd *exec.Cmd) {
	if id, err := proc.Identify(cmd.Process.Pid); err == nil {
		c.note(id)
		c.last = id
	}
	go func() { _ = cmd.Wait() }()
}

// start starts the cluster and waits until all followers are in sync.
func start(t *testing.T, opts ...option) *cluster {
	t.Helper()
	c := newCluster(t, opts...)
	c.up()
	c.full()
	return c
}

func (c *cluster) note(id proc.Identity) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.seen[id] = true
}

// tree returns the leader's tree, or nil if no leader answers at the moment.
func (c *cluster) tree() *tree.Tree {
	var out bytes.Buffer
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	if err := cli.Tree(ctx, c.dir, true, &out, term.Style{}); err != nil {
		return nil
	}
	t, err := tree.Decode(out.Bytes())
	if err != nil {
		c.t.Fatal(err)
	}
	for _, m := range t.Members {
		if id, err := proc.Identify(m.PID); err == nil {
			c.note(id)
		}
	}
	return t
}

// gone reports whether a process from a tree has ended with all its threads. A process whose
// first thread is a zombie may still hold its locks.
func (c *cluster) gone(m tree.Member) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.seen {
		if id.PID == m.PID {
			p, err := proc.Open(id)
			if err == nil {
				_ = p.Close()
				return false
			}
		}
	}
	return true
}

// wait polls a condition on the tree.
func (c *cluster) wait(what string, ok func(*tree.Tree) bool) *tree.Tree {
	c.t.Helper()
	var last *tree.Tree
	eventually(c.t, what, func() bool {
		if t := c.tree(); t != nil {
			last = t
			return ok(t)
		}
		return false
	})
	return last
}

// full waits until the leader has two followers in sync, or the requested number.
func (c *cluster) full(want ...int) *tree.Tree {
	c.t.Helper()
	n := 2
	if len(want) > 0 {
		n = want[0]
	}
	return c.wait(fmt.Sprintf("%d followers in sync", n), func(t *tree.Tree) bool { return count(t, "in_sync") == n && !t.Degraded })
}

func count(t *tree.Tree, state string) int {
	n := 0
	for _, m := range t.Members {
		if m.State == state {
			n++
		}
	}
	return n
}

func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	deadline := time.Now().Add(patience)
	for !ok() {
		if time.Now().After(deadline) {
			t.Fatalf("timed out waiting for: %s", what)
		}
		<-time.After(5 * time.Millisecond) // the polling interval, not a measurement
	}
}

func find(t *tree.Tree, address string) (tree.Member, bool) { return t.MemberAt(address) }
func leaderOf(t *tree.Tree) tree.Member                     { return t.LeaderMember() }
func followersOf(t *tree.Tree) []tree.Member                { return t.FollowerMembers() }

// signal sends a signal to exactly the process that the tree named.
func (c *cluster) signal(m tree.Member, sig syscall.Signal) {
	c.t.Helper()
	if m.PID <= 1 {
		c.t.Fatalf("the member has no process: %+v", m)
	}
	if err := syscall.Kill(m.PID, sig); err != nil && !errors.Is(err, syscall.ESRCH) {
		c.t.Fatal(err)
	}
	if sig == syscall.SIGSTOP {
		testkit.Eventually(c.t, "every thread of the process has stopped", func() bool { return allStopped(m.PID) })
	}
}

// allStopped reports whether all threads of a process are stopped. A signal returns earlier,
// because a thread in a system call finishes it first.
func allStopped(pid int) bool {
	stats, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/stat", pid))
	for _, path := range stats {
		raw, err := os.ReadFile(path)
		if err != nil {
			continue // the thread has ended
		}
		_, after, _ := strings.Cut(string(raw), ") ")
		if !strings.HasPrefix(after, "T") && !strings.HasPrefix(after, "Z") && !strings.HasPrefix(after, "X") {
			return false
		}
	}
	return true
}

// dial returns a stock client with the one client endpoint.
func (c *cluster) dial() *clientv3.Client {
	c.t.Helper()
	cl, err := clientv3.New(clientv3.Config{Endpoints: []string{c.client}, DialTimeout: patience, Logger: zap.NewNop()})
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = cl.Close() })
	return cl
}

func testContext(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	t.Cleanup(cancel)
	return ctx
}
