package chaos

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/replica/store"
)

// Damage changes the files of a slot whose process does not run or is stopped.
type Damage struct {
	Name string
	Do   func(rng *rand.Rand, slot datadir.Slot) error
}

// Damages lists all kinds of damage. A member notices each of them when it opens the slot. A
// changed byte within a value is not among them, because only CompareReplicas finds it.
var Damages = []Damage{
	{"log cut", func(_ *rand.Rand, s datadir.Slot) error { return each(s, Cut) }},
	{"bit of the log flipped", func(_ *rand.Rand, s datadir.Slot) error {
		return each(s, func(path string) error { return flip(path, 700) })
	}},
	{"log overwritten", func(rng *rand.Rand, s datadir.Slot) error {
		return each(s, func(path string) error { return Scribble(rng, path, 0) })
	}},
	{"log deleted", func(_ *rand.Rand, s datadir.Slot) error { return os.RemoveAll(s.LogDir()) }},
	{"database cut", func(_ *rand.Rand, s datadir.Slot) error { return Cut(database(s)) }},
	{"bit of the database's first page flipped", func(_ *rand.Rand, s datadir.Slot) error { return flip(database(s), 20) }},
	{"database overwritten", func(rng *rand.Rand, s datadir.Slot) error { return Scribble(rng, database(s), 0) }},
	{"third page of the database overwritten", func(rng *rand.Rand, s datadir.Slot) error { return Scribble(rng, database(s), 2*4096) }},
	{"database deleted", func(_ *rand.Rand, s datadir.Slot) error { return os.RemoveAll(database(s)) }},
	{"slot.json overwritten", func(rng *rand.Rand, s datadir.Slot) error { return Scribble(rng, s.Meta(), 0) }},
	{"slot deleted", func(_ *rand.Rand, s datadir.Slot) error { return os.RemoveAll(s.Path()) }},
}

func database(s datadir.Slot) string { return store.Path(s.DBDir()) }

// Segments returns the files of a slot's log.
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

// Cut removes the second half of the written part of a file.
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

// Scribble overwrites a page at an offset with random bytes.
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
