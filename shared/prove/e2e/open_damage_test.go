package e2e

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"strings"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"

	"github.com/dynast-io/dynast/shared/observe/tree"
)

// TestDatabaseDamagedWhileItIsOpen overwrites or truncates the database of a follower, and of the
// leader, while the process has it open. The process exits with the reason and the right exit
// code, and gets a new copy.
func TestDatabaseDamagedWhileItIsOpen(t *testing.T) {
	_, rng := seeded(t)
	c := start(t, withExtra(`store { commit_interval = "20ms" }`))
	cl, all := c.dial(), stored{}
	fill := strings.Repeat("x", 4000)
	for i := range 200 {
		put(t, cl, fmt.Sprintf("fill/%03d", i), fill)
	}
	all.write(t, cl, "first", 30)
	for round, role := range []string{"follower", "leader", "follower", "leader"} {
		cutOff := round >= 2
		before := c.full()
		victim := leaderOf(before)
		if role == "follower" {
			victim = followersOf(before)[0]
		}
		path := database(c.openDir().Slot(victim.Slot))
		eventually(t, "the file has grown", func() bool { st, err := os.Stat(path); return err == nil && st.Size() > 500<<10 })
		logged := len(c.logText())
		// Use one descriptor, because the process that has the file open may exit meanwhile, and
		// the file may be replaced.
		file, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		damage := func() { noise(t, rng, file) }
		if cutOff {
			damage = func() {
				if err := file.Truncate(2 * 4096); err != nil {
					t.Fatal(err)
				}
			}
		}
		// At some point the process reads a damaged page. A commit that was in progress may have
		// repaired the few pages that a follower reads. So the damage is repeated each time.
		eventually(t, fmt.Sprintf("the %s with the damaged file ends", role), func() bool {
			ctx, done := context.WithTimeout(context.Background(), 2*time.Second)
			defer done()
			damage()
			if _, err := cl.Put(ctx, fmt.Sprint("round/", round), fill); err == nil {
				_, _ = cl.Get(ctx, "fill/", clientv3.WithPrefix())
			}
			return c.gone(victim)
		})
		file.Close()
		c.wait("the process is replaced", func(t *tree.Tree) bool {
			_, there := findPID(t, victim.PID)
			return !there && count(t, "in_sync") == 2 && !t.Degraded
		})
		news := c.logText()[logged:]
		if !strings.Contains(news, "exit_code=6") || !strings.Contains(news, "database is corrupt") {
			t.Errorf("round %d, %s: the log does not say why the process ended:\n%s", round, role, tail(news, 3000))
		}
		for _, bad := range []string{"\ngoroutine ", "unexpected fault", "may be lost"} {
			if strings.Contains(news, bad) {
				t.Errorf("round %d, %s: the log contains %q:\n%s", round, role, bad, tail(news, 6000))
			}
		}
		cl = c.dial()
		all.check(t, cl)
		all.write(t, cl, fmt.Sprint("round", round), 5)
	}
	all.check(t, cl)
}

// noise overwrites a database except for its first two pages.
func noise(t *testing.T, rng *rand.Rand, f *os.File) {
	t.Helper()
	st, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	page := make([]byte, 4096)
	for at := int64(2 * len(page)); at < st.Size(); at += int64(len(page)) {
		for i := range page {
			page[i] = byte(rng.Uint32())
		}
		if _, err := f.WriteAt(page, at); err != nil {
			t.Fatal(err)
		}
	}
}

func findPID(t *tree.Tree, pid int) (tree.Member, bool) {
	for _, m := range t.Members {
		if m.PID == pid {
			return m, true
		}
	}
	return tree.Member{}, false
}
