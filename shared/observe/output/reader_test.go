package output

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// begin is a time far from now, so that it cannot be confused with the time of a file.
var begin = time.UnixMilli(2_000_000_000_000)

// A line has the time at which Tend first saw its first byte.
func TestTimes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	w := newWriter(t, path)
	k := newTestKeeper(t, path, testLimits)
	var want []time.Time
	now := begin
	tendAt := func() {
		t.Helper()
		if _, err := k.Tend(now); err != nil {
			t.Fatal(err)
		}
	}
	tendAt() // from here on, the Keeper watches
	for i := range 200 {
		now = now.Add(time.Duration(100+i) * time.Millisecond)
		if i == 100 {
			now = now.Add(time.Hour) // nothing was written for an hour
		}
		w.write(1 + i%20)
		tendAt()
		for len(want) < w.n {
			want = append(want, now)
		}
	}
	if err := k.Close(now); err != nil {
		t.Fatal(err)
	}
	_, indexes, err := list(path)
	if err != nil || len(indexes) < 3 {
		t.Fatalf("index files: %v, %v", indexes, err)
	}
	r := NewReader(path)
	defer r.Close()
	i := 0
	compare := func(l Line) error {
		if l.Text != numbered(i) || !l.Time.Equal(want[i]) {
			return fmt.Errorf("%q has time %v instead of %v", l.Text, l.Time, want[i])
		}
		i++
		return nil
	}
	if err := r.Read(t.Context(), compare); err != nil || i != w.n {
		t.Errorf("after %d lines: %v", i, err)
	}
	for _, since := range []time.Time{begin, want[0], want[300], want[900].Add(time.Millisecond), begin.Add(30 * time.Minute), want[w.n-1]} {
		i = 0
		for want[i].Before(since) {
			i++
		}
		if err := r.SeekTime(t.Context(), since); err != nil {
			t.Fatal(err)
		}
		if err := r.Read(t.Context(), compare); err != nil || i != w.n {
			t.Errorf("since %v: after %d lines: %v", since, i, err)
		}
	}
	if err := r.SeekTime(t.Context(), now.Add(time.Hour)); err != nil {
		t.Fatal(err)
	}
	if l, err := r.Next(t.Context()); !errors.Is(err, io.EOF) {
		t.Errorf("later than everything: %+v, %v", l, err)
	}
}

// Output that was written while no Keeper was there has the time of the file.
func TestTimeWithoutKeeper(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	newWriter(t, path).write(1)
	written := time.UnixMilli(1_500_000_000_000)
	if err := os.Chtimes(path, written, written); err != nil {
		t.Fatal(err)
	}
	for _, what := range []string{"before", "after"} {
		r := NewReader(path)
		defer r.Close()
		if l, err := r.Next(t.Context()); err != nil || !l.Time.Equal(written) {
			t.Errorf("%s the Keeper came: %+v, %v", what, l, err)
		}
		k := newTestKeeper(t, path, testLimits)
		tend(t, k)
		k.release()
		later := written.Add(time.Hour)
		if err := os.Chtimes(path, later, later); err != nil {
			t.Fatal(err)
		}
	}
}

// At most one index entry is written per interval, and the index stays smaller than a share of the output.
func TestIndexIsSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	w := newWriter(t, path)
	k := newTestKeeper(t, path, Limits{})
	defer k.release()
	now := begin
	for range 100 {
		w.write(1)
		if _, err := k.Tend(now); err != nil {
			t.Fatal(err)
		}
		now = now.Add(indexInterval / 10)
	}
	if k.indexBytes != 10*entryBytes {
		t.Errorf("%d bytes of index for ten intervals", k.indexBytes)
	}
	for range 20_000 {
		w.write(1)
		if _, err := k.Tend(now); err != nil {
			t.Fatal(err)
		}
		now = now.Add(indexInterval)
	}
	if k.indexBytes > 4*minIndexBytes {
		t.Errorf("%d bytes of index", k.indexBytes)
	}
}

func TestTail(t *testing.T) {
	onEach(t, func(t *testing.T, path string) {
		w := newWriter(t, path)
		k := newTestKeeper(t, path, testLimits)
		for range 10 {
			w.write(200)
			tend(t, k)
		}
		defer k.release()
		for _, unfinished := range []bool{false, true} {
			lines := w.n
			if unfinished {
				if _, err := w.f.WriteString(numbered(w.n)); err != nil {
					t.Fatal(err)
				}
				lines++
			}
			for _, n := range []int{0, 1, 2, 10, 700, lines - 1, lines, lines + 1} {
				r := NewReader(path)
				defer r.Close()
				if err := r.SeekTail(t.Context(), n); err != nil {
					t.Fatal(err)
				}
				at := max(0, lines-n)
				if err := r.Read(t.Context(), func(l Line) error {
					if l.Text != numbered(at) || l.Gap {
						return fmt.Errorf("%+v instead of line %d", l, at)
					}
					at++
					return nil
				}); err != nil || at != lines {
					t.Errorf("the last %d of %d lines, up to %d: %v", n, lines, at, err)
				}
			}
		}
	})
}

