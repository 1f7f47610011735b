package e2e

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"fmt"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/prove/chaos"
)

// damages are the kinds of damage of package chaos.
var damages = chaos.Damages

// damage applies one kind of damage to a slot.
func damage(t *testing.T, d chaos.Damage, rng *rand.Rand, s datadir.Slot) {
	t.Helper()
	if err := d.Do(rng, s); err != nil {
		t.Fatalf("%s in slot %d: %v", d.Name, s.Number, err)
	}
}

func database(s datadir.Slot) string { return filepath.Join(s.DBDir(), "db") }

func segments(t *testing.T, s datadir.Slot) []string {
	t.Helper()
	found, err := chaos.Segments(s)
	if err != nil {
		t.Fatal(err)
	}
	return found
}

func scribble(t *testing.T, rng *rand.Rand, paths ...string) {
	t.Helper()
	for _, p := range paths {
		if err := chaos.Scribble(rng, p, 0); err != nil {
			t.Fatal(err)
		}
	}
}

func removeAll(t *testing.T, path string) {
	t.Helper()
	if err := os.RemoveAll(path); err != nil {
		t.Fatal(err)
	}
}

func (c *cluster) openDir() *datadir.Dir {
	c.t.Helper()
	d, err := datadir.OpenForReading(c.dir)
	if err != nil {
		c.t.Fatal(err)
	}
	return d
}

// killAll kills all processes at once, and returns the tree before that.
func (c *cluster) killAll() *tree.Tree {
	c.t.Helper()
	tr := c.full()
	for _, m := range tr.Members {
		c.signal(m, syscall.SIGKILL)
	}
	c.awaitGone(tr)
	return tr
}

// promote kills leaders until the process of the given slot leads.
func (c *cluster) promote(slot int) {
	c.t.Helper()
	for {
		tr := c.full()
		if leaderOf(tr).Slot == slot {
			return
		}
		c.signal(leaderOf(tr), syscall.SIGKILL)
		c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != tr.Leader })
	}
}

// stored holds what a test wrote.
type stored map[string]string

func (s stored) write(t *testing.T, cl *clientv3.Client, prefix string, n int) {
	t.Helper()
	for i := range n {
		k, v := fmt.Sprintf("stored/%s/%03d", prefix, i), fmt.Sprintf("%s-%d", prefix, i)
		// It tries again, because the test may be about to kill the leader.
		eventually(t, "an acknowledged write", func() bool {
			ctx, done := context.WithTimeout(context.Background(), patience)
			defer done()
			_, err := cl.Put(ctx, k, v)
			return err == nil
		})
		s[k] = v
	}
}

func (s stored) check(t *testing.T, cl *clientv3.Client) {
	t.Helper()
	resp, err := cl.Get(testContext(t), "stored/", clientv3.WithPrefix())
	if err != nil {
		t.Fatal(err)
	}
	there := stored{}
	for _, kv := range resp.Kvs {
		there[string(kv.Key)] = string(kv.Value)
	}
	for k, v := range s {
		if there[k] != v {
			t.Fatalf("%s = %s was acknowledged, but the store has %q; %d of %d keys are there", k, v, there[k], len(there), len(s))
		}
	}
}

