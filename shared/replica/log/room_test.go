package log

import (
	"bytes"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"reflect"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
)

// fill makes the disk look full until the returned function is called.
func fill(t *testing.T) (makeRoom func()) {
	t.Helper()
	realAllocate, realStat := fallocate, statfs
	fallocate = func(int, uint32, int64, int64) error { return unix.ENOSPC }
	statfs = func(string, *unix.Statfs_t) error { return nil } // zeros
	makeRoom = func() { fallocate, statfs = realAllocate, realStat }
	t.Cleanup(makeRoom)
	return makeRoom
}

// TestNoRoomChangesNothing: entries that have allocated space are appended. Others are refused
// as a whole, and accepted when there is space.
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
	// The entries are longer than the rest of the segment, several times.
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

// TestCompactionOnAFullDiskIsRetried.
func TestCompactionOnAFullDiskIsRetried(t *testing.T) {
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

// TestWALWithoutPreallocationIsRenewed: a wal that cannot begin another segment is opened anew
// when the next segment is due, without any visible effect.
func TestWALWithoutPreallocationIsRenewed(t *testing.T) {
	o := testOptions(t)
	l := mustCreate(t, o, Position{})
	l.o.Logger.Error(preallocationFailed)
	if !l.preallocFailed.Load() {
		t.Fatal("what the wal logs is not seen")
	}
	var want []Entry
	for i := range uint64(60) {
		if i%20 == 10 {
			l.preallocFailed.Store(true)
		}
		e := testEntry(1, i+1)
		e.Data = fmt.Append(make([]byte, o.SegmentBytes/10), i)
		want = append(want, e)
		mustAppend(t, l, []Entry{e})
	}
	if l.preallocFailed.Load() {
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

// stopping makes the wal find the disk full at a given write. By then it has written the first
// entries and a part of the next one.
func stopping(t *testing.T, at, whole int, part int64) {
	t.Helper()
	real := walSave
	t.Cleanup(func() { walSave = real })
	calls := 0
	walSave = func(w *wal.WAL, st *raftpb.HardState, es []*raftpb.Entry) error {
		if calls++; calls != at {
			return real(w, st, es)
		}
		if whole < len(es) {
			st, es = nil, es[:whole]
		}
		if len(es) > 0 {
			if err := real(w, st, es); err != nil {
				return err
			}
		}
		return errors.Join(tear(t, w, part), &os.PathError{Op: "write", Path: "segment", Err: unix.ENOSPC})
	}
}

// tear leaves the beginning of a record after what a wal has written.
func tear(t *testing.T, w *wal.WAL, n int64) error {
	if n == 0 {
		return nil
	}
	dir := reflect.ValueOf(w).Elem().FieldByName("dir").String()
	names, err := listSegments(dir)
	if err != nil {
		return err
	}
	path := filepath.Join(dir, names[len(names)-1].String())
	data, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	frames := frameOffsets(data)
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer f.Close()
	_, err = f.WriteAt(data[frames[1]:][:n], int64(frames[len(frames)-1])) // of another record: it does not fit here
	return err
}

// TestDiskFullDuringAWrite: at whichever byte the write stops, either the log is unchanged and
// accepts the same entries later, or all entries are in it and Append says so.
func TestDiskFullDuringAWrite(t *testing.T) {
	for _, replaces := range []bool{false, true} {
		for whole := range 6 {
			for _, part := range []int64{0, 3, 8, 20} {
				o := testOptions(t)
				l := mustCreate(t, o, Position{})
				mustAppend(t, l, testEntries(1, 1, 20))
				from := uint64(21)
				if replaces {
					from = 15
				}
				batch := testEntries(2, from, from+4)
				stopping(t, 1, whole, part)
				before := l.Last()
				err := l.Append(batch)
				want := append(testEntries(1, 1, from-1), batch...)
				switch {
				case whole >= len(batch):
					if err != nil {
						t.Fatalf("%d whole, %d more bytes: %v", whole, part, err)
					}
				case !errors.Is(err, ErrNoRoom) || !errors.Is(err, unix.ENOSPC) || errors.Is(err, ErrFailed) || l.Last() != before:
					t.Fatalf("%d whole, %d more bytes: %v, the log ends at %s after %s", whole, part, err, l.Last(), before)
				default:
					sameEntries(t, all(t, l), testEntries(1, 1, 20))
					es, last, err := Read(o.Dir, Position{}, o)
					if err != nil || last != before {
						t.Fatal(last, err)
					}
					sameEntries(t, es, testEntries(1, 1, 20))
					mustAppend(t, l, batch)
				}
				if pos, err := l.Sync(); err != nil || pos != l.Last() {
					t.Fatal(pos, err)
				}
				sameEntries(t, all(t, l), want)
				more := testEntries(2, from+5, from+200) // over several segments
				mustAppend(t, l, more)
				want = append(want, more...)
				sameEntries(t, all(t, reopen(t, l, 0)), want)
				es, _, err := Read(o.Dir, Position{}, o)
				if err != nil {
					t.Fatal(err)
				}
				sameEntries(t, es, want)
			}
		}
	}
}

// TestNoNextSegment: a write fills the segment, and the next segment cannot begin. The entries
// are in the log, and it goes on when there is space.
func TestNoNextSegment(t *testing.T) {
	o := testOptions(t)
	l := mustCreate(t, o, Position{})
	real := walSave
	t.Cleanup(func() { walSave = real })
	failures := 0
	walSave = func(w *wal.WAL, st *raftpb.HardState, es []*raftpb.Entry) error {
		before, err := listSegments(o.Dir)
		if err == nil {
			err = real(w, st, es)
		}
		if after, e := listSegments(o.Dir); err != nil || e != nil || len(after) == len(before) || failures == 3 {
			return errors.Join(err, e)
		}
		// The state is as if the process had ended before the new segment got its name.
		failures++
		after, _ := listSegments(o.Dir)
		return errors.Join(os.Remove(filepath.Join(o.Dir, after[len(after)-1].String())), unix.EDQUOT)
	}
	want := testEntries(1, 1, 400)
	mustAppend(t, l, want)
	if failures != 3 {
		t.Fatalf("%d segments could not begin, want 3", failures)
	}
	if pos, err := l.Sync(); err != nil || pos != l.Last() {
		t.Fatal(pos, err)
	}
	sameEntries(t, all(t, l), want)
	sameEntries(t, all(t, reopen(t, l, 0)), want)
}

// TestWALRenewalWaitsForDiskSpace: without space for a new wal the append is refused, and the
// next append tries again.
func TestWALRenewalWaitsForDiskSpace(t *testing.T) {
	o := testOptions(t)
	l := mustCreate(t, o, Position{})
	mustAppend(t, l, testEntries(1, 1, 30))
	if err := guard(l.wal.Close); err != nil {
		t.Fatal(err)
	}
	l.wal = nil
	if err := l.Append(testEntries(1, 31, 33)); err != nil {
		t.Fatalf("a wal that was given up is not opened again: %v", err)
	}
	if err := guard(l.wal.Close); err != nil {
		t.Fatal(err)
	}
	l.wal = nil
	if err := l.Close(); err != nil {
		t.Fatalf("close without a wal: %v", err)
	}
	l, err := Open(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	sameEntries(t, all(t, l), testEntries(1, 1, 33))
}

// TestHalfMadeSegmentsAreCleared: the files of a process that was killed while it made its next
// segment are not continued.
func TestHalfMadeSegmentsAreCleared(t *testing.T) {
	o, _ := closedLog(t, testOptions(t), 20)
	for _, name := range []string{"0.tmp", "1.tmp"} {
		if err := os.WriteFile(filepath.Join(o.Dir, name), bytes.Repeat([]byte{0xa5}, 2000), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	l, err := Open(o, 0)
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, testEntries(1, 21, 300))
	l = reopen(t, l, 0)
	sameEntries(t, all(t, l), testEntries(1, 1, 300))
}

// TestAppendSizeEstimateIsTight: the estimated size of an append is sufficient, and so little
// too large that appends seldom allocate more.
func TestAppendSizeEstimateIsTight(t *testing.T) {
	calls := 0
	was := fallocate
	fallocate = func(fd int, mode uint32, off, n int64) error {
		calls++
		return was(fd, mode, off, n)
	}
	t.Cleanup(func() { fallocate = was })
	o := testOptions(t)
	o.SegmentBytes = 1 << 20
	l := mustCreate(t, o, Position{})
	const appends = 20_000 // some segments
	for i := uint64(1); i <= appends; i++ {
		mustAppend(t, l, []Entry{{Index: i, Epoch: 1 << 40, Data: make([]byte, int(i)%600)}})
		if i%1000 == 0 {
			l.mu.Lock()
			path := filepath.Join(o.Dir, l.files.current().name.String())
			l.mu.Unlock()
			if at := writtenBytes(t, path); at > l.written || l.written > at+at/10+2*frameOverheadBytes*8 {
				t.Fatalf("%d bytes are written, %d were counted", at, l.written)
			}
		}
	}
	if calls > appends/100 {
		t.Errorf("%d calls of fallocate in %d appends", calls, appends)
	}
}

// writtenBytes returns where the last record of a segment ends.
func writtenBytes(t *testing.T, path string) int64 {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return int64(len(bytes.TrimRight(raw, "\x00")))
}
