package e2e

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynast-io/dynast/shared/observe/tree"
)

// memoryGroup creates a control group with a memory limit and returns its directory.
func memoryGroup(t *testing.T, bytes int64) string {
	t.Helper()
	name := fmt.Sprintf("dynast-e2e-%d-%d", os.Getpid(), rand.Uint32())
	for _, v := range []struct{ parent, limit string }{
		{"/sys/fs/cgroup/memory", "memory.limit_in_bytes"}, // version 1
		{"/sys/fs/cgroup", "memory.max"},
	} {
		dir := filepath.Join(v.parent, name)
		if os.Mkdir(dir, 0o755) != nil {
			continue
		}
		t.Cleanup(func() {
			eventually(t, "the control group is empty", func() bool {
				err := os.Remove(dir)
				return err == nil || errors.Is(err, os.ErrNotExist)
			})
		})
		if os.WriteFile(filepath.Join(dir, v.limit), []byte(strconv.FormatInt(bytes, 10)), 0) == nil {
			return dir
		}
	}
	t.Skip("needs root, and a memory controller of control groups")
	return ""
}

// upIn starts a leader in a control group.
func (c *cluster) upIn(group string) {
	c.t.Helper()
	shell, err := exec.LookPath("sh")
	if err != nil {
		c.t.Skip("needs sh(1)")
	}
	cmd := exec.Command(shell, "-c", `echo $$ > "$1" && shift && exec "$@"`, "sh", filepath.Join(group, "cgroup.procs"), binary, "up", "--config", c.config)
	cmd.Stderr = c.logs
	c.launch(cmd)
}

// oomKills returns how many processes of a control group the kernel has killed.
func oomKills(t *testing.T, group string) int {
	for _, name := range []string{"memory.oom_control", "memory.events"} {
		raw, err := os.ReadFile(filepath.Join(group, name))
		if err != nil {
			continue
		}
		for line := range strings.Lines(string(raw)) {
			if f := strings.Fields(line); len(f) == 2 && f[0] == "oom_kill" {
				n, err := strconv.Atoi(f[1])
				if err != nil {
					t.Fatal(err)
				}
				return n
			}
		}
	}
	return 0
}

// TestMemoryLimit runs a cluster with the memory of a small container, in which 32 clients write
// values of 8 KiB. DYNAST_E2E_MEMORY sets the duration.
func TestMemoryLimit(t *testing.T) { underMemoryLimit(t, 260<<20) }

// TestMemoryLimitTooSmall: with so little memory, some writes must be refused.
func TestMemoryLimitTooSmall(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector alone needs more memory than this")
	}
	if os.Getenv("DYNAST_E2E_MEMORY") == "" {
		t.Skip("with 62 MiB, the kernel can end all three members at once, about once in twenty runs; set DYNAST_E2E_MEMORY=15s to run it")
	}
	if refused := underMemoryLimit(t, 62<<20); refused == 0 {
		t.Error("no write was refused")
	}
}

