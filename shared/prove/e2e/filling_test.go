package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sys/unix"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/observe/tree"
)

// mountExt4 mounts a file as an ext4 disk, with a journal and blocks like a real one.
func mountExt4(t *testing.T, bytes int64) *disk {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("needs root to mount a small file system")
	}
	d := &disk{t: t, path: filepath.Join(t.TempDir(), "disk")}
	image := filepath.Join(t.TempDir(), "image")
	f, err := os.Create(image)
	if err == nil {
		err = errors.Join(f.Truncate(bytes), f.Close(), os.Mkdir(d.path, 0o700))
	}
	if err != nil {
		t.Fatal(err)
	}
	for _, args := range [][]string{{"mkfs.ext4", "-q", "-F", "-m", "0", image}, {"mount", "-o", "loop", image, d.path}} {
		if out, err := exec.Command(args[0], args[1:]...).CombinedOutput(); err != nil {
			t.Skipf("cannot make an ext4 file system here: %v: %v\n%s", args, err, out)
		}
	}
	t.Cleanup(func() {
		if err := unix.Unmount(d.path, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	d.ballast = filepath.Join(d.path, "somebody-elses-file")
	return d
}

// shrink makes the ballast file smaller by n bytes.
func (d *disk) shrink(bytes int64) {
	d.t.Helper()
	st, err := os.Stat(d.ballast)
	if err == nil {
		err = os.Truncate(d.ballast, max(st.Size()-bytes, 0))
	}
	if err != nil {
		d.t.Fatal(err)
	}
}

// flood is a set of clients that write as fast as they can, each key once.
type flood struct {
	t      *testing.T
	cancel context.CancelFunc
	wg     sync.WaitGroup

	mu      sync.Mutex
	acked   map[string][sha256.Size]byte
	refused int            // number of requests refused for lack of space
	others  map[string]int // other errors, for example from a dying leader
}

// pour starts clients that write values of 100 bytes to 1 MiB.
func pour(t *testing.T, c *cluster, seed uint64, writers int) *flood {
	ctx, cancel := context.WithCancel(context.Background())
	f := &flood{t: t, cancel: cancel, acked: map[string][sha256.Size]byte{}, others: map[string]int{}}
	for w := range writers {
		cl := c.dial()
		f.wg.Go(func() { f.write(ctx, cl, w, rand.New(rand.NewPCG(seed, uint64(w)))) })
	}
	t.Cleanup(f.stop)
	return f
}

func (f *flood) stop() { f.cancel(); f.wg.Wait() }

func (f *flood) write(ctx context.Context, cl *clientv3.Client, w int, rng *rand.Rand) {
	for i := 0; ctx.Err() == nil; i++ {
		value := make([]byte, 100)
		switch rng.IntN(4) {
		case 0:
			value = make([]byte, 1<<20)
		case 1:
			value = make([]byte, 100+rng.IntN(1<<20-100))
		}
		for j := 0; j < len(value); j += 64 {
			value[j] = byte(rng.Uint32())
		}
		key := fmt.Sprintf("flood/%02d/%07d", w, i)
		put, done := context.WithTimeout(ctx, 20*time.Second)
		_, err := cl.Put(put, key, string(value))
		done()
		f.told(key, value, err)
		if err != nil {
			select { // a refused client waits before it tries again
			case <-time.After(time.Duration(rng.IntN(50)) * time.Millisecond):
			case <-ctx.Done():
			}
		}
	}
}

func (f *flood) told(key string, value []byte, err error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	switch {
	case err == nil:
		f.acked[key] = sha256.Sum256(value)
	case errors.Is(err, rpctypes.ErrNoSpace):
		f.refused++
	case errors.Is(err, context.Canceled), errors.Is(err, context.DeadlineExceeded),
		errors.Is(err, rpctypes.ErrTooManyRequests), errors.Is(err, rpctypes.ErrTimeout),
		status.Code(err) == codes.Unavailable, status.Code(err) == codes.Canceled:
		f.others[err.Error()]++
	default:
		f.t.Errorf("put: %v", err)
	}
}

func (f *flood) counts() (acked, refused int) {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.acked), f.refused
}

// check stops the writers and reads all acknowledged keys.
func (f *flood) check(cl *clientv3.Client) {
	f.t.Helper()
	f.stop()
	if len(f.acked) == 0 {
		f.t.Error("no write was acknowledged: the test checked nothing")
	}
	f.t.Logf("%d acknowledged writes, %d refused for lack of space", len(f.acked), f.refused)
	missing := 0
	for key, sum := range f.acked {
		resp, err := cl.Get(testContext(f.t), key)
		if err != nil {
			f.t.Fatal(err)
		}
		if len(resp.Kvs) != 1 || sha256.Sum256(resp.Kvs[0].Value) != sum {
			if missing++; missing > 5 {
				break
			}
			f.t.Errorf("%s was acknowledged, but it is missing or has another value", key)
		}
	}
}

// full waits until writes are refused for lack of space, and none succeeds for a while.
func (f *flood) full() {
	f.t.Helper()
	_, before := f.counts()
	f.eventually("the writers have filled the disk", func() bool { _, now := f.counts(); return now >= before+20 })
}

// eventually shows the errors of the clients if the condition does not become true.
func (f *flood) eventually(what string, ok func() bool) {
	f.t.Helper()
	acked, refused := f.counts()
	defer func() {
		f.mu.Lock()
		defer f.mu.Unlock()
		if f.t.Failed() {
			f.t.Logf("since then %d writes were acknowledged, %d refused for lack of space; other answers of the whole test: %v", len(f.acked)-acked, f.refused-refused, f.others)
		}
	}()
	eventually(f.t, what, ok)
}

func (f *flood) flows() {
	f.t.Helper()
	before, _ := f.counts()
	f.eventually("writes are acknowledged again", func() bool { now, _ := f.counts(); return now >= before+20 })
}

// lacksOfSpace describes the deaths that the test did not cause.
func lacksOfSpace(tr *tree.Tree, killed map[int]bool) string {
	var b strings.Builder
	for _, d := range tr.Deaths {
		if !killed[d.PID] {
			fmt.Fprintf(&b, "%s (pid %d): %s; ", d.Address, d.PID, d.Reason)
		}
	}
	return b.String()
}

// TestWritersFillTheDisk: clients write as fast as they can until the disk is full, again and
// again, and leaders are killed meanwhile. No process dies for lack of space, no acknowledged
// write is lost, and writes succeed again when there is room.
func TestWritersFillTheDisk(t *testing.T) {
	const step, least = 90 << 20, 170 << 20
	usual := 3
	if testing.Short() {
		usual = 2
	}
	n := rounds(usual)
	// At the end there is room for complete copies next to old ones.
	room := least + int64(n)*step
	for name, mount := range map[string]func(*testing.T, int64) *disk{"tmpfs": mountTmpfs, "ext4": mountExt4} {
		t.Run(name, func(t *testing.T) {
			seed, rng := seeded(t)
			d := mount(t, least+int64(n)*step+room)
			d.fill(least)
			c := start(t, withTimeout("4s"), withDataDir(filepath.Join(d.path, "data")), withExtra(fmt.Sprintf("store { disk_reserve = \"%dB\" }", reserveBytes)))
			f := pour(t, c, seed, 8)
			killed := map[int]bool{}
			for round := range n {
				f.full()
				if tr := c.tree(); round > 0 && tr != nil {
					victims := []tree.Member{leaderOf(tr)}
					if fs := followersOf(tr); rng.IntN(2) == 0 && len(fs) > 0 {
						victims = append(victims, fs[rng.IntN(len(fs))])
					}
					for _, v := range victims {
						t.Logf("round %d: %s %s (pid %d) is killed, %d bytes are free", round, v.Role, v.Address, v.PID, d.free())
						killed[v.PID] = true
						c.signal(v, syscall.SIGKILL)
					}
				}
				d.shrink(step)
				f.flows()
				tr := c.wait("a member leads", func(t *tree.Tree) bool { return !killed[leaderOf(t).PID] })
				if s := lacksOfSpace(tr, killed); s != "" {
					t.Errorf("round %d: processes died that the test did not kill: %s", round, s)
				}
			}
			f.full()
			d.shrink(1 << 40)
			f.stop()
			tr := c.full()
			if s := lacksOfSpace(tr, killed); s != "" {
				t.Errorf("processes died that the test did not kill: %s", s)
			}
			f.check(c.dial())
			for _, bad := range []string{"panic:", "goroutine ", "may be lost"} {
				if log := c.logText(); bytes.Contains([]byte(log), []byte(bad)) {
					t.Errorf("the log contains %q", bad)
				}
			}
		})
	}
}
