package log

import (
	"bytes"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/dynast-io/dynast/shared/prove/fuzzing"
)

// FuzzSegment: a segment of any bytes is read to its end, or refused with the place of the
// error.
func FuzzSegment(f *testing.F) {
	o := Options{Dir: filepath.Join(f.TempDir(), "log"), SegmentBytes: 8 << 10}
	o, segs := closedLog(f, o, 30)
	for _, s := range segs {
		data, err := os.ReadFile(filepath.Join(o.Dir, s.String()))
		if err != nil {
			f.Fatal(err)
		}
		frames := frameOffsets(data)
		data = data[:min(len(data), frames[len(frames)-1]+16)]
		f.Add(s.seq == 0, data)
		f.Add(true, data[:len(data)/2])
	}
	f.Add(true, []byte{})
	f.Add(true, make([]byte, 600))
	f.Add(true, []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0x00, 8, 1}) // a length of 2^56
	f.Add(true, []byte{0, 0, 0, 0x7f, 0, 0, 0, 0x80, 8, 4, 16, 0, 26, 0xff, 0xff, 0xff, 0xff, 0x0f})
	f.Fuzz(func(t *testing.T, first bool, data []byte) {
		dir := t.TempDir()
		name := segmentName{}
		if !first {
			name = segmentName{seq: 3, index: 21}
		}
		if err := os.WriteFile(filepath.Join(dir, name.String()), data, 0o600); err != nil {
			t.Fatal(err)
		}
		var es []Entry
		var last Position
		var err error
		fuzzing.Bounded(t, len(data), 128, func() { es, last, err = Read(dir, Position{}, Options{}) })
		if err != nil {
			placed := strings.Contains(err.Error(), name.String()) && strings.Contains(err.Error(), "offset")
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrCompacted) && !errors.Is(err, ErrDiverged) || errors.Is(err, ErrCorrupt) && !placed {
				t.Fatalf("an error that does not say where: %v", err)
			}
		}
		prev := Position{}
		if len(es) > 0 {
			prev = Position{Index: es[0].Index - 1}
		}
		for _, e := range es {
			if e.Index != prev.Index+1 || e.Epoch < prev.Epoch || e.Epoch == 0 {
				t.Fatalf("%s after %s", e.Position(), prev)
			}
			prev = e.Position()
		}
		if err == nil && len(es) > 0 && last != prev {
			t.Fatalf("ends at %s, last is %s", prev, last)
		}
		if now, _ := os.ReadFile(filepath.Join(dir, name.String())); !bytes.Equal(now, data) {
			t.Fatal("reading changed the segment")
		}
	})
}

// FuzzAppend: appended entries, in batches of any size and over any replaced tail, are read
// back by this process, by another one, and after reopening.
func FuzzAppend(f *testing.F) {
	f.Add([]byte{1, 2, 3})
	f.Add([]byte("some batches, with some tails replaced\x00\xff\xfe"))
	f.Add(bytes.Repeat([]byte{200}, 40))
	f.Fuzz(func(t *testing.T, plan []byte) {
		if len(plan) > 48 {
			plan = plan[:48]
		}
		o := Options{Dir: filepath.Join(t.TempDir(), "log"), SegmentBytes: 8 << 10}
		l, err := Create(o, Position{})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = l.Close() }()
		var want []Entry
		epoch := uint64(1)
		for i, b := range plan {
			from := uint64(len(want)) + 1
			if b&3 == 3 && len(want) > 0 { // a new leader replaces some of the end
				epoch++
				from -= min(uint64(b>>4), uint64(len(want)))
			}
			var batch []Entry
			for j := range uint64(1 + b&7) {
				batch = append(batch, Entry{Index: from + j, Epoch: epoch, Data: bytes.Repeat([]byte{b, byte(i)}, int(b)*int(j)%700)})
			}
			if err := l.Append(batch); err != nil {
				t.Fatal(err)
			}
			want = append(want[:from-1], batch...)
			if b&16 != 0 {
				if _, err := l.Sync(); err != nil {
					t.Fatal(err)
				}
			}
		}
		same := func(got []Entry) {
			t.Helper()
			if len(got) != len(want) {
				t.Fatalf("%d entries, want %d", len(got), len(want))
			}
			for i := range got {
				if got[i].Position() != want[i].Position() || !bytes.Equal(got[i].Data, want[i].Data) {
					t.Fatalf("entry %d is %s, want %s", i, got[i].Position(), want[i].Position())
				}
			}
		}
		same(all(t, l))
		got, _, err := Read(o.Dir, Position{}, o)
		if err != nil {
			t.Fatal(err)
		}
		same(got)
		if err := l.Close(); err != nil {
			t.Fatal(err)
		}
		if l, err = Open(o, 0); err != nil {
			t.Fatal(err)
		}
		same(all(t, l))
	})
}
