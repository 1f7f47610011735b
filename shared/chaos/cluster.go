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

	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/tree"
)

// Operator is what an operator's commands do.
type Operator struct {
	// Tree asks the leader of a data directory, and waits a little for one.
	Tree func(ctx context.Context, dataDir string) (*tree.Tree, error)
	// Stop ends all processes, in order, and kills those that are left after the
	// timeout. What it did it writes to out.
	Stop func(ctx context.Context, dataDir string, timeout time.Duration, out io.Writer) error
	// Promote hands the leadership over on purpose; nil: this version can't.
	Promote func(ctx context.Context, dataDir string) error
}

// cluster is the one that is broken: an own one, or a running one.
type cluster struct {
	operator  Operator
	dataDir   string
	client    string // address
	followers int
	heartbeat time.Duration // its timeout
	patience  time.Duration // for whatever has to come true

	// Of an own one only.
	own    bool
	binary string
	args   []string // of "up"
	work   string   // holds everything
	logs   *os.File

	mu      sync.Mutex
	last    *exec.Cmd // that was started last; nil when it was waited for
	raised  int       // how often it was started
	waiting sync.WaitGroup
	epochs  []epochAt
}

type epochAt struct {
	at    time.Time
	epoch uint64
}

// newOwn prepares a cluster in a directory of its own; nothing runs yet.
func newOwn(cfg Config, rng *rand.Rand, work, dataDir string) (*cluster, error) {
	port, err := freePort()
	if err != nil {
		return nil, err
	}
	logs, err := os.OpenFile(filepath.Join(work, "log"), os.O_CREATE|os.O_RDWR|os.O_APPEND, 0o600)
	if err != nil {
		return nil, err
	}
	first := 20000 + rng.IntN(250)*40 // below the ports that the kernel gives to clients
	c := &cluster{
		operator: cfg.Operator, dataDir: dataDir, client: fmt.Sprintf("127.0.0.1:%d", port), followers: cfg.Followers,
		heartbeat: cfg.HeartbeatTimeout, patience: cfg.Patience, own: true, binary: cfg.Binary, work: work, logs: logs,
	}
	// The page's port is a real cluster's, unless one is asked for; the last flag counts.
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

// up starts an own cluster's leader. It is waited for in the background.
func (c *cluster) up() error {
	cmd := exec.Command(c.binary, c.args...)
	cmd.Args[0] = "dynast"
	cmd.Stderr = c.logs
	// A Ctrl-C in the terminal is for this process, which stops the cluster in the end.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("start a cluster: %w", err)
	}
	c.mu.Lock()
	c.last = cmd
	c.raised++
	c.mu.Unlock()
	c.waiting.Go(func() {
		_ = cmd.Wait() // how it ended is in its log
		c.mu.Lock()
		defer c.mu.Unlock()
		if c.last == cmd {
			c.last = nil
		}
	})
	return nil
}

func (c *cluster) starting() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.last != nil
}

// raise starts an own cluster again where nobody is left to do it.
func (c *cluster) raise() error {
	if !c.own || c.starting() {
		return nil
	}
	left, err := Processes(c.dataDir)
	if err != nil || len(left) > 0 {
		return err
	}
	return c.up()
}

// tree asks the leader, and notes the epoch.
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

// takeovers is the number of leaderships that began in a span, and those that
// may have.
func (c *cluster) takeovers(from, to time.Time) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	var before, after uint64
	for _, e := range c.epochs { // noted when seen, which is later
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

// errImpatient says that a condition did not come true.
var errImpatient = errors.New("not within")

// await polls a condition on the tree, and starts what is left of an own
// cluster again when nothing is.
func (c *cluster) await(ctx context.Context, what string, ok func(*tree.Tree) bool) (*tree.Tree, error) {
	deadline := time.Now().Add(c.patience)
	var last error
	for {
		if last = c.raise(); last == nil {
			var t *tree.Tree
			if t, last = c.tree(ctx); last == nil && ok(t) {
				return t, nil
			}
		}
		switch {
		case ctx.Err() != nil:
			return nil, ctx.Err()
		case time.Now().After(deadline) && last != nil:
			return nil, fmt.Errorf("%s: %w %s: %w", what, errImpatient, c.patience, last)
		case time.Now().After(deadline):
			return nil, fmt.Errorf("%s: %w %s", what, errImpatient, c.patience)
		}
		pause(ctx, 20*time.Millisecond)
	}
}

// full waits for the full strength.
func (c *cluster) full(ctx context.Context) (*tree.Tree, error) {
	return c.await(ctx, fmt.Sprintf("%d followers in sync", c.followers), func(t *tree.Tree) bool {
		return inSync(t) >= c.followers && !t.Degraded
	})
}

func inSync(t *tree.Tree) int {
	n := 0
	for _, m := range t.Members {
		if m.State == "in_sync" {
			n++
		}
	}
	return n
}

func leaderOf(t *tree.Tree) tree.Member { m, _ := memberAt(t, t.Leader); return m }

func memberAt(t *tree.Tree, address string) (tree.Member, bool) {
	for _, m := range t.Members {
		if m.Address == address {
			return m, true
		}
	}
	return tree.Member{}, false
}

func followersOf(t *tree.Tree) []tree.Member {
	var out []tree.Member
	for _, m := range t.Members {
		if m.Address != t.Leader {
			out = append(out, m)
		}
	}
	return out
}

// stopTimeout is how long an orderly stop may take before what is left is
// killed, which is a finding.
const stopTimeout = 30 * time.Second

// errNotInOrder says that a stop had to kill.
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

// end leaves no process of an own cluster behind, whatever state it is in, and
// returns those that an orderly stop did not end.
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
			return left, fmt.Errorf("%d processes are there after SIGKILL: %v", len(now), now)
		}
		pause(context.Background(), 10*time.Millisecond)
	}
}

// dial returns a stock client with the one endpoint.
func (c *cluster) dial() (*clientv3.Client, error) {
	cl, err := clientv3.New(clientv3.Config{Endpoints: []string{c.client}, DialTimeout: c.patience, Logger: zap.NewNop()})
	if err != nil {
		return nil, fmt.Errorf("client: %w", err)
	}
	return cl, nil
}

func (c *cluster) dir() (*datadir.Dir, error) { return datadir.OpenForReading(c.dataDir) }