// TestDamagedFollowersAreRebuilt damages the slots of followers while all processes are dead, and
// while the process of a slot is being replaced.
func TestDamagedFollowersAreRebuilt(t *testing.T) {
	_, rng := seeded(t)
	c := start(t)
	cl, all := c.dial(), stored{}
	all.write(t, cl, "first", 20)
	for i := range rounds(4) {
		tr := c.killAll()
		var slots []int
		for _, f := range followersOf(tr) {
			d := damages[rng.IntN(len(damages))]
			t.Logf("slot %d: %s, while all processes are dead", f.Slot, d.Name)
			damage(t, d, rng, c.openDir().Slot(f.Slot))
			slots = append(slots, f.Slot)
		}
		c.up()
		c.full()
		cl = c.dial() // the old client pauses because no leader answered
		all.write(t, cl, fmt.Sprint("cold", i), 5)
		c.promote(slots[0])
		all.check(t, cl)
	}
	for i := range rounds(8) {
		tr, d := c.full(), damages[rng.IntN(len(damages))]
		victim := followersOf(tr)[i%2]
		t.Logf("slot %d: %s, while its process is replaced", victim.Slot, d.Name)
		c.signal(victim, syscall.SIGSTOP) // from here on the process changes no file
		damage(t, d, rng, c.openDir().Slot(victim.Slot))
		c.signal(victim, syscall.SIGKILL)
		c.wait("a process of that slot is in sync", func(t *tree.Tree) bool {
			for _, m := range t.Members {
				if m.Slot == victim.Slot && m.PID != victim.PID {
					return m.State == "in_sync"
				}
			}
			return false
		})
		all.write(t, cl, fmt.Sprint("live", i), 5)
		if i%2 == 0 {
			c.promote(victim.Slot)
		}
		all.check(t, cl)
	}
}

// TestLeadersSlotDamagedBeforeAColdStart damages the slot that succession.json names. The cluster
// starts with what is left of this slot and of the other slots.
func TestLeadersSlotDamagedBeforeAColdStart(t *testing.T) {
	_, rng := seeded(t)
	c := start(t)
	cl, all := c.dial(), stored{}
	all.write(t, cl, "first", 20)
	for i, d := range damages {
		tr := c.killAll()
		slot := leaderOf(tr).Slot
		t.Logf("slot %d, which succession.json names: %s", slot, d.Name)
		damage(t, d, rng, c.openDir().Slot(slot))
		logged := len(c.logText())
		c.up()
		c.full()
		cl = c.dial()
		all.check(t, cl)
		// Only entries that were in no database can be lost. A log that was cut looks complete,
		// and continues with the entries of another slot.
		news := c.logText()[logged:]
		loud := strings.Contains(news, "[ERROR] worker: acknowledged writes may be lost")
		went := strings.Contains(news, "extended the own log with entries from another slot")
		want := strings.Contains(d.Name, "log") || d.Name == "slot deleted"
		if loud != want && !(d.Name == "log cut" && went) {
			t.Errorf("%s: a loss is reported: %t, want %t:\n%s", d.Name, loud, want, news)
		}
		all.write(t, cl, fmt.Sprint("after", i), 5)
	}
}

// TestLeadersDatabaseLostAfterCompaction deletes the database of the slot that succession.json
// names, when the log alone no longer has all data.
func TestLeadersDatabaseLostAfterCompaction(t *testing.T) {
	c := start(t)
	cl, all := c.dial(), stored{}
	all.write(t, cl, "first", 5)
	big := strings.Repeat("x", 1<<20)
	for i := range 24 {
		put(t, cl, fmt.Sprint("big/", i%4), big)
	}
	all.write(t, cl, "last", 5)
	first := func(slot int) string { return filepath.Base(segments(t, c.openDir().Slot(slot))[0]) }
	tr := c.full()
	eventually(t, "the log begins later", func() bool { return !strings.HasPrefix(first(leaderOf(tr).Slot), "0000000000000000-") })
	tr = c.killAll()
	removeAll(t, database(c.openDir().Slot(leaderOf(tr).Slot)))
	c.up()
	c.full()
	all.check(t, c.dial())
}

// TestSuccessionFileDamaged damages succession.json while all processes are dead, and while all
// are alive.
func TestSuccessionFileDamaged(t *testing.T) {
	_, rng := seeded(t)
	c := start(t)
	cl, all := c.dial(), stored{}
	path := filepath.Join(c.dir, "succession.json")
	for name, do := range map[string]func(){
		"deleted":     func() { removeAll(t, path) },
		"overwritten": func() { scribble(t, rng, path) },
		"empty":       func() { write0(t, path) },
	} {
		for _, alive := range []bool{false, true} {
			t.Logf("%s, alive: %t", name, alive)
			all.write(t, cl, fmt.Sprint(name, alive), 10)
			logged := len(c.logText())
			if alive {
				tr := c.full()
				do()
				c.signal(leaderOf(tr), syscall.SIGKILL)
				c.wait("another member leads", func(t *tree.Tree) bool { return t.Leader != tr.Leader })
			} else {
				c.killAll()
				do()
				c.up()
				cl = c.dial()
			}
			c.full()
			all.check(t, cl)
			if news := c.logText()[logged:]; !strings.Contains(news, "[ERROR] worker: acknowledged writes may be lost") || !strings.Contains(news, "succession.json") {
				t.Errorf("%s: the log does not report the damage:\n%s", name, news)
			}
		}
	}
}

