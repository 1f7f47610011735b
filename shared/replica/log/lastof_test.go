package log

import (
	"errors"
	"math/rand/v2"
	"os"
	"testing"
)

// TestLastOf compares with a list of what was written, with replaced tails, several segments
// and compaction.
func TestLastOf(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 1))
	o := Options{Dir: t.TempDir() + "/log", SegmentBytes: 4 << 10}
	if _, err := LastOf(o.Dir, o, func(uint64) bool { return true }); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("without a log: %v", err)
	}
	l, err := Create(o, Position{})
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	var is []uint64 // epochs by index, from 1
	epoch, applied := uint64(1), uint64(0)
	for range 300 {
		from := uint64(len(is))
		if from > applied+1 && rng.IntN(4) == 0 { // another leader replaces the tail
			from = applied + 1 + rng.Uint64N(from-applied)
			epoch++
		}
		is = is[:from]
		var es []Entry
		for range 1 + rng.IntN(3) {
			if rng.IntN(10) == 0 {
				epoch++
			}
			is = append(is, epoch)
			es = append(es, Entry{Index: uint64(len(is)), Epoch: epoch, Data: make([]byte, rng.IntN(300))})
		}
		mustAppend(t, l, es)
		if rng.IntN(30) == 0 {
			applied = uint64(len(is))
			l.Applied(applied)
			if _, err := l.Sync(); err != nil {
				t.Fatal(err)
			}
			if err := l.Compact(applied, Position{Epoch: is[applied-1], Index: applied}); err != nil {
				t.Fatal(err)
			}
		}
		without := epoch - rng.Uint64N(min(epoch, 3))
		want := func(e uint64) bool { return e < without }
		got, err := LastOf(o.Dir, o, want)
		if err != nil {
			t.Fatal(err)
		}
		var expect Position
		for i, e := range is {
			if want(e) {
				expect = Position{Epoch: e, Index: uint64(i + 1)}
			}
		}
		if got != expect && !(got.IsZero() && expect.Index < l.First()) {
			t.Fatalf("epochs before %d: %s, want %s (first %d, last %s)", without, got, expect, l.First(), l.Last())
		}
	}
}
