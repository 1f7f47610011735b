package logview

import (
	"bufio"
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

// tail reads a file as it grows, and then the file that replaces it after a rotation.
type tail struct {
	path    string
	f       *os.File
	in      *bufio.Reader
	partial strings.Builder
	made    assembler
	idle    bool // nothing was added since the last poll
}

// open opens the file. It returns false if there is none.
func (t *tail) open() (bool, error) {
	f, err := os.Open(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return false, nil
	}
	if err != nil {
		return false, fmt.Errorf("read log file: %w", err)
	}
	t.f, t.in = f, bufio.NewReader(f)
	return true, nil
}

func (t *tail) close() {
	if t.f != nil {
		_ = t.f.Close()
		t.f = nil
	}
}

// next returns the next entry, or nil at the current end.
func (t *tail) next() (*Entry, error) {
	for t.f != nil {
		piece, err := t.in.ReadString('\n')
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

// poll returns the entries since the last poll. The last entry of a file counts as complete
// when nothing was added from one poll to the next.
func (t *tail) poll() ([]*Entry, error) {
	out, err := t.rest(nil)
	if err != nil {
		return out, err
	}
	info, err := os.Stat(t.path)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return out, fmt.Errorf("read log file: %w", err)
	}
	if err == nil {
		same := false
		if t.f != nil {
			own, err := t.f.Stat()
			same = err == nil && os.SameFile(own, info)
		}
		if !same {
			// First read what was added to the old file, then the new file.
			if out, err = t.rest(out); err != nil {
				return out, err
			}
			t.close()
			if _, err := t.open(); err != nil {
				return out, err
			}
			if out, err = t.rest(out); err != nil {
				return out, err
			}
		}
	}
	if len(out) == 0 && t.idle {
		if e := t.made.flush(); e != nil {
			out = append(out, e)
		}
	}
	t.idle = len(out) == 0
	return out, nil
}

func (t *tail) rest(out []*Entry) ([]*Entry, error) {
	for {
		e, err := t.next()
		if e == nil || err != nil {
			return out, err
		}
		out = append(out, e)
	}
}
