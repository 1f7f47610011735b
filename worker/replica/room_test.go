package replica

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/config"
	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/worker/state/statetest"
)

// opened returns a member with an open log and store, but without running goroutines.
func opened(t *testing.T) (*Replica, *statetest.Loop) {
	t.Helper()
	dir := t.TempDir()
	log, err := replog.Create(replog.Options{Dir: filepath.Join(dir, "log"), TailBytes: followerTailBytes}, entry.Position{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = log.Close() })
	st, err := store.Open(store.Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = st.Close() })
	sh, loop := statetest.New(t, &config.Config{}, false)
	r := assemble(sh, &holder{Shared: sh, zap: zap.NewNop(), memory: &Memory{}, cur: Copy{Log: log, Store: st}}, &Memory{})
	r.Connect(linked{})
	return r, loop
}

// Entries that are appended and not applied yet stay in memory for the applier, however many they
// are. A follower accepts only a bounded amount of them.
func TestUnappliedEntriesStayInMemory(t *testing.T) {
	r, _ := opened(t)
	log := r.Current().Log
	next := uint64(1)
	offer := func() {
		e := entry.Entry{Index: next, Epoch: 1, Data: make([]byte, 1<<20)}
		r.Append([]entry.Entry{e})
		r.writer.next()()
		next = log.Last().Index + 1
	}
	for range 2 * maxUnappliedBytes >> 20 {
		offer()
	}
	if n := log.MemoryBytes(); n < followerTailBytes || n > maxUnappliedBytes+2<<20 {
		t.Fatalf("%d bytes wait to be applied, at most about %d may", n, maxUnappliedBytes)
	}
	if !r.writer.dropping || !r.writer.noRoomLogged {
		t.Error("the follower accepted too many entries")
	}
	if es, err := log.Entries(1, 1, 1); err != nil || len(es) != 1 {
		t.Fatalf("the first entry, which is not applied: %v, %v", es, err)
	}
	log.Applied(log.Last().Index)
	if n := log.MemoryBytes(); n > followerTailBytes {
		t.Errorf("%d bytes are in memory although all entries are applied", n)
	}
	r.writer.dropping = false
	last := log.Last().Index
	if offer(); log.Last().Index != last+1 {
		t.Error("no entries are accepted after there is room again")
	}
}

// While a snapshot waits for its turn, another one can arrive, or this member can begin to take
// over. Then its file is removed and nothing is replaced.
func TestSupersededSnapshotIsRemoved(t *testing.T) {
	r, loop := opened(t)
	path := filepath.Join(t.TempDir(), "received-1.db")
	if err := os.WriteFile(path, []byte("no database at all"), 0o600); err != nil {
		t.Fatal(err)
	}
	turn := r.installs.Add(1)
	r.Supersede()
	r.installNow(entry.Position{Epoch: 1, Index: 5}, path, turn)
	if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("its file still exists: %v", err)
	}
	if got := r.Current().Store.Applied(); !got.IsZero() {
		t.Errorf("the copy is at %s", got)
	}
	for _, ev := range loop.Take() {
		if _, ok := ev.(core.Installed); ok {
			t.Error("the snapshot is reported as installed")
		}
	}
}
