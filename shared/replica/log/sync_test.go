package log

import (
	"errors"
	"fmt"
	"math"
	"path/filepath"
	"slices"
	"sync"
	"testing"
	"time"
)

// One goroutine appends, one syncs, one compacts, and the others read. The result is the
// appended log, and Synced is never ahead and never decreases.
func TestConcurrentUse(t *testing.T) {
	l := mustCreate(t, testOptions(t), Position{})
	const n = 3000
	done := make(chan struct{})
	var wg sync.WaitGroup
	work := func(f func() error) {
		wg.Go(func() {
			for {
				if err := f(); err != nil {
					t.Error(err)
					return
				}
				select {
				case <-done:
					return
				default:
				}
			}
		})
	}
	var before Position
	work(func() error {
		last := l.Last()
		p, err := l.Sync()
		if err == nil && (p.Less(last) || p.Less(before) || l.Last().Less(p)) {
			t.Errorf("synced %s, appended before %s, synced before %s", p, last, before)
		}
		before = p
		return err
	})
	work(func() error {
		p := l.Synced()
		return l.Compact(p.Index-min(p.Index, 300), p)
	})
	work(func() error {
		after := l.Synced() // at least so far, and not compacted by more than 300
		appended := l.Last()
		es, last, err := Read(l.o.Dir, after, l.o)
		if err == nil && last.Less(appended) {
			t.Errorf("read to %s, %s was appended before", last, appended)
		}
		if err != nil {
			if errors.Is(err, ErrCompacted) {
				return nil // the others were faster
			}
			return err
		}
		if len(es) > 0 {
			sameEntries(t, es, testEntries(1, after.Index+1, last.Index))
		}
		return nil
	})
	work(func() error {
		es, err := l.Entries(l.First(), math.MaxUint64, 1<<10)
		if err != nil && !errors.Is(err, ErrCompacted) {
			return err
		}
		if len(es) > 0 {
			sameEntries(t, es, testEntries(1, es[0].Index, es[len(es)-1].Index))
		}
		_, _ = l.EpochAt(l.First())
		return nil
	})
	mustAppend(t, l, testEntries(1, 1, n))
	close(done)
	wg.Wait()
	if p, err := l.Sync(); err != nil || p.Index != n || l.Synced() != p {
		t.Fatal(p, err)
	}
	for _, seg := range l.files.segments[:len(l.files.segments)-1] {
		if seg.f != nil {
			t.Fatalf("the descriptor of %s is still open", seg.name)
		}
	}
	l = reopen(t, l, n)
	if l.Last().Index != n {
		t.Fatal(l.Last())
	}
}

// When the tail is replaced while an fsync runs, Sync must not report the old tail as durable.
func TestSyncWhileTailIsReplaced(t *testing.T) {
	l := mustCreate(t, testOptions(t), Position{})
	mustAppend(t, l, testEntries(1, 1, 50))
	l.mu.Lock() // as if an fsync had begun at 50
	l.files.cutBack = nil
	l.mu.Unlock()
	mustAppend(t, l, testEntries(2, 30, 60))
	l.mu.Lock()
	got := l.files.cutBack
	l.mu.Unlock()
	if got == nil || *got != (Position{Epoch: 1, Index: 29}) {
		t.Fatal(got)
	}
	if p, err := l.Sync(); err != nil || p != (Position{Epoch: 2, Index: 60}) {
		t.Fatal(p, err)
	}
}

func BenchmarkAppend64x300(b *testing.B) {
	o := Options{Dir: filepath.Join(b.TempDir(), "log")}
	l := mustCreate(b, o, Position{})
	es := make([]Entry, 64)
	data := make([]byte, 300)
	next := uint64(1)
	b.ReportAllocs()
	b.SetBytes(64 * 300)
	for b.Loop() {
		for i := range es {
			es[i] = Entry{Index: next, Epoch: 1, Data: data}
			next++
		}
		if err := l.Append(es); err != nil {
			b.Fatal(err)
		}
		if next%(1<<16) < 64 { // the log must not fill the disk
			if err := l.Compact(next-100, Position{Epoch: 1, Index: next - 100}); err != nil {
				b.Fatal(err)
			}
		}
	}
}

// An append with a sync, like each batch of a leader.
func BenchmarkAppendSync(b *testing.B) {
	for _, n := range []int{1, 32} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			l := mustCreate(b, Options{Dir: filepath.Join(b.TempDir(), "log")}, Position{})
			es, data, next := make([]Entry, n), make([]byte, 300), uint64(1)
			b.ReportAllocs()
			for b.Loop() {
				for i := range es {
					es[i] = Entry{Index: next, Epoch: 1, Data: data}
					next++
				}
				if err := l.Append(es); err != nil {
					b.Fatal(err)
				}
				if _, err := l.Sync(); err != nil {
					b.Fatal(err)
				}
			}
		})
	}
}

// Small appends beside a syncer without pauses. The longest wait of a writer is the directory's
// fsync when a segment ends.
func BenchmarkAppendBesideSync(b *testing.B) {
	l := mustCreate(b, Options{Dir: filepath.Join(b.TempDir(), "log")}, Position{})
	stop, stopped := make(chan struct{}), make(chan struct{})
	syncs := 0
	go func() {
		defer close(stopped)
		for {
			select {
			case <-stop:
				return
			default:
				if _, err := l.Sync(); err != nil {
					b.Error(err)
					return
				}
				syncs++
			}
		}
	}()
	var took []time.Duration
	next, data := uint64(1), make([]byte, 300)
	for b.Loop() {
		began := time.Now()
		if err := l.Append([]Entry{{Index: next, Epoch: 1, Data: data}}); err != nil {
			b.Fatal(err)
		}
		took = append(took, time.Since(began))
		next++
	}
	close(stop)
	<-stopped
	slices.Sort(took)
	b.ReportMetric(float64(took[len(took)*99/100].Microseconds()), "p99-us")
	b.ReportMetric(float64(took[len(took)-1].Microseconds()), "max-us")
	b.ReportMetric(float64(syncs), "syncs")
}

func benchLog(b *testing.B, entries int) Options {
	o := Options{Dir: filepath.Join(b.TempDir(), "log")}
	l := mustCreate(b, o, Position{})
	es := make([]Entry, entries)
	for i := range es {
		es[i] = Entry{Index: uint64(i + 1), Epoch: 1, Data: make([]byte, 300)}
	}
	mustAppend(b, l, es)
	if _, err := l.Sync(); err != nil {
		b.Fatal(err)
	}
	return o
}

// A takeover by a follower that lacks the last 64 entries of a full segment.
func BenchmarkReadLast64(b *testing.B) {
	o := benchLog(b, 11_000)
	b.ReportAllocs()
	for b.Loop() {
		if es, _, err := Read(o.Dir, Position{Epoch: 1, Index: 11_000 - 64}, o); err != nil || len(es) != 64 {
			b.Fatal(len(es), err)
		}
	}
}

// The worst case: all of 4 MiB are missing.
func BenchmarkRead4MiB(b *testing.B) {
	o := benchLog(b, 11_000)
	b.ReportAllocs()
	b.SetBytes(4 << 20)
	for b.Loop() {
		if es, _, err := Read(o.Dir, Position{}, o); err != nil || len(es) != 11_000 {
			b.Fatal(len(es), err)
		}
	}
}

func BenchmarkLastPosition(b *testing.B) {
	o := benchLog(b, 11_000)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := LastPosition(o.Dir, o); err != nil {
			b.Fatal(err)
		}
	}
}
