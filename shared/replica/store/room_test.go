package store

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/backend"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/prove/testkit"
)

func allocatedBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(Path(dir), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// TestRoomIsAllocatedAhead: whatever is applied, the file has disk blocks for the next commit
// and some more.
func TestRoomIsAllocatedAhead(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	const entryBytes = 300_000
	for i := range 30 {
		feed(t, s, 1, put(t, fmt.Sprint(i), strings.Repeat("x", entryBytes)))
		if s.room.off {
			t.Skip("this file system cannot allocate ahead")
		}
		// A commit during the last entry may have written it, and it counts twice until the next.
		s.settle()
		want := s.Size() + 2*(s.uncommittedBytes.Load()-entryBytes) + spareRoomBytes
		if got := allocatedBytes(t, dir); got < want {
			t.Fatalf("after %d entries %d bytes are allocated, want %d", i+1, got, want)
		}
		if i%7 == 0 {
			s.Commit()
		}
		if i == 15 {
			if err := s.Defrag(); err != nil {
				t.Fatal(err)
			}
		}
	}
	s.commit()
	feed(t, s, 1, put(t, "last", "x"))
	if n := s.uncommittedBytes.Load(); n > 1000 {
		t.Errorf("%d bytes count as not committed", n)
	}
}

// TestSpaceForOneEntryIsEnough: data that waits for its commit is counted twice. That must not
// hold up an entry that would fit after the commit, because nobody frees space while more than
// the reserve is free.
func TestSpaceForOneEntryIsEnough(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root, to mount a small file system")
	}
	const diskBytes, reserveBytes, entryBytes = 64 << 20, 8 << 20, 128 << 10
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, fmt.Sprintf("size=%d", diskBytes)); err != nil {
		t.Skipf("cannot mount a tmpfs here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	s := open(t, filepath.Join(dir, "db"))
	write := func(i int) { feed(t, s, 1, put(t, fmt.Sprint(i), strings.Repeat("x", entryBytes))) }
	write(0)
	free, err := proc.FreeBytes(dir)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(dir, "ballast"), make([]byte, free-reserveBytes), 0o600); err != nil {
		t.Fatal(err)
	}
	// Counted twice, about 60 of them would fit. After commits, more do. They are small, because
	// a commit writes the last one once more.
	for i := range 72 {
		write(i + 1)
	}
	if free, err = proc.FreeBytes(dir); err != nil || free > reserveBytes/2 {
		t.Errorf("%d bytes are free (error %v): there was room all the time, and nothing was tested", free, err)
	}
}

// While a commit is under way, the size of the file does not include what the commit writes.
func TestWhatACommitWritesCountsUntilItHasEnded(t *testing.T) {
	s := open(t, t.TempDir())
	feed(t, s, 1, put(t, "a", strings.Repeat("x", 100<<10)))
	s.Commit()
	feed(t, s, 2, put(t, "a", strings.Repeat("y", 100<<10)))
	before := s.Used()
	hook := commitHook{Hooks: backend.NewHooks(func(backend.UnsafeReadWriter) {}), s: s}
	tx := s.be.BatchTx()
	tx.LockOutsideApply()
	hook.OnPreCommitUnsafe(tx)
	if used := s.Used(); used < before {
		t.Errorf("%d bytes are used during the commit, and %d before it", used, before)
	}
	tx.Unlock()
	testkit.Eventually(t, "the written bytes no longer count as uncommitted", func() bool { return s.uncommittedBytes.Load() == 0 })
}
