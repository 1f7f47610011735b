package chaos

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// Operator holds the commands of an operator that a run needs.
type Operator struct {
	// Tree asks the leader of a data directory, and waits a short time for one.
	Tree func(ctx context.Context, dataDir string) (*tree.Tree, error)
	// Stop ends all processes in order. After the timeout it kills the remaining processes. It
	// writes what it did to out.
	Stop func(ctx context.Context, dataDir string, timeout time.Duration, out io.Writer) error
	// Promote hands the leadership over on purpose; nil if this version cannot.
	Promote func(ctx context.Context, dataDir string) error
	// Services asks the leader about the services. Restart orders a restart of a service or an
	// instance, and waits until it is done. Both are needed only for services.
	Services func(ctx context.Context, dataDir string) (*ps.Report, error)
	Restart  func(ctx context.Context, dataDir, name string, rolling bool) error
}

// cluster is the cluster under test: one that Run started itself ("own"), or a running one.
type cluster struct {
	operator  Operator
	dataDir   string
	client    string // address
	followers int
	heartbeat time.Duration // heartbeat.timeout
	patience  time.Duration // bound of every wait for a condition

	// Only for an own cluster.
	own    bool
	binary string
	args   []string // arguments of "up"
	work   string   // the directory of the whole run
	logs   *os.File
	// start starts a process elsewhere than in this network namespace; nil if there is nothing to it.
	start func(*exec.Cmd) error

	// endpoints returns the addresses for the next client; nil means client alone.
	endpoints func() []string

	mu      sync.Mutex
	last    *exec.Cmd // the last start; nil after it has ended
	starts  int       // number of calls of up
	waiting sync.WaitGroup
	epochs  []epochAt
}

type epochAt struct {
	at    time.Time
	epoch uint64
}

// newOwn prepares a cluster in its own directory. It starts no process.
func newOwn(cfg Config, rng *rand.Rand, work, dataDir string) (*cluster, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	logs, err := os.OpenFile(filepath.Join(work, "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	first := 20000 + rng.IntN(250)*40 // below the kernel's range of ephemeral ports, which clients use
	c := &cluster{
		operator: cfg.Operator, dataDir: dataDir, client: fmt.Sprintf("127.0.0.1:%d", port), followers: cfg.Followers,
		heartbeat: cfg.HeartbeatTimeout, patience: cfg.Patience, own: true, binary: cfg.Binary, work: work, logs: logs,
	}
	// The default port of the page may belong to a real cluster, so the page is off. UpArgs can
	// turn it on, because the last flag counts.
	c.args = append([]string{"up", "--dashboard-listen", "off"}, cfg.UpArgs...)
	c.args = append(c.args, "--data-dir", dataDir, "--client-listen", c.client, "--member-ports", fmt.Sprintf("%d-%d", first, first+39))
	return c, nil
}

func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("find a free port: %w", err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port, nil
}

// up starts the leader of an own cluster. A goroutine waits for its end.
func (c *cluster) up() error {
	cmd := exec.Command(c.binary, c.args...)
	cmd.Args[0] = "dynast"
	cmd.Stderr = c.logs
	// Ctrl-C in the terminal must reach only this process, which stops the cluster at the end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	start := cmd.Start
	if c.start != nil {
		start = func() error { return c.start(cmd) }
	}
	if err := start(); err != nil {
		return fmt.Errorf("start a cluster: %w", err)
	}
	c.mu.Lock()
	c.last = cmd
	c.starts++
	c.mu.Unlock()
	c.waiting.Go(func() {
		_ = cmd.Wait() // its log says how it ended
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.last == cmd {
			c.last = nil
		}
	})
	return nil
}

// started returns how often the cluster was started.
func (c *cluster) started() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.starts
}

func (c *cluster) starting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last != nil
}

// restartIfDead starts an own cluster again if no process of it is left.
func (c *cluster) restartIfDead() error {
	if !c.own || c.starting() {
		return nil
	}
	left, err := Processes(c.dataDir)
	if err != nil || len(left) > 0 {
		return err
	}
	return c.up()
}

