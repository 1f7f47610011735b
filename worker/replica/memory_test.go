package replica

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime/debug"
	"strings"
	"testing"
	"time"

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

// Clients can fill a small limit between two looks of housekeeping. So a write looks too, but not
// every write.
func TestWritesLookAtMemory(t *testing.T) {
	g := memlimit.At(t.TempDir(), 1000)
	before := debug.SetMemoryLimit(-1)
	t.Cleanup(func() { debug.SetMemoryLimit(before) })
	sh, _ := statetest.New(t, &config.Config{}, false)
	space := &Space{Shared: sh, memory: &Memory{group: g}}
	use := func(bytes int) {
		text := fmt.Sprintf("anon %d\nshmem 0\n", bytes)
		if err := os.WriteFile(filepath.Join(g.Path, "memory.stat"), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	put := &pb.InternalRaftRequest{Put: &pb.PutRequest{}}
	use(950)
	space.memory.looked.Store(time.Now().Add(time.Hour).UnixNano())
	if err := space.guard(put); err != nil {
		t.Errorf("a write looked although it was not due: %v", err)
	}
	space.memory.looked.Store(0)
	if err := space.guard(&pb.InternalRaftRequest{DeleteRange: &pb.DeleteRangeRequest{}}); err != nil || space.memory.tight.Load() {
		t.Errorf("a delete looked: %v", err)
	}
	if err := space.guard(put); !errors.Is(err, errNoMemory) {
		t.Errorf("a write with nearly no memory left: %v", err)
	}
	use(700)
	space.memory.looked.Store(0)
	if err := space.guard(put); err != nil {
		t.Errorf("a write after memory was freed: %v", err)
	}
	if (&Memory{}).due(time.Now()) {
		t.Error("a look is due without a limit")
	}
}

func TestLookEvery(t *testing.T) {
	for limit, want := range map[uint64]time.Duration{
		1000: minLookEvery, 64 << 20: 25 * time.Millisecond, 1 << 30: 400 * time.Millisecond,
	} {
		if got := lookEvery(limit); got != want {
			t.Errorf("with a limit of %d bytes every %s, want %s", limit, got, want)
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