// underMemoryLimit lets clients write into a cluster with a memory limit. Writes may be refused
// and members may be killed. But reads continue, no acknowledged write is lost, and afterwards
// writes succeed again. It returns the number of refused writes.
func underMemoryLimit(t *testing.T, limit int64) int64 {
	t.Helper()
	period := 15 * time.Second
	if raceEnabled {
		limit *= 4 // for the race detector's own memory
	}
	if testing.Short() {
		period = 5 * time.Second
	}
	if d := os.Getenv("DYNAST_E2E_MEMORY"); d != "" {
		var err error
		if period, err = time.ParseDuration(d); err != nil {
			t.Fatal(err)
		}
	}
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	group := memoryGroup(t, limit)
	c := newCluster(t, withExtra(`store { quota = "8GiB" }`))
	c.upIn(group)
	before := c.full()
	if n, m := oomScore(t, leaderOf(before).PID), oomScore(t, followersOf(before)[0].PID); m <= n {
		t.Errorf("the kernel would not kill a follower (OOM score %d) before the leader (OOM score %d)", m, n)
	}
	ctx, cancel := context.WithTimeout(t.Context(), period)
	defer cancel()
	const writers = 32
	load := make([]*largeWriter, writers)
	var wg sync.WaitGroup
	for w := range load {
		load[w] = &largeWriter{prefix: fmt.Sprintf("memory/%d/", w), rng: rand.New(rand.NewPCG(seed, uint64(w))),
			last: map[string]string{}, unsure: map[string]bool{}}
		cl := c.dial()
		wg.Go(func() { load[w].run(ctx, cl) })
	}
	wg.Go(func() { compactOften(ctx, c.dial()) })
	var longest time.Duration
	wg.Go(func() { longest = longestOutage(c, func() bool { return ctx.Err() != nil }) })
	wg.Wait()
	var sum largeWriter
	for _, w := range load {
		sum.acknowledged += w.acknowledged
		sum.refused += w.refused
		sum.failed += w.failed
		sum.bytes += w.bytes
	}
	t.Logf("%d writes acknowledged (%.1f times the limit), %d refused, %d failed otherwise; %d OOM kills; longest time without an answer %s",
		sum.acknowledged, float64(sum.bytes)/float64(limit), sum.refused, sum.failed, oomKills(t, group), longest.Round(time.Millisecond))
	if longest > 5*time.Second {
		t.Errorf("clients got no answer for %s", longest)
	}
	if sum.acknowledged == 0 {
		t.Error("no write was acknowledged")
	}
	c.full()
	cl := c.dial()
	eventually(t, "writes are accepted again", func() bool {
		one, cancel := context.WithTimeout(testContext(t), time.Second)
		defer cancel()
		_, err := cl.Put(one, "memory/after", "x")
		return err == nil
	})
	for _, w := range load {
		w.check(t, cl)
	}
	eventually(t, "no alarm is left", func() bool {
		resp, err := cl.AlarmList(testContext(t))
		return err == nil && len(resp.Alarms) == 0
	})
	t.Logf("resident memory of the members: %v", rssOf(c.full()))
	return sum.refused
}

// largeWriter puts values of 8 KiB, and records what must be there afterwards.
type largeWriter struct {
	prefix string
	rng    *rand.Rand
	last   map[string]string // by key: the last acknowledged value
	unsure map[string]bool   // keys with a write whose outcome is unknown

	acknowledged, refused, failed, bytes int64
}

func (w *largeWriter) run(ctx context.Context, cl *clientv3.Client) {
	const keys = 400
	value := strings.Repeat("v", 8<<10)
	for n := 0; ctx.Err() == nil; n++ {
		key := w.prefix + strconv.Itoa(w.rng.IntN(keys))
		v := strconv.Itoa(n) + value
		_, err := cl.Put(ctx, key, v)
		switch {
		case err == nil:
			w.acknowledged++
			w.bytes += int64(len(v))
			w.last[key] = v
			delete(w.unsure, key)
		case status.Code(err) == codes.ResourceExhausted || strings.Contains(err.Error(), "space exceeded"):
			w.refused++
			time.Sleep(20 * time.Millisecond) // as a client would wait
		default:
			w.failed++
			w.unsure[key] = true
		}
	}
}

// check fails the test if an acknowledged write is missing.
func (w *largeWriter) check(t *testing.T, cl *clientv3.Client) {
	t.Helper()
	resp, err := cl.Get(testContext(t), w.prefix, clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	found := map[string]string{}
	for _, kv := range resp.Kvs {
		found[string(kv.Key)] = string(kv.Value)
	}
	for key, want := range w.last {
		if found[key] != want && !w.unsure[key] {
			t.Errorf("%s is %.8q, but %.8q was acknowledged last", key, found[key], want)
		}
	}
}

// compactOften compacts old revisions, as applications do.
func compactOften(ctx context.Context, cl *clientv3.Client) {
	for ctx.Err() == nil {
		if resp, err := cl.Get(ctx, "memory/"); err == nil {
			_, _ = cl.Compact(ctx, resp.Header.Revision)
		}
		select {
		case <-ctx.Done():
		case <-time.After(2 * time.Second):
		}
	}
}

func oomScore(t *testing.T, pid int) int {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/oom_score_adj", pid))
	if err != nil {
		t.Fatal(err)
	}
	n, err := strconv.Atoi(strings.TrimSpace(string(raw)))
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func rssOf(tr *tree.Tree) []string {
	var out []string
	for _, m := range tr.Members {
		out = append(out, fmt.Sprintf("%d MiB", m.RSSBytes>>20))
	}
	return out
}
