package log

import (
	"errors"
	"fmt"
	"testing"

	"golang.org/x/sys/unix"
)

// fill makes the disk look full, until the function that it returns is called.
func fill(t *testing.T) (makeRoom func()) {
	t.Helper()
	realAllocate, realStat := fallocate, statfs
	fallocate = func(int, uint32, int64, int64) error { return unix.ENOSPC }
	statfs = func(string, *unix.Statfs_t) error { return nil } // zeros
	makeRoom = func() { fallocate, statfs = realAllocate, realStat }
	t.Cleanup(makeRoom)
	return makeRoom
}

// TestNoRoomChangesNothing: what has its place on the disk is appended, the rest
// is refused as a whole, and goes in when there is room.
func TestNoRoomChangesNothing(t *testing.T) {
	o := testOptions(t)
	l := mustCreate(t, o, Position{})
	makeRoom := fill(t)
	var refused error
	for i := uint64(1); refused == nil && i < 1000; i++ {
		e := testEntry(1, i)
		e.Data = make([]byte, o.SegmentBytes/20)
		last := l.Last()
		refused = l.Append([]Entry{e})
		if refused != nil && l.Last() != last {
			t.Errorf("refused, and the log ends at %s after %s", l.Last(), last)
		}
	}
	if !errors.Is(refused, ErrNoRoom) || !errors.Is(refused, unix.ENOSPC) || errors.Is(refused, ErrFailed) {
		t.Fatalf("on a full disk: %v", refused)
	}
	last := l.Last()
	if last.Index < 10 {
		t.Errorf("refused after %s already: the segment had room for more", last)
	}
	if got, err := l.Sync(); err != nil || got != last {
		t.Errorf("sync: %s, %v", got, err)
	}
	makeRoom()
	// Entries longer than what a segment has left, several times over.
	for i := range uint64(30) {
		e := testEntry(2, last.Index+1+i)
		e.Data = fmt.Append(make([]byte, o.SegmentBytes/2), i)
		mustAppend(t, l, []Entry{e})
	}
	want := l.Last()
	l = reopen(t, l, 0)
	if l.Last() != want {
		t.Errorf("reopened at %s, want %s", l.Last(), want)
	}
}

// TestCompactionWithoutRoomIsLeftForLater.
func TestCompactionWithoutRoomIsLeftForLater(t *testing.T) {
	o := testOptions(t)
	l := mustCreate(t, o, Position{})
	for i := range uint64(40) {
		e := testEntry(1, i+1)
		e.Data = make([]byte, o.SegmentBytes/10)
		mustAppend(t, l, []Entry{e})
	}
	if _, err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	l.allocated = 0 // as if nothing were
	makeRoom := fill(t)
	durable := Position{Epoch: 1, Index: 35}
	if err := l.Compact(30, durable); !errors.Is(err, ErrNoRoom) {
		t.Fatalf("compact on a full disk: %v", err)
	}
	makeRoom()
	mustCompact(t, l, 30, durable)
	mustAppend(t, l, []Entry{testEntry(1, 41)})
	if l = reopen(t, l, 35); l.Last().Index != 41 {
		t.Errorf("reopened at %s", l.Last())
	}
}

// TestASpentWalIsRenewed: one that can begin no new segment is opened anew
// when the next one is due, and nobody notices.
func TestASpentWalIsRenewed(t *testing.T) {
	o := testOptions(t)
	l := mustCreate(t, o, Position{})
	l.o.Logger.Error(preallocationFailed)
	if !l.spent.Load() {
		t.Fatal("what the wal logs is not seen")
	}
	var want []Entry
	for i := range uint64(60) {
		if i%20 == 10 {
			l.spent.Store(true)
		}
		e := testEntry(1, i+1)
		e.Data = fmt.Append(make([]byte, o.SegmentBytes/10), i)
		want = append(want, e)
		mustAppend(t, l, []Entry{e})
	}
	if l.spent.Load() {
		t.Error("it was never renewed")
	}
	if _, err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	sameEntries(t, all(t, l), want)
	sameEntries(t, all(t, reopen(t, l, 0)), want)
	read, last, err := Read(o.Dir, Position{}, o)
	if err != nil || last.Index != 60 {
		t.Fatalf("read: %s, %v", last, err)
	}
	sameEntries(t, read, want)
}
