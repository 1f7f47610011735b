package log

import (
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"golang.org/x/sys/unix"
)

// TestReaderFollowsAWriter: entries that have left the memory are read from the files, in order
// and each once. Meanwhile a writer goes on, old segments are deleted, and tails were replaced
// before.
func TestReaderFollowsAWriter(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	for round := range 20 {
		o := testOptions(t)
		o.TailBytes = 1 + rng.Int64N(20<<10)
		l := mustCreate(t, o, Position{})
		var truth []Entry
		replace := func(epoch, from, to uint64) {
			es := testEntries(epoch, from, to)
			mustAppend(t, l, es)
			truth = append(truth[:from-1], es...)
		}
		// Nothing is applied yet, so everything can still be replaced.
		epoch := uint64(1)
		replace(epoch, 1, 1+rng.Uint64N(400))
		for range rng.IntN(4) {
			epoch++
			from := 1 + rng.Uint64N(uint64(len(truth)))
			replace(epoch, from, from+rng.Uint64N(400))
		}
		epoch++
		replace(epoch, uint64(len(truth))+1, uint64(len(truth))+1+rng.Uint64N(300)) // it leads
		grow := 1 + rng.Uint64N(2000)
		want := append(truth[:len(truth):len(truth)], testEntries(epoch, uint64(len(truth))+1, uint64(len(truth))+grow)...)

		after := Position{}
		if i := rng.IntN(len(truth)); i > 0 {
			after = truth[i-1].Position()
		}
		r, err := l.ReadAfter(after)
		if err != nil {
			t.Fatal(round, err)
		}
		var writer sync.WaitGroup
		batches := rng.Uint64()
		writer.Go(func() {
			rng := rand.New(rand.NewPCG(batches, 0))
			for es := want[len(truth):]; len(es) > 0; {
				n := min(1+rng.IntN(40), len(es))
				if err := l.Append(es[:n]); err != nil {
					t.Error(err)
					return
				}
				l.Applied(es[n-1].Index)
				es = es[n:]
			}
		})
		got := append([]Entry(nil), want[:after.Index]...)
		for len(got) < len(want) {
			most := 1 + rng.IntN(30<<10)
			es, err := r.Next(most)
			if err != nil {
				t.Fatal(round, err)
			}
			if bytes := dataBytes(es); len(es) > 1 && bytes-len(es[len(es)-1].Data) >= most {
				t.Fatalf("%d bytes in %d entries, %d were asked for", bytes, len(es), most)
			}
			got = append(got, es...)
			if n := len(got); n > 0 && n > int(after.Index) {
				if r.After() != got[n-1].Position() {
					t.Fatal(r.After())
				}
				mustCompact(t, l, uint64(n)+1, r.After())
			}
		}
		sameEntries(t, got, want)
		writer.Wait()
		if es, err := r.Next(1); err != nil || es != nil {
			t.Fatal(es, err)
		}
		r.Close()
	}
}

func dataBytes(es []Entry) (n int) {
	for _, e := range es {
		n += len(e.Data)
	}
	return n
}

// onDiskOnly is a log that keeps almost nothing in memory.
func onDiskOnly(t *testing.T, entries []Entry) *Log {
	t.Helper()
	o := testOptions(t)
	o.TailBytes = 1
	l := mustCreate(t, o, Position{})
	mustAppend(t, l, entries)
	l.Applied(uint64(len(entries)))
	return l
}

