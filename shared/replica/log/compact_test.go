package log

import (
	"errors"
	"os"
	"path/filepath"
	"testing"
)

func copyLog(t testing.TB, dir string) string {
	t.Helper()
	to := filepath.Join(t.TempDir(), "log")
	if err := os.CopyFS(to, os.DirFS(dir)); err != nil {
		t.Fatal(err)
	}
	return to
}

func TestCompactAndReopen(t *testing.T) {
	l := mustCreate(t, testOptions(t), Position{})
	want := testEntries(1, 1, 600)
	mustAppend(t, l, want)
	before, _ := listSegments(l.o.Dir)
	for _, durable := range []uint64{1, 100, 100, 260, 500, 600} {
		mustCompact(t, l, durable-durable%7+1, want[durable-1].Position())
		l = reopen(t, l, durable)
		got := all(t, l)
		sameEntries(t, got, want[600-len(got):])
		if l.First() > durable+1 {
			t.Fatalf("durable %d, first %d", durable, l.First())
		}
		if e, ok := l.EpochAt(durable); !ok || e != 1 {
			t.Fatal("the position of the database is unknown to the log")
		}
		if es, last, err := Read(l.o.Dir, want[durable-1].Position(), l.o); err != nil || last != l.Last() || len(es) != 600-int(durable) {
			t.Fatal(durable, len(es), last, err)
		}
	}
	after, _ := listSegments(l.o.Dir)
	if len(after) >= len(before) || len(after) > 2 {
		t.Fatalf("%d segments, %d before", len(after), len(before))
	}
	if _, _, err := Read(l.o.Dir, Position{Epoch: 1, Index: 50}, l.o); !errors.Is(err, ErrCompacted) {
		t.Fatal(err)
	}
	mustAppend(t, l, testEntries(2, 601, 700))
}

// The database may end exactly where a segment begins. Then only the snapshot record has the
// epoch before the first remaining entry.
func TestCompactAtEveryPosition(t *testing.T) {
	l := mustCreate(t, testOptions(t), Position{})
	want := testEntries(3, 1, 200)
	mustAppend(t, l, want)
	for durable := uint64(1); durable <= 200; durable++ {
		mustCompact(t, l, durable+1, want[durable-1].Position())
		o := l.o
		o.Dir = copyLog(t, l.o.Dir)
		c, err := Open(o, durable)
		if err != nil {
			t.Fatal(durable, err)
		}
		if e, ok := c.EpochAt(durable); !ok || e != 3 {
			t.Fatal(durable, e, ok, c.First())
		}
		es, err := c.Entries(durable+1, 200, 1<<30)
		if err != nil {
			t.Fatal(durable, err)
		}
		sameEntries(t, es, want[durable:])
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

// A crash in the middle of the deletion leaves some of the oldest segments.
func TestCompactInterrupted(t *testing.T) {
	l := mustCreate(t, testOptions(t), Position{})
	want := testEntries(1, 1, 300)
	mustAppend(t, l, want)
	whole := copyLog(t, l.o.Dir)
	mustCompact(t, l, 250, want[249].Position())
	left, _ := listSegments(l.o.Dir)
	old, _ := listSegments(whole)
	for back := len(old) - len(left); back >= 0; back-- {
		o := l.o
		o.Dir = copyLog(t, l.o.Dir)
		for _, n := range old[back : len(old)-len(left)] {
			data, err := os.ReadFile(filepath.Join(whole, n.String()))
			if err != nil {
				t.Fatal(err)
			}
			if err := os.WriteFile(filepath.Join(o.Dir, n.String()), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
		c, err := Open(o, 250)
		if err != nil {
			t.Fatal(back, err)
		}
		got := all(t, c)
		sameEntries(t, got, want[300-len(got):])
		if c.First() > 251 {
			t.Fatal(c.First())
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
	}
}

func TestCompactKeepsEntriesAndRefusesBadPositions(t *testing.T) {
	l := mustCreate(t, testOptions(t), Position{})
	mustAppend(t, l, testEntries(1, 1, 300))
	mustCompact(t, l, 21, Position{Epoch: 1, Index: 300})
	if l.First() != 21 {
		t.Fatal(l.First())
	}
	if _, _, err := Read(l.o.Dir, Position{Epoch: 1, Index: 20}, l.o); err != nil {
		t.Fatal(err)
	}
	mustCompact(t, l, 301, Position{Epoch: 1, Index: 300})
	if l.First() != 301 {
		t.Fatal(l.First())
	}
	if err := l.Compact(1, Position{Epoch: 1, Index: 301}); !errors.Is(err, ErrOutOfOrder) {
		t.Fatal(err)
	}
	if err := l.Compact(1, Position{Epoch: 2, Index: 300}); !errors.Is(err, ErrDiverged) {
		t.Fatal(err)
	}
}