func write0(t *testing.T, path string) {
	t.Helper()
	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
}

// TestWithoutAUsableSlotNothingIsChanged: without a usable slot the cluster does not start. It
// prints the reason, and leaves the files unchanged so that an operator can save them.
func TestWithoutAUsableSlotNothingIsChanged(t *testing.T) {
	_, rng := seeded(t)
	c := start(t)
	cl, all := c.dial(), stored{}
	all.write(t, cl, "first", 10)
	tr := c.killAll()
	saved := t.TempDir()
	good := c.openDir().Slot(followersOf(tr)[0].Slot)
	if err := os.CopyFS(saved, os.DirFS(good.Path())); err != nil {
		t.Fatal(err)
	}
	for i, m := range tr.Members {
		slot := c.openDir().Slot(m.Slot)
		scribble(t, rng, segments(t, slot)...)
		if i != 1 {
			scribble(t, rng, database(slot))
		}
	}
	before := checksums(t, c.dir)
	code, out := c.run("up", "--config", c.config)
	if code != 6 {
		t.Errorf("up without a usable slot: exit code %d, want 6", code)
	}
	for _, m := range tr.Members {
		if !strings.Contains(out, fmt.Sprintf("slot %d", m.Slot)) {
			t.Errorf("the output does not name slot %d:\n%s", m.Slot, out)
		}
	}
	t.Logf("the output of up:\n%s", out)
	logs := filepath.Join(c.dir, "logs")
	for path, sum := range checksums(t, c.dir) {
		if before[path] != sum && filepath.Dir(path) != logs { // the log says what went wrong
			t.Errorf("%s was changed", path)
		}
		delete(before, path)
	}
	for path := range before {
		t.Errorf("%s was removed", path)
	}
	// With one good slot back, the cluster starts.
	removeAll(t, good.Path())
	if err := os.CopyFS(good.Path(), os.DirFS(saved)); err != nil {
		t.Fatal(err)
	}
	c.up()
	c.full()
	all.check(t, c.dial())
}

// checksums returns the checksums of all files with data. (The history of events is not among
// them, because each start adds an entry.)
func checksums(t *testing.T, dir string) map[string][32]byte {
	t.Helper()
	sums := map[string][32]byte{}
	err := filepath.WalkDir(dir, func(path string, e fs.DirEntry, err error) error {
		if err != nil || !e.Type().IsRegular() || strings.HasSuffix(path, ".lock") || e.Name() == "runtime.json" ||
			e.Name() == "events.jsonl" || e.Name() == "totals.json" {
			return err
		}
		raw, err := os.ReadFile(path)
		sums[path] = sha256.Sum256(raw)
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	return sums
}

// run runs the program to its end, and returns its exit code and all its output.
func (c *cluster) run(args ...string) (code int, out string) {
	c.t.Helper()
	cmd := c.command(args...)
	var b bytes.Buffer
	cmd.Stdout, cmd.Stderr = &b, &b
	if err := cmd.Start(); err != nil {
		c.t.Fatal(err)
	}
	if id, err := proc.Identify(cmd.Process.Pid); err == nil {
		c.note(id)
	}
	err := cmd.Wait()
	if exit := (*os.SyscallError)(nil); errors.As(err, &exit) {
		c.t.Fatal(err)
	}
	return cmd.ProcessState.ExitCode(), b.String()
}
