package chaos

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/store"
)

// Damage is something that happens to the files of a slot whose process does
// not run, or is stopped.
type Damage struct {
	Name string
	Do   func(rng *rand.Rand, slot datadir.Slot) error
}

// Damages are all that are known. Each is one that a member notices when it
// opens the slot: a byte that changes within a value is not, only CompareReplicas
// finds it.
var Damages = []Damage{
	{"log cut", func(_ *rand.Rand, s datadir.Slot) error { return each(s, Cut) }},
	{"log flipped", func(_ *rand.Rand, s datadir.Slot) error {
		return each(s, func(path string) error { return flip(path, 700) })
	}},
	{"log overwritten", func(rng *rand.Rand, s datadir.Slot) error {
		return each(s, func(path string) error { return Scribble(rng, path, 0) })
	}},
	{"log deleted", func(_ *rand.Rand, s datadir.Slot) error { return os.RemoveAll(s.LogDir()) }},
	{"database cut", func(_ *rand.Rand, s datadir.Slot) error { return Cut(database(s)) }},
	{"database's first page flipped", func(_ *rand.Rand, s datadir.Slot) error { return flip(database(s), 20) }},
	{"database overwritten", func(rng *rand.Rand, s datadir.Slot) error { return Scribble(rng, database(s), 0) }},
	{"database overwritten further on", func(rng *rand.Rand, s datadir.Slot) error { return Scribble(rng, database(s), 2*4096) }},
	{"database deleted", func(_ *rand.Rand, s datadir.Slot) error { return os.RemoveAll(database(s)) }},
	{"slot.json overwritten", func(rng *rand.Rand, s datadir.Slot) error { return Scribble(rng, s.Meta(), 0) }},
	{"slot deleted", func(_ *rand.Rand, s datadir.Slot) error { return os.RemoveAll(s.Path()) }},
}

func database(s datadir.Slot) string { return store.Path(s.DBDir()) }

// Segments are the files of a slot's log.
func Segments(s datadir.Slot) ([]string, error) {
	found, err := filepath.Glob(filepath.Join(s.LogDir(), "*.wal"))
	if err == nil && len(found) == 0 {
		err = fmt.Errorf("no log in %s: %w", s.LogDir(), os.ErrNotExist)
	}
	return found, err
}

func each(s datadir.Slot, do func(path string) error) error {
	paths, err := Segments(s)
	for _, path := range paths {
		err = errors.Join(err, do(path))
	}
	return err
}

// Cut takes half of what is written away.
func Cut(path string) error {
	raw, err := os.ReadFile(path)
	if err != nil {
		return err
	}
	return os.Truncate(path, int64(len(bytes.TrimRight(raw, "\x00"))/2))
}

func flip(path string, offset int64) error {
	return change(path, offset, 1, func(b []byte) {
		for i := range b {
			b[i] ^= 0x10
		}
	})
}

// Scribble writes a page of random bytes over a file's bytes at an offset.
func Scribble(rng *rand.Rand, path string, offset int64) error {
	return change(path, offset, 4096, func(b []byte) {
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
	})
}

// change rewrites up to n bytes of a file in place.
func change(path string, offset int64, n int, f func([]byte)) error {
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		return err
	}
	defer file.Close()
	b := make([]byte, n)
	if n, err = file.ReadAt(b, offset); err != nil && !errors.Is(err, io.EOF) {
		return err
	}
	f(b[:n])
	_, err = file.WriteAt(b[:n], offset)
	return err
}