// TestReaderSkipsUndoneWrites: a write that found the disk full was in the file for a moment,
// after the last entry. Another write now has its place.
func TestReaderSkipsUndoneWrites(t *testing.T) {
	l := onDiskOnly(t, testEntries(1, 1, 10))
	r, err := l.ReadAfter(Position{Epoch: 1, Index: 5})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	real := walSave
	t.Cleanup(func() { walSave = real })
	walSave = func(w *wal.WAL, _ *raftpb.HardState, es []*raftpb.Entry) error {
		if err := real(w, nil, es[:1]); err != nil {
			return err
		}
		if got, err := r.Next(1 << 20); err != nil || len(got) != 5 {
			t.Errorf("%d entries, %v", len(got), err)
		}
		return &os.PathError{Op: "write", Path: "segment", Err: unix.ENOSPC}
	}
	undone := []Entry{{Epoch: 1, Index: 11, Data: []byte("undone")}, {Epoch: 1, Index: 12, Data: []byte("never there")}}
	if err := l.Append(undone); !errors.Is(err, ErrNoRoom) {
		t.Fatal(err)
	}
	walSave = real
	want := []Entry{{Epoch: 1, Index: 11, Data: []byte("there")}, testEntry(1, 12)}
	mustAppend(t, l, want)
	l.Applied(12)
	got, err := r.Next(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	sameEntries(t, got, want)
}

func TestReadAfterRefusesWhatIsNotThere(t *testing.T) {
	l := onDiskOnly(t, append(testEntries(2, 1, 400), testEntries(3, 401, 800)...))
	for want, after := range map[error]Position{
		ErrDiverged:   {Epoch: 1, Index: 100},
		ErrOutOfOrder: {Epoch: 3, Index: 800},
	} {
		if _, err := l.ReadAfter(after); !errors.Is(err, want) {
			t.Errorf("after %s: %v, want %v", after, err, want)
		}
	}
	early, err := l.ReadAfter(Position{Epoch: 2, Index: 50})
	if err != nil {
		t.Fatal(err)
	}
	defer early.Close()
	mustCompact(t, l, 700, Position{Epoch: 3, Index: 800})
	if _, err := l.ReadAfter(Position{Epoch: 2, Index: 50}); !errors.Is(err, ErrCompacted) {
		t.Error(err)
	}
	// It may return what it has already opened. Then it has to report that the rest is gone.
	for err == nil {
		var es []Entry
		if es, err = early.Next(1 << 20); err == nil && len(es) == 0 {
			t.Fatal("it did not notice")
		}
	}
	if !errors.Is(err, ErrCompacted) {
		t.Error(err)
	}
}

func TestReaderReportsDamage(t *testing.T) {
	l := onDiskOnly(t, testEntries(1, 1, 800))
	names, _ := l.onDisk()
	f, err := os.OpenFile(filepath.Join(l.o.Dir, names[1].String()), os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if _, err := f.WriteAt([]byte("damage"), 8000); err != nil {
		t.Fatal(err)
	}
	r, err := l.ReadAfter(Position{})
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	n := 0
	for err == nil {
		var es []Entry
		es, err = r.Next(1000)
		n += len(es)
	}
	if !errors.Is(err, ErrCorrupt) || n == 0 || uint64(n) < names[1].index-1 {
		t.Fatal(n, err)
	}
}

// TestOpenReadsTheEndOnly: a log can be kept much longer than its owner needs it, and the rest
// must not be read into memory.
func TestOpenReadsTheEndOnly(t *testing.T) {
	o := testOptions(t)
	o.TailBytes = 20 << 10
	l := mustCreate(t, o, Position{})
	want := testEntries(1, 1, 3000)
	mustAppend(t, l, want)
	bound := l.Youngest(100 << 10)
	if names, _ := l.onDisk(); bound <= 1 || bound >= names[len(names)-2].index {
		t.Fatal(bound, names)
	}
	if err := l.Close(); err != nil {
		t.Fatal(err)
	}
	names, err := listSegments(o.Dir)
	if err != nil {
		t.Fatal(err)
	}
	// Segments that are not needed are not read, so even damage there does not matter.
	if err := os.WriteFile(filepath.Join(o.Dir, names[0].String()), []byte("damage"), 0o600); err != nil {
		t.Fatal(err)
	}
	l, err = Open(o, 2990)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = l.Close() })
	got := all(t, l)
	sameEntries(t, got, want[len(want)-len(got):])
	if bytes := l.MemoryBytes(); bytes > o.TailBytes || len(got) < 11 {
		t.Fatal(len(got), bytes)
	}
	mustAppend(t, l, testEntries(2, 3001, 3100))
	l.Applied(3100)
	r, err := l.ReadAfter(want[1999].Position())
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	if es, err := r.Next(1); err != nil || es[0].Index != 2001 {
		t.Fatal(es, err)
	}
}
