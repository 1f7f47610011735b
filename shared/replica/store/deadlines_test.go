package store

import (
	"bytes"
	"maps"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"
)

func deadlinesAt(t testing.TB, path string, origin uint64) *Deadlines {
	t.Helper()
	d, err := openDeadlines(path, origin)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = d.Close() })
	return d
}

// TestDeadlinesAfterAKillBetweenAnyTwoStores kills the leader after each change of the file.
// The next leader finds each lease with its deadline from before or after the operation, and
// finds no other lease.
func TestDeadlinesAfterAKillBetweenAnyTwoStores(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	dir := t.TempDir()
	path, copied := filepath.Join(dir, "deadlines"), filepath.Join(dir, "copied")
	const origin = 7
	d := deadlinesAt(t, path, origin)
	if left, applied := d.begin(100); len(left) != 0 || applied != 0 {
		t.Fatalf("a new file: %v, %d", left, applied)
	}
	before, after, records := map[int64]time.Duration{}, map[int64]time.Duration{}, map[int64]int{}
	deaths := 0
	d.stored = func() {
		if deaths++; deaths%3 != 0 {
			return // each death opens a file
		}
		if err := os.WriteFile(copied, d.mem[:d.bytes], 0o600); err != nil {
			t.Fatal(err)
		}
		next := deadlinesAt(t, copied, origin)
		records, _ := next.begin(100)
		left := byID(records)
		if len(left) != len(records) {
			t.Fatalf("a lease has two records: %v", records)
		}
		for id, at := range left {
			if at != before[id] && at != after[id] {
				t.Fatalf("lease %d ends at %s, which was %s and is to be %s", id, at, before[id], after[id])
			}
		}
		for id := range before {
			if _, ok := left[id]; !ok && after[id] == before[id] {
				t.Fatalf("lease %d is lost", id)
			}
		}
		_ = next.Close()
	}
	for n := range 600 {
		id := int64(rng.IntN(20) + 1)
		if rng.IntN(3) == 0 {
			delete(after, id)
			if record, ok := records[id]; ok {
				d.drop(record)
				delete(records, id)
			}
		} else {
			after[id] = time.Duration(n+1) * time.Second
			record, ok := records[id]
			if !ok {
				record = noRecord
			}
			records[id] = d.set(record, id, after[id])
		}
		before = maps.Clone(after)
	}
	if deaths < 500 {
		t.Errorf("only %d changes", deaths)
	}
}

func byID(ns []recorded) map[int64]time.Duration {
	out := map[int64]time.Duration{}
	for _, n := range ns {
		out[n.id] = n.deadline
	}
	return out
}

func TestDeadlinesGrow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deadlines")
	const origin, many = 7, 2*deadlinesChunk/recordBytes + 10
	d := deadlinesAt(t, path, origin)
	waiting := deadlinesAt(t, path, origin) // a follower, since before
	d.begin(0)
	for id := range int64(many) {
		d.set(noRecord, id, time.Duration(id+1))
	}
	d.setApplied(5)
	left, applied := waiting.begin(5)
	if len(left) != many || applied != 5 || byID(left)[many-1] != many {
		t.Fatalf("%d deadlines up to entry %d", len(left), applied)
	}
	for _, n := range left {
		waiting.drop(n.record)
	}
	size := waiting.bytes
	for id := range int64(many) {
		waiting.set(noRecord, -id, time.Duration(id+1))
	}
	if waiting.bytes != size {
		t.Errorf("free records were not used again: %d bytes, then %d", size, waiting.bytes)
	}
}

func TestDeadlinesOfAnotherBootOrLostEntries(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deadlines")
	d := deadlinesAt(t, path, 7)
	d.begin(10)
	d.set(noRecord, 1, time.Second)
	d.setApplied(10)
	for what, c := range map[string]struct{ origin, applied uint64 }{"of another boot": {8, 10}, "of entries that were lost": {7, 9}} {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		other := filepath.Join(t.TempDir(), "deadlines")
		if err := os.WriteFile(other, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		if left, applied := deadlinesAt(t, other, c.origin).begin(c.applied); len(left) != 0 || applied != 0 {
			t.Errorf("%s: %v up to %d", what, left, applied)
		}
		if left, _ := deadlinesAt(t, other, c.origin).begin(c.applied); len(left) != 0 {
			t.Errorf("%s, by the next leader: %v", what, left)
		}
	}
	if left, applied := d.begin(11); len(left) != 1 || byID(left)[1] != time.Second || applied != 10 {
		t.Errorf("%v up to %d", left, applied)
	}
}

// FuzzDeadlines: a leader can begin and continue with a file of any content.
func FuzzDeadlines(f *testing.F) {
	path := filepath.Join(f.TempDir(), "deadlines")
	d := deadlinesAt(f, path, 7)
	d.begin(10)
	d.set(noRecord, 1, time.Second)
	raw, err := os.ReadFile(path)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw[:deadlinesHeader+64])
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, raw []byte) {
		path := filepath.Join(t.TempDir(), "deadlines")
		if err := os.WriteFile(path, raw, 0o600); err != nil {
			t.Fatal(err)
		}
		d, err := openDeadlines(path, 7)
		if err != nil {
			t.Fatal(err)
		}
		defer d.Close()
		left, _ := d.begin(10)
		for _, n := range left {
			d.drop(n.record)
		}
		d.set(noRecord, 1, 2*time.Second)
		d.setApplied(10)
		if left, applied := d.begin(10); len(left) != 1 || byID(left)[1] != 2*time.Second || applied != 10 {
			t.Errorf("%v up to %d", left, applied)
		}
	})
}

// An idle leader changes nothing.
func TestDeadlinesStayClean(t *testing.T) {
	path := filepath.Join(t.TempDir(), "deadlines")
	d := deadlinesAt(t, path, 7)
	d.begin(10)
	record := d.set(noRecord, 1, time.Second)
	d.setApplied(10)
	before, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	d.stored = func() { t.Error("the file was changed") }
	d.begin(10)
	d.set(record, 1, time.Second)
	d.setApplied(10)
	after, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("the file is another: %v", err)
	}
}
