package log

import (
	"bytes"
	"errors"
	"io/fs"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
)

// contents returns the files of a directory.
func contents(t *testing.T, dir string) map[string][]byte {
	t.Helper()
	files := map[string][]byte{}
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if files[n.Name()], err = os.ReadFile(filepath.Join(dir, n.Name())); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func restore(t *testing.T, dir string, files map[string][]byte) {
	t.Helper()
	names, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range names {
		if err := os.Remove(filepath.Join(dir, n.Name())); err != nil {
			t.Fatal(err)
		}
	}
	for name, data := range files {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
}

// TestDamageAnywhere: a segment is cut off, zeroed from some place on or missing, or one of its
// bytes is changed, at thousands of places. A read returns a prefix of what was written, or an
// error. Opening for append either continues from that prefix, or refuses and does not change a
// byte.
func TestDamageAnywhere(t *testing.T) {
	seed := rand.Uint64()
	t.Logf("seed %d", seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	o, segs := closedLog(t, testOptions(t), 90)
	whole := contents(t, o.Dir)
	outcomes := map[string]int{}
	try := func(name string, damaged []byte) {
		t.Helper()
		path := filepath.Join(o.Dir, name)
		if damaged == nil {
			if err := os.Remove(path); err != nil {
				t.Fatal(err)
			}
		} else if err := os.WriteFile(path, damaged, 0o600); err != nil {
			t.Fatal(err)
		}
		es, last, err := Read(o.Dir, Position{}, o)
		switch {
		case errors.Is(err, ErrCorrupt), errors.Is(err, ErrCompacted), errors.Is(err, ErrDiverged), errors.Is(err, fs.ErrNotExist):
			outcomes["refused"]++
		case err != nil:
			t.Fatal(err)
		default:
			sameEntries(t, es, testEntries(1, 1, last.Index))
			if last.Index < 90 {
				outcomes["shortened"]++
			}
		}
		if rng.IntN(20) > 0 { // opening is slow
			return
		}
		before := contents(t, o.Dir)
		l, openErr := Open(o, 0)
		if openErr != nil {
			if err == nil && !errors.Is(openErr, ErrCorrupt) {
				t.Fatalf("read to %s, and not opened: %v", last, openErr)
			}
			for name, data := range contents(t, o.Dir) {
				if !bytes.Equal(data, before[name]) {
					t.Fatalf("%v, and %s was changed", openErr, name)
				}
				delete(before, name)
			}
			if len(before) > 0 {
				t.Fatalf("%v, and %d files are gone", openErr, len(before))
			}
			outcomes["not opened"]++
		} else {
			got := l.Last()
			if err == nil && got != last {
				t.Fatalf("read to %s, opened at %s", last, got)
			}
			mustAppend(t, l, testEntries(2, got.Index+1, got.Index+5))
			if err := l.Close(); err != nil {
				t.Fatal(err)
			}
			outcomes["opened"]++
		}
		restore(t, o.Dir, whole)
	}
	places := 0
	for _, seg := range segs {
		name := seg.String()
		data := whole[name]
		frames := frameOffsets(data)
		used := frames[len(frames)-1]
		try(name, nil)
		restore(t, o.Dir, whole)
		for pos := 0; pos < used; pos += 1 + rng.IntN(100) {
			places++
			try(name, bytes.Clone(data[:pos]))
			zeroed := bytes.Clone(data)
			clear(zeroed[pos:])
			try(name, zeroed)
			flipped := bytes.Clone(data)
			flipped[pos] ^= 1 << rng.IntN(8)
			try(name, flipped)
			if err := os.WriteFile(filepath.Join(o.Dir, name), data, 0o600); err != nil {
				t.Fatal(err)
			}
		}
	}
	t.Logf("3 kinds of damage at %d places: %v", places, outcomes)
	if places < 300 || outcomes["refused"] == 0 || outcomes["shortened"] == 0 || outcomes["opened"] == 0 || outcomes["not opened"] == 0 {
		t.Errorf("too little happened to be a test")
	}
}
