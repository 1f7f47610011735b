package replica

import (
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/memlimit"
	"github.com/dynast-io/dynast/worker/state/statetest"
)

func TestShareOfMemory(t *testing.T) {
	for _, c := range []struct {
		limit   uint64
		members int
		want    int64
	}{{300 << 20, 3, 70 << 20}, {1 << 30, 1, 7 << 30 / 10}, {64 << 20, 3, minHeapBytes}} {
		if got := shareOf(c.limit, c.members); got < c.want-c.want/100 || got > c.want+c.want/100 {
			t.Errorf("%+v: %d", c, got)
		}
	}
	m := &Memory{}
	m.share.Store(64 << 20)
	if got := m.bound(64<<20, 4); got != 16<<20 {
		t.Errorf("bound to %d", got)
	}
	if got := (&Memory{}).bound(64<<20, 4); got != 64<<20 {
		t.Errorf("without a limit bound to %d", got)
	}
}

// Writes are refused while memory is nearly used up, and accepted again when it is free. Deletes
// are always accepted.
func TestTightMemoryRefusesWrites(t *testing.T) {
	g := &memlimit.Group{Path: t.TempDir(), LimitBytes: 1000}
	use := func(text string) {
		if err := os.WriteFile(filepath.Join(g.Path, "memory.stat"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	sh, _ := statetest.New(t, &config.Config{}, false)
	space := &Space{Shared: sh, memory: &Memory{group: memlimit.At(g.Path, g.LimitBytes)}}
	put := &pb.InternalRaftRequest{Put: &pb.PutRequest{}}
	for _, c := range []struct {
		stat  string
		tight bool
	}{{"anon 800\nshmem 0\n", false}, {"anon 850\nshmem 60\n", true}, {"anon 850\nshmem 0\n", true}, {"nothing", true}, {"anon 700\nshmem 0\n", false}} {
		use(c.stat)
		space.Look()
		err := space.guard(put)
		if (err != nil) != c.tight || c.tight && !strings.Contains(err.Error(), "memory limit") {
			t.Errorf("%q: %v", c.stat, err)
		}
		if err := space.guard(&pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{}}); err != nil {
			t.Errorf("a delete with %q: %v", c.stat, err)
		}
	}
}

func TestFollowersAreKilledFirst(t *testing.T) {
	read := func() string {
		raw, err := os.ReadFile(oomFile)
		if err != nil {
			t.Skip(err)
		}
		return strings.TrimSpace(string(raw))
	}
	before := read()
	if err := PreferForOOM(true); err != nil {
		t.Fatal(err)
	}
	raised := read()
	if err := PreferForOOM(false); err != nil {
		t.Fatal(err)
	}
	if raised == before || read() != before {
		t.Errorf("%s, raised to %s, and back to %s", before, raised, read())
	}
}
