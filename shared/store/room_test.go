package store

import (
	"fmt"
	"strings"
	"syscall"
	"testing"
)

func allocatedBytes(t *testing.T, dir string) int64 {
	t.Helper()
	var st syscall.Stat_t
	if err := syscall.Stat(Path(dir), &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks * 512
}

// TestRoomIsAllocatedAhead: whatever is applied, the file has blocks for the
// next commit and some to spare.
func TestRoomIsAllocatedAhead(t *testing.T) {
	dir := t.TempDir()
	s := open(t, dir)
	for i := range 30 {
		feed(t, s, 1, put(t, fmt.Sprint(i), strings.Repeat("x", 300_000)))
		if s.room.off {
			t.Skip("this file system cannot allocate ahead")
		}
		want := s.Size() + 2*int64(s.uncommittedBytes.Load()) + spareRoomBytes
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
	s.Commit()
	feed(t, s, 1, put(t, "last", "x"))
	if n := s.uncommittedBytes.Load(); n > 1000 {
		t.Errorf("%d bytes count as not committed", s.uncommittedBytes.Load())
	}
}