// A deleted file ends a line, with or without a line end.
func TestTailOverFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	for i := range 3 {
		w := newWriter(t, path)
		k := newTestKeeper(t, path, testLimits)
		if _, err := fmt.Fprintf(w.f, "first of %d\nlast of %d", i, i); err != nil {
			t.Fatal(err)
		}
		tend(t, k)
		if i < 2 {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		}
		if err := k.Close(time.Now()); err != nil {
			t.Fatal(err)
		}
	}
	all := []string{"first of 0", "last of 0", "first of 1", "last of 1", "first of 2", "last of 2"}
	for n := 1; n <= len(all); n++ {
		r := NewReader(path)
		defer r.Close()
		if err := r.SeekTail(t.Context(), n); err != nil {
			t.Fatal(err)
		}
		var got []string
		if err := r.Read(t.Context(), func(l Line) error { got = append(got, l.Text); return nil }); err != nil {
			t.Fatal(err)
		}
		if want := all[len(all)-n:]; strings.Join(got, "|") != strings.Join(want, "|") {
			t.Errorf("the last %d lines: %q", n, got)
		}
	}
}

// A very long line comes in pieces, each with the position that tells that it goes on.
func TestLongLine(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	w := newWriter(t, path)
	k := newTestKeeper(t, path, Limits{MaxBytes: 300 << 10, MaxBackups: 100})
	defer k.release()
	long := bytes.Repeat([]byte("0123456789abcdef"), (5<<20/2)/16)
	for piece := range bytesIn(long, 100<<10) {
		if _, err := w.f.Write(piece); err != nil {
			t.Fatal(err)
		}
		tend(t, k)
	}
	if _, err := w.f.WriteString("\nshort\n"); err != nil {
		t.Fatal(err)
	}
	r := NewReader(path)
	defer r.Close()
	var got []byte
	var lengths []int
	if err := r.Read(t.Context(), func(l Line) error {
		if l.Text == "short" {
			return nil
		}
		if l.Position != int64(len(got)) || l.Partial != (len(lengths) < 2) {
			return fmt.Errorf("piece %d is at %d, partial %v", len(lengths), l.Position, l.Partial)
		}
		got = append(got, l.Text...)
		lengths = append(lengths, len(l.Text))
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if !bytes.Equal(got, long) || len(lengths) != 3 {
		t.Errorf("pieces of %v bytes, %d in all", lengths, len(got))
	}
}

func bytesIn(b []byte, n int) func(yield func([]byte) bool) {
	return func(yield func([]byte) bool) {
		for len(b) > 0 {
			if !yield(b[:min(n, len(b))]) {
				return
			}
			b = b[min(n, len(b)):]
		}
	}
}

// A line whose length is exactly that of a piece is followed by an empty last piece.
func TestLineOfOnePiece(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	w := newWriter(t, path)
	if _, err := w.f.WriteString(strings.Repeat("x", maxPieceBytes) + "\n\nend"); err != nil {
		t.Fatal(err)
	}
	r := NewReader(path)
	defer r.Close()
	var got strings.Builder
	if err := r.Read(t.Context(), func(l Line) error {
		got.WriteString(l.Text)
		if !l.Partial {
			got.WriteString("\n")
		}
		return nil
	}); err != nil {
		t.Fatal(err)
	}
	if want := strings.Repeat("x", maxPieceBytes) + "\n\nend"; got.String() != want {
		t.Errorf("%d bytes instead of %d", got.Len(), len(want))
	}
}

// Follow waits for the file, and holds a line back until its end comes.
func TestFollow(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	lines := make(chan Line, 10)
	done := make(chan error, 1)
	go func() {
		r := NewReader(path)
		defer r.Close()
		done <- r.Follow(ctx, func(l Line) error { lines <- l; return nil })
	}()
	w := newWriter(t, path)
	if _, err := w.f.WriteString("one\ntwo"); err != nil {
		t.Fatal(err)
	}
	if l := <-lines; l.Text != "one" {
		t.Errorf("%+v", l)
	}
	if _, err := w.f.WriteString(" and three\nfour\n"); err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{"two and three", "four"} {
		if l := <-lines; l.Text != want || l.Partial {
			t.Errorf("%+v instead of %q", l, want)
		}
	}
	cancel()
	if err := <-done; err != nil {
		t.Error(err)
	}
	stop := errors.New("enough")
	r := NewReader(path)
	defer r.Close()
	if err := r.Follow(t.Context(), func(Line) error { return stop }); !errors.Is(err, stop) {
		t.Errorf("the function's error: %v", err)
	}
	if err := NewReader(path+".none").Read(t.Context(), nil); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
}

// A reader waits while a live Keeper is removing the beginning of the file.
func TestReaderWaitsForCollapse(t *testing.T) {
	path := filepath.Join(t.TempDir(), "output.log")
	w := newWriter(t, path)
	k := newTestKeeper(t, path, testLimits)
	defer k.release()
	w.write(1000)
	inside, goOn := make(chan struct{}), make(chan struct{})
	k.step = func(name string) error {
		if name == "collapse" {
			close(inside)
			<-goOn
		}
		return nil
	}
	done := make(chan error, 1)
	go func() { _, err := k.Tend(time.Now()); done <- err }()
	select {
	case <-inside:
	case err := <-done:
		t.Fatalf("Tend ended early: %v", err)
	}
	r := NewReader(path)
	defer r.Close()
	read := make(chan error, 1)
	var c checker
	started := make(chan struct{})
	go func() {
		read <- r.Read(t.Context(), func(l Line) error {
			if c.n == 0 {
				close(started)
			}
			return c.take(l)
		})
	}()
	<-started // the rotated part can be read meanwhile
	other := &source{path: path}
	defer other.close()
	st, err := other.read()
	if err != nil || st.live.phase != collapsing {
		t.Fatalf("%+v, %v", st, err)
	}
	busy := chunk{at: st.live.start}
	if again, err := other.tryRead(make([]byte, 100), &busy); !again || err != nil || busy.n >= 0 {
		t.Errorf("a read inside the collapse: %+v, %v, %v", busy, again, err)
	}
	close(goOn)
	if err := errors.Join(<-done, <-read); err != nil || c.n != w.n {
		t.Errorf("%d lines of %d: %v", c.n, w.n, err)
	}
	testkit.Eventually(t, "the rotation to be complete", func() bool {
		st, err := readState(k.lock)
		return err == nil && st.live.phase == idle
	})
}

func FuzzIndex(f *testing.F) {
	f.Add([]byte{}, int64(0))
	f.Add(append(entry{5, begin}.encode(), entry{9, begin}.encode()...), int64(3))
	f.Add(make([]byte, 100), int64(0))
	f.Fuzz(func(t *testing.T, b []byte, end int64) {
		last := end
		for _, e := range decodeEntries(nil, b, end) {
			if e.end <= last || e.end > maxPosition {
				t.Errorf("position %d after %d", e.end, last)
			}
			last = e.end
			if !bytes.Contains(b, e.encode()) {
				t.Errorf("%+v is not in the input", e)
			}
		}
	})
}

func FuzzState(f *testing.F) {
	s := state{seq: 7, live: region{id: identity{1, 2}, base: 4096, start: 8192, phase: cutting, pid: 3, fd: 4}}
	f.Add(s.encode())
	f.Add(append(append(s.encode(), make([]byte, slotDistance-slotBytes)...), state{seq: 8}.encode()...))
	f.Fuzz(func(t *testing.T, b []byte) {
		s := decodeState(b)
		if s.seq == 0 {
			return
		}
		if s.live.start < s.live.base || s.live.base < 0 || s.live.phase >= phases || !bytes.Contains(b, s.encode()) {
			t.Errorf("%+v", s)
		}
	})
}

// A torn write of the state leaves the one before it.
func TestTornState(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "state"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	for seq := uint64(1); seq < 5; seq++ {
		s := state{seq: seq, live: region{start: int64(seq)}}
		torn := s.encode()[:slotBytes/2]
		if _, err := f.WriteAt(torn, int64(seq%2)*slotDistance); err != nil {
			t.Fatal(err)
		}
		if got, err := readState(f); err != nil || got.seq != seq-1 {
			t.Errorf("after a torn write of state %d: %+v, %v", seq, got, err)
		}
		if err := writeState(f, s); err != nil {
			t.Fatal(err)
		}
		if got, err := readState(f); err != nil || got != s {
			t.Errorf("%+v, %v", got, err)
		}
	}
}
