package logview

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"strings"
	"time"
)

// maxLineBytes bounds a line. Package logging cuts lines far below that.
const maxLineBytes = 1 << 20

// assembler makes entries from lines.
type assembler struct {
	pending *Entry
	last    time.Time
}

// add takes a line and returns the entry that is complete because of it, if any.
func (a *assembler) add(line string) *Entry {
	e, ok := parse(line)
	if !ok && a.pending != nil && len(a.pending.Raw) < maxLineBytes {
		a.pending.extend(line)
		return nil
	}
	if !ok {
		e = Entry{At: a.last, Message: line, Raw: line}
	}
	a.last = e.At
	done := a.pending
	a.pending = &e
	return done
}

// flush returns the entry that waits for more lines, if any.
func (a *assembler) flush() *Entry {
	done := a.pending
	a.pending = nil
	return done
}

// memberTail reads the files of a member: the closed ones, then the current one as it grows, and
// then the files that replace it.
type memberTail struct {
	closed   []string // not read yet
	path     string   // of the current file
	f        *os.File // the file that is read, or nil
	current  bool     // it was the current one when it was opened
	replaced bool     // it is no longer the current one
	in       *bufio.Reader
	partial  strings.Builder
	made     assembler
	grew     bool // something was read since the last call of settled
}

// open opens a file. It returns false if there is none.
func (t *memberTail) open(path string) (bool, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read log file: %w", err)
	}
	t.close()
	t.f, t.in = f, bufio.NewReader(f)
	return true, nil
}

func (t *memberTail) close() {
	if t.f != nil {
		_ = t.f.Close()
		t.f = nil
	}
}

func (t *memberTail) next(context.Context) (*Entry, error) {
	for {
		if e, err := t.read(); e != nil || err != nil {
			return e, err
		}
		another, err := t.another()
		if err != nil || !another {
			return nil, err
		}
	}
}

// another prepares the reading of the next file. It returns false if there is none.
func (t *memberTail) another() (bool, error) {
	for len(t.closed) > 0 {
		path := t.closed[0]
		t.closed = t.closed[1:]
		if ok, err := t.open(path); err != nil || ok {
			return ok, err
		}
	}
	if t.f != nil && t.current && !t.replaced {
		info, err := os.Stat(t.path)
		if errors.Is(err, fs.ErrNotExist) {
			return false, nil
		}
		if err != nil {
			return false, fmt.Errorf("read log file: %w", err)
		}
		own, err := t.f.Stat()
		// First read what was added to the old file meanwhile, then the new file.
		t.replaced = err != nil || !os.SameFile(own, info)
		return t.replaced, nil
	}
	ok, err := t.open(t.path)
	if ok {
		t.current, t.replaced = true, false
	}
	return ok, err
}

// read returns the next entry of the open file, or nil at its present end.
func (t *memberTail) read() (*Entry, error) {
	for t.f != nil {
		piece, err := t.in.ReadString('\n')
		t.grew = t.grew || piece != ""
		if t.partial.Len()+len(piece) <= maxLineBytes {
			t.partial.WriteString(piece)
		}
		if errors.Is(err, io.EOF) {
			return nil, nil
		}
		if err != nil {
			return nil, fmt.Errorf("read log file: %w", err)
		}
		line := strings.TrimRight(t.partial.String(), "\r\n")
		t.partial.Reset()
		if e := t.made.add(line); e != nil {
			return e, nil
		}
	}
	return nil, nil
}

func (t *memberTail) flush() *Entry { return t.made.flush() }

// settled returns the last entry when nothing was added from one call to the next.
func (t *memberTail) settled() *Entry {
	grew := t.grew
	t.grew = false
	if grew {
		return nil
	}
	return t.made.flush()
}
