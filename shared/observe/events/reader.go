package events

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"time"
)

// maxLineBytes bounds the length of a line. Longer lines are not events.
const maxLineBytes = 64 << 10

// followInterval is how often Follow looks for new events.
const followInterval = 100 * time.Millisecond

// Read returns all recorded events, in the order of their times.
func Read(dir string) ([]Event, error) {
	r := NewReader(dir)
	defer r.Close()
	out, err := r.Next()
	slices.SortStableFunc(out, func(a, b Event) int { return a.At.Compare(b.At) })
	return out, err
}

// Reader reads the events of a data directory. Only one goroutine may use it.
type Reader struct {
	dir     string
	begun   bool
	f       *os.File // the current file; nil if there is none yet
	partial []byte   // the beginning of a line that is not complete yet
	skip    bool     // the line is too long and is dropped up to its end
}

// NewReader makes a reader that begins with the oldest event.
func NewReader(dir string) *Reader { return &Reader{dir: dir} }

// Close closes the file.
func (r *Reader) Close() {
	if r.f != nil {
		_ = r.f.Close()
		r.f = nil
	}
}

// Next returns the events since the last call, in the order of the file. It returns none if
// there is no file.
func (r *Reader) Next() ([]Event, error) {
	var out []Event
	if !r.begun {
		r.begun = true
		old, err := r.whole(oldName)
		if err != nil {
			return nil, err
		}
		out = append(out, old...)
	}
	for {
		more, err := r.rest()
		out = append(out, more...)
		if err != nil {
			return out, err
		}
		changed, more, err := r.advance()
		out = append(out, more...)
		if err != nil || !changed {
			return out, err
		}
	}
}

// Follow calls f with the existing events and then with new ones, until ctx ends or f returns
// an error.
func (r *Reader) Follow(ctx context.Context, f func([]Event) error) error {
	tick := time.NewTicker(followInterval)
	defer tick.Stop()
	for {
		es, err := r.Next()
		if err != nil {
			return err
		}
		if len(es) > 0 {
			if err := f(es); err != nil {
				return err
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			return nil
		}
	}
}

// advance opens the file, or the new file after a change of files. It then first returns the
// rest of the old one.
func (r *Reader) advance() (changed bool, more []Event, err error) {
	path := filepath.Join(r.dir, fileName)
	info, err := os.Stat(path)
	if errors.Is(err, os.ErrNotExist) {
		return false, nil, nil
	}
	if err != nil {
		return false, nil, fmt.Errorf("read events: %w", err)
	}
	if r.f != nil {
		if own, err := r.f.Stat(); err == nil && os.SameFile(own, info) {
			return false, nil, nil
		}
		if more, err = r.rest(); err != nil {
			return false, more, err
		}
		r.Close()
		r.partial, r.skip = nil, false
	}
	if r.f, err = os.Open(path); err != nil {
		r.f = nil
		return false, more, fmt.Errorf("read events: %w", err)
	}
	return true, more, nil
}

func (r *Reader) whole(name string) ([]Event, error) {
	f, err := os.Open(filepath.Join(r.dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("read events: %w", err)
	}
	r.f = f
	defer func() { r.Close(); r.partial, r.skip = nil, false }()
	return r.rest()
}

// rest reads to the current end of the file.
func (r *Reader) rest() ([]Event, error) {
	if r.f == nil {
		return nil, nil
	}
	var out []Event
	in := bufio.NewReader(r.f)
	for {
		piece, err := in.ReadSlice('\n')
		r.add(piece)
		switch {
		case err == nil:
			if e, err := decode(r.partial); err == nil && !r.skip {
				out = append(out, e)
			}
			r.partial, r.skip = r.partial[:0], false
		case errors.Is(err, bufio.ErrBufferFull):
		case errors.Is(err, io.EOF):
			return out, nil
		default:
			return out, fmt.Errorf("read events: %w", err)
		}
	}
}

func (r *Reader) add(piece []byte) {
	if r.skip = r.skip || len(r.partial)+len(piece) > maxLineBytes; r.skip {
		r.partial = r.partial[:0]
		return
	}
	r.partial = append(r.partial, piece...)
}