// tree asks the leader, and records the epoch.
func (c *cluster) tree(ctx context.Context) (*tree.Tree, error) {
	t, err := c.operator.Tree(ctx, c.dataDir)
	if err != nil {
		return nil, err
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.epochs); n == 0 || c.epochs[n-1].epoch != t.Epoch {
		c.epochs = append(c.epochs, epochAt{time.Now(), t.Epoch})
	}
	return t, nil
}

// takeovers returns the number of leaderships that began or may have begun in a span of time.
func (c *cluster) takeovers(from, to time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	var before, after uint64
	for _, e := range c.epochs { // an epoch is recorded when it is seen, which is later than its start
		if before == 0 || !e.at.After(from) {
			before = e.epoch
		}
		after = e.epoch
		if e.at.After(to) {
			break
		}
	}
	return int(after - before)
}

// errTimeout says that a condition did not become true in time.
var errTimeout = errors.New("timed out after")

// await waits until a condition on the tree is true. If no process of an own cluster is left, it
// starts the cluster again.
func (c *cluster) await(ctx context.Context, what string, ok func(*tree.Tree) bool) (*tree.Tree, error) {
	deadline := time.Now().Add(c.patience)
	var last error
	for {
		if last = c.restartIfDead(); last == nil {
			var t *tree.Tree
			if t, last = c.tree(ctx); last == nil && ok(t) {
				return t, nil
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case time.Now().After(deadline) && last != nil:
			return nil, fmt.Errorf("wait for %s: %w %s: %w", what, errTimeout, c.patience, last)
		case time.Now().After(deadline):
			return nil, fmt.Errorf("wait for %s: %w %s", what, errTimeout, c.patience)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// full waits until all followers are in sync.
func (c *cluster) full(ctx context.Context) (*tree.Tree, error) {
	return c.await(ctx, fmt.Sprintf("%d followers in sync", c.followers), func(t *tree.Tree) bool {
		return t.InSync() >= c.followers && !t.Degraded
	})
}

// stopTimeout bounds an orderly stop. Then the remaining processes are killed, which is a
// finding.
const stopTimeout = 30 * time.Second

// errNotInOrder says that a stop had to kill processes.
var errNotInOrder = errors.New("the cluster did not stop in order")

// stop stops an own cluster in order.
func (c *cluster) stop(ctx context.Context) error {
	var out bytes.Buffer
	if err := c.operator.Stop(ctx, c.dataDir, stopTimeout, &out); err != nil {
		return err
	}
	if said := out.String(); strings.Contains(said, "killed") {
		return fmt.Errorf("%w: %s", errNotInOrder, strings.TrimSpace(said))
	}
	return nil
}

// end kills all processes of an own cluster, whatever their state, and returns those that it
// found.
func (c *cluster) end() (left []proc.Identity, err error) {
	first := true
	for deadline := time.Now().Add(c.patience); ; {
		now, err := Processes(c.dataDir)
		if err != nil {
			return left, err
		}
		if first {
			left, first = now, false
		}
		if len(now) == 0 {
			c.waiting.Wait()
			return left, nil
		}
		for _, id := range now {
			if err := Signal(id, unix.SIGKILL); err != nil {
				return left, err
			}
		}
		if time.Now().After(deadline) {
			return left, fmt.Errorf("%d processes still exist after SIGKILL: %v", len(now), now)
		}
		pause(context.Background(), 10*time.Millisecond)
	}
}

// dial returns a stock client with the one client endpoint.
func (c *cluster) dial() (*clientv3.Client, error) {
	cfg := clientv3.Config{Endpoints: []string{c.client}, DialTimeout: c.patience, Logger: zap.NewNop()}
	if c.endpoints != nil {
		cfg.Endpoints = c.endpoints()
		// A host that is cut off closes no connection.
		cfg.DialKeepAliveTime, cfg.DialKeepAliveTimeout = keepaliveTime, keepaliveTimeout
	}
	cl, err := clientv3.New(cfg)
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return cl, nil
}

const (
	// keepaliveTime is how long a connection to a host may be silent before it is tested, and
	// keepaliveTimeout how long the test may take. gRPC allows no shorter time.
	keepaliveTime    = 10 * time.Second
	keepaliveTimeout = 2 * time.Second
)

func (c *cluster) dir() (*datadir.Dir, error) { return datadir.OpenForReading(c.dataDir) }
