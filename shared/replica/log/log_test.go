package log

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

const childEnv = "DYNAST_LOG_TEST_CHILD"

func TestMain(m *testing.M) {
	if dir := os.Getenv(childEnv); dir != "" {
		os.Exit(appendUntilKilled(dir))
	}
	goleak.VerifyTestMain(m)
}

func testOptions(t testing.TB) Options {
	return Options{Dir: filepath.Join(t.TempDir(), "log"), SegmentBytes: 16 << 10}
}

func mustCreate(t testing.TB, o Options, at Position) *Log {
	t.Helper()
	l, err := Create(o, at)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := l.Close(); err != nil {
			t.Error(err)
		}
	})
	return l
}

func reopen(t testing.TB, l *Log, applied uint64) *Log {
	t.Helper()
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	n, err := Open(l.o, applied)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = n.Close() })
	return n
}

// entry makes the only valid entry of an index and epoch, so that every mix-up is noticed.
func testEntry(epoch, index uint64) Entry {
	if index%10 == 1 {
		return Entry{Epoch: epoch, Index: index}
	}
	data := bytes.Repeat([]byte(fmt.Sprintf("%d/%d.", epoch, index)), 1+int(index*7%90))
	return Entry{Epoch: epoch, Index: index, Data: data}
}

func testEntries(epoch, from, to uint64) []Entry {
	var es []Entry
	for i := from; i <= to; i++ {
		es = append(es, testEntry(epoch, i))
	}
	return es
}

func mustAppend(t testing.TB, l *Log, es []Entry) {
	t.Helper()
	for len(es) > 0 { // in small batches, so that segments end
		n := min(7, len(es))
		if err := l.Append(es[:n]); err != nil {
			t.Fatal(err)
		}
		es = es[n:]
	}
}

func mustCompact(t testing.TB, l *Log, keepFrom uint64, durable Position) {
	t.Helper()
	if err := l.Compact(keepFrom, durable); err != nil {
		t.Fatal(err)
	}
}

// sameEntries checks that entries are valid, and where they begin and end.
func sameEntries(t testing.TB, got []Entry, want []Entry) {
	t.Helper()
	if len(got) != len(want) {
		t.Fatalf("%d entries, want %d", len(got), len(want))
	}
	for i, e := range got {
		if e.Position() != want[i].Position() || !bytes.Equal(e.Data, want[i].Data) {
			t.Fatalf("entry %d is %s %.20q, want %s %.20q", i, e.Position(), e.Data, want[i].Position(), want[i].Data)
		}
	}
}

func all(t testing.TB, l *Log) []Entry {
	t.Helper()
	es, err := l.Entries(l.First(), math.MaxUint64, math.MaxInt)
	if err != nil {
		t.Fatal(err)
	}
	return es
}

func TestAppendReadReopen(t *testing.T) {
	l := mustCreate(t, testOptions(t), Position{})
	want := append(testEntries(1, 1, 120), testEntries(3, 121, 300)...)
	mustAppend(t, l, want)
	sameEntries(t, all(t, l), want)
	if l.Last() != (Position{Epoch: 3, Index: 300}) || l.First() != 1 {
		t.Fatalf("from %d to %s", l.First(), l.Last())
	}
	if segs, _ := listSegments(l.o.Dir); len(segs) < 5 {
		t.Fatalf("only %d segments: the test does not cover what it should", len(segs))
	}
	got, last, err := Read(l.o.Dir, Position{}, l.o)
	if err != nil || last != l.Last() {
		t.Fatal(last, err)
	}
	sameEntries(t, got, want)
	if p, err := LastPosition(l.o.Dir, l.o); err != nil || p != l.Last() {
		t.Fatal(p, err)
	}
	l = reopen(t, l, 0)
	sameEntries(t, all(t, l), want)
	more := testEntries(3, 301, 400)
	mustAppend(t, l, more)
	l = reopen(t, l, 0)
	sameEntries(t, all(t, l), append(want, more...))
}

func TestReadAfterEveryPosition(t *testing.T) {
	l := mustCreate(t, testOptions(t), Position{})
	want := append(testEntries(1, 1, 100), testEntries(4, 101, 250)...)
	mustAppend(t, l, want)
	for after := uint64(0); after <= 250; after++ {
		p := Position{Index: after}
		if after > 0 {
			p = want[after-1].Position()
		}
		got, last, err := Read(l.o.Dir, p, l.o)
		if err != nil || last != l.Last() {
			t.Fatal(after, last, err)
		}
		sameEntries(t, got, want[after:])
		p.Epoch += 9
		if _, _, err := Read(l.o.Dir, p, l.o); !errors.Is(err, ErrDiverged) {
			t.Fatalf("after %s: %v", p, err)
		}
	}
	if es, last, err := Read(l.o.Dir, Position{Epoch: 4, Index: 300}, l.o); err != nil || len(es) != 0 || last != l.Last() {
		t.Fatal("after the end:", len(es), last, err)
	}
	if _, _, err := Read(l.o.Dir, Position{Epoch: 3, Index: 300}, l.o); !errors.Is(err, ErrDiverged) {
		t.Fatal("another tail of an older epoch:", err)
	}
}

func TestAppendRefusesWhatDoesNotContinue(t *testing.T) {
	l := mustCreate(t, testOptions(t), Position{Epoch: 2, Index: 10})
	mustAppend(t, l, testEntries(2, 11, 20))
	for name, es := range map[string][]Entry{
		"gap":               testEntries(2, 22, 23),
		"gap inside":        {testEntry(2, 21), testEntry(2, 23)},
		"older epoch":       testEntries(1, 21, 21),
		"no epoch":          testEntries(0, 21, 21),
		"before the start":  testEntries(3, 10, 11),
		"index zero":        testEntries(3, 0, 1),
		"epoch goes back":   {testEntry(3, 21), testEntry(2, 22)},
		"older replacement": testEntries(1, 15, 16),
	} {
		if err := l.Append(es); !errors.Is(err, ErrOutOfOrder) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if err := l.Append(nil); err != nil {
		t.Error(err)
	}
	mustAppend(t, l, testEntries(2, 21, 22))
	mustCompact(t, l, 1, Position{Epoch: 2, Index: 18})
	if err := l.Append(testEntries(5, 18, 19)); !errors.Is(err, ErrOutOfOrder) {
		t.Error("replaced an entry that is in the database:", err)
	}
	mustAppend(t, l, testEntries(5, 19, 19))
}

func TestReplaceTail(t *testing.T) {
	l := mustCreate(t, testOptions(t), Position{})
	want := testEntries(1, 1, 300)
	mustAppend(t, l, want)
	if _, err := l.Sync(); err != nil {
		t.Fatal(err)
	}
	for i, from := range []uint64{290, 200, 150, 40, 100} { // also across segments, and forward again
		epoch := uint64(2 + i)
		if from == 100 {
			mustAppend(t, l, testEntries(epoch-1, 41, 160))
			want = append(want, testEntries(epoch-1, 41, 160)...)
		}
		want = append(want[:from-1:from-1], testEntry(epoch, from))
		mustAppend(t, l, want[from-1:])
		if i < 4 && l.Synced() != want[from-2].Position() {
			t.Fatalf("synced %s after replacing from %d", l.Synced(), from)
		}
		sameEntries(t, all(t, l), want)
		got, last, err := Read(l.o.Dir, Position{}, l.o)
		if err != nil || last != l.Last() {
			t.Fatal(last, err)
		}
		sameEntries(t, got, want)
		for after := 1; after < len(want); after++ {
			got, _, err := Read(l.o.Dir, want[after-1].Position(), l.o)
			if err != nil {
				t.Fatal(after, err)
			}
			sameEntries(t, got, want[after:])
		}
		if p, err := LastPosition(l.o.Dir, l.o); err != nil || p != l.Last() {
			t.Fatal(p, err)
		}
		l = reopen(t, l, 0)
		sameEntries(t, all(t, l), want)
		if _, err := l.Sync(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCreateIsExclusiveAndAtPosition(t *testing.T) {
	o := testOptions(t)
	at := Position{Epoch: 5, Index: 1000}
	if err := os.Mkdir(o.Dir, 0o700); err != nil {
		t.Fatal(err) // an empty directory is no log
	}
	if _, err := Open(o, 0); !errors.Is(err, os.ErrNotExist) {
		t.Fatal(err)
	}
	l := mustCreate(t, o, at)
	if _, err := Create(o, Position{}); !errors.Is(err, os.ErrExist) {
		t.Fatal(err)
	}
	if _, err := Open(o, 1000); !errors.Is(err, ErrLocked) {
		t.Fatal(err)
	}
	if l.Last() != at || l.First() != 1001 || l.Synced() != at {
		t.Fatal(l.Last(), l.First(), l.Synced())
	}
	if e, ok := l.EpochAt(1000); !ok || e != 5 {
		t.Fatal(e, ok)
	}
	if p, err := LastPosition(o.Dir, o); err != nil || p != at {
		t.Fatal(p, err)
	}
	if _, _, err := Read(o.Dir, Position{Epoch: 5, Index: 999}, o); !errors.Is(err, ErrCompacted) {
		t.Fatal(err)
	}
	if _, _, err := Read(o.Dir, Position{Epoch: 4, Index: 1000}, o); !errors.Is(err, ErrDiverged) {
		t.Fatal(err)
	}
	mustAppend(t, l, testEntries(6, 1001, 1100))
	l = reopen(t, l, 1050)
	sameEntries(t, all(t, l), testEntries(6, 1001, 1100))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(o, 999); !errors.Is(err, ErrCompacted) {
		t.Fatal(err)
	}
	if err := l.Append(testEntries(6, 1101, 1101)); !errors.Is(err, ErrClosed) {
		t.Fatal(err)
	}
}

func TestEntriesAndBound(t *testing.T) {
	o := testOptions(t)
	o.TailBytes = 10 * (100 + entryOverheadBytes)
	l := mustCreate(t, o, Position{})
	for i := uint64(1); i <= 30; i++ {
		mustAppend(t, l, []Entry{{Index: i, Epoch: 1, Data: make([]byte, 100)}})
	}
	if l.First() != 1 || l.MemoryBytes() != 30*(100+entryOverheadBytes) {
		t.Fatal("what is not applied left:", l.First())
	}
	if l.Applied(5); l.First() != 6 {
		t.Fatal(l.First())
	}
	if l.Applied(30); l.First() != 21 {
		t.Fatal(l.First())
	}
	if _, err := l.Entries(20, 30, 1000); !errors.Is(err, ErrCompacted) {
		t.Fatal(err)
	}
	for _, c := range []struct {
		lo, hi uint64
		bytes  int
		n      int
	}{{21, 30, 1000, 10}, {21, 99, 250, 2}, {25, 25, 0, 1}, {30, 99, 0, 1}, {31, 99, 9, 0}, {26, 24, 9, 0}} {
		if es, err := l.Entries(c.lo, c.hi, c.bytes); err != nil || len(es) != c.n || c.n > 0 && es[0].Index != c.lo {
			t.Fatal(c, len(es), err)
		}
	}
	if _, ok := l.EpochAt(20); !ok {
		t.Fatal("the entry before the first is known")
	}
	if _, ok := l.EpochAt(19); ok {
		t.Fatal("19 is gone")
	}
	more := func(from, to uint64) {
		for i := from; i <= to; i++ {
			mustAppend(t, l, []Entry{{Index: i, Epoch: 1, Data: make([]byte, 100)}})
		}
	}
	more(31, 180)
	if l.Applied(180); l.First() != 171 {
		t.Fatal(l.First())
	}
	if l.BoundTail(4 * (100 + entryOverheadBytes)); l.First() != 177 {
		t.Fatal("a smaller bound:", l.First())
	}
	if l.BoundTail(o.TailBytes); l.First() != 177 {
		t.Fatal("what is gone does not come back:", l.First())
	}
	// Entries that the database lacks stay in memory, however many there are.
	if l = reopen(t, l, 40); l.First() != 41 {
		t.Fatal(l.First())
	}
	if more(91, 95); l.First() != 41 {
		t.Fatal(l.First())
	}
	if mustCompact(t, l, 1, Position{Epoch: 1, Index: 92}); l.First() != 86 {
		t.Fatal(l.First())
	}
}

// After a failed write the log refuses everything until it is opened again.
func TestFailureSticks(t *testing.T) {
	o := testOptions(t)
	l, err := Create(o, Position{})
	if err != nil {
		t.Fatal(err)
	}
	mustAppend(t, l, testEntries(1, 1, 20))
	if err := l.wal.Close(); err != nil { // every further write fails
		t.Fatal(err)
	}
	if err := l.Append(testEntries(1, 21, 21)); err == nil {
		t.Fatal("appended to a closed file")
	}
	if err := l.Append(testEntries(1, 21, 21)); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	if _, err := l.Sync(); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	if err := l.Compact(1, Position{Epoch: 1, Index: 2}); !errors.Is(err, ErrFailed) {
		t.Fatal(err)
	}
	if l.Last().Index != 20 {
		t.Fatal("the failed entry counts")
	}
	_ = l.Close() // complains of the second close
	if l, err = Open(o, 0); err != nil {
		t.Fatal(err)
	}
	sameEntries(t, all(t, l), testEntries(1, 1, 20))
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
}

func TestSegmentSizeIsOnePerProcess(t *testing.T) {
	o := testOptions(t)
	mustCreate(t, o, Position{})
	other := Options{Dir: filepath.Join(t.TempDir(), "log"), SegmentBytes: 2 * o.SegmentBytes}
	if l, err := Create(other, Position{}); err == nil {
		_ = l.Close()
		t.Fatal("two sizes at once")
	}
	if _, err := os.Stat(other.Dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatal("something was left behind", err)
	}
}
