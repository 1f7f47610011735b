package output

import (
	"bytes"
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"time"
)

const (
	// maxPieceBytes is the length up to which a line is given in one piece.
	maxPieceBytes = 1 << 20
	chunkBytes    = 64 << 10
	// followInterval is how often Follow looks for new output.
	followInterval = 100 * time.Millisecond
)

// Line is a line of output, or a piece of one.
type Line struct {
	// Position is the number of bytes of output before it, except that a live file which
	// replaces another one begins at a larger position.
	Position int64
	Time     time.Time
	// Text has no line end.
	Text string
	// Partial means that no line end follows. The next Line continues this one if its
	// Position is the one behind this Text.
	Partial bool
	// Gap means that output before the line is missing: the limits removed it before it was
	// read, or somebody deleted or truncated the file and it is not known what was in it.
	Gap bool
}

// Reader reads the output of a program. Only one goroutine may use it.
type Reader struct {
	src   *source
	times *times

	next int64 // the position behind the chunk; negative at first
	buf  []byte
	rest []byte // the part of buf that was not given yet
	jump bool   // rest does not follow what was read before
	gap  bool   // because output is missing
	// modified is the live file's time of change when rest was read, if it is needed.
	modified time.Time

	line     []byte // the beginning of a line
	lineGap  bool
	lineTime time.Time
	lineAt   int64
	skip     bool // the current line began before the time that was sought
}

// NewReader makes a Reader that begins with the oldest output.
func NewReader(path string) *Reader {
	r := &Reader{src: &source{path: path}, buf: make([]byte, chunkBytes)}
	r.seek(-1)
	return r
}

// Close closes the files.
func (r *Reader) Close() {
	r.src.close()
	r.times.close()
}

func (r *Reader) seek(position int64) {
	if r.times != nil {
		r.times.close()
	}
	r.times = &times{path: r.src.path, start: -1}
	r.next, r.rest, r.line, r.jump, r.gap, r.skip = position, nil, nil, false, false, false
}

// Next returns the next line. At the end of the output it returns io.EOF, and it can be
// called again later. A line that has no end yet is not returned: see Rest.
func (r *Reader) Next(ctx context.Context) (Line, error) {
	for {
		if len(r.rest) == 0 {
			if err := r.fetch(ctx); err != nil {
				return Line{}, err
			}
		}
		if r.jump && len(r.line) > 0 { // a line does not go on in another file
			if l, ok := r.take(true); ok {
				return l, nil
			}
		}
		if len(r.line) == 0 {
			r.begin()
		}
		n := bytes.IndexByte(r.rest, '\n')
		complete := n >= 0
		if !complete {
			n = len(r.rest)
		}
		n = min(n, maxPieceBytes-len(r.line))
		complete = complete && r.rest[n] == '\n'
		r.line = append(r.line, r.rest[:n]...)
		r.rest = r.rest[n:]
		if complete {
			r.rest = r.rest[1:]
		}
		if complete || len(r.line) == maxPieceBytes {
			if l, ok := r.take(!complete); ok {
				return l, nil
			}
		}
	}
}

// Rest returns the line at the end of the output that has no end yet, if there is one. If
// the line grows later, Next returns its continuation.
func (r *Reader) Rest() (Line, bool) {
	if len(r.line) == 0 {
		return Line{}, false
	}
	return r.take(true)
}

// Pending returns how much was read of the line that Rest would return.
func (r *Reader) Pending() int { return len(r.line) }

// fetch reads the next chunk and the part of the index that covers it.
func (r *Reader) fetch(ctx context.Context) error {
	c, err := r.src.readAt(ctx, r.buf, r.next)
	if err != nil {
		return err
	}
	r.jump, r.gap = r.next >= 0 && c.at != r.next, c.gap
	r.modified = time.Time{}
	r.rest, r.next = r.buf[:c.n], c.at+int64(c.n)
	return r.times.load(c.at, r.next)
}

// begin notes where and when a line begins.
func (r *Reader) begin() {
	r.lineGap = r.gap
	r.skip = r.skip && !r.jump
	r.jump, r.gap = false, false
	r.lineAt = r.next - int64(len(r.rest))
	at, ok := r.times.at(r.lineAt)
	if !ok {
		at = r.lastModified()
	}
	r.lineTime = at
}

// lastModified is the time of the last output in the live file.
func (r *Reader) lastModified() time.Time {
	if r.modified.IsZero() {
		r.modified = time.Now()
		if r.src.live != nil {
			if info, err := r.src.live.Stat(); err == nil {
				r.modified = info.ModTime()
			}
		}
	}
	return r.modified
}

// take returns the current line or piece, and begins a new one. It returns false if the line is to be skipped.
func (r *Reader) take(partial bool) (Line, bool) {
	l := Line{Position: r.lineAt, Time: r.lineTime, Text: string(r.line), Partial: partial, Gap: r.lineGap}
	r.line = r.line[:0]
	skipped := r.skip
	r.skip = r.skip && partial
	return l, !skipped
}

// Read calls f with all lines, including one at the end that has no line end yet.
func (r *Reader) Read(ctx context.Context, f func(Line) error) error {
	for {
		l, err := r.Next(ctx)
		if errors.Is(err, io.EOF) {
			if l, ok := r.Rest(); ok {
				return f(l)
			}
			return nil
		}
		if err != nil {
			return err
		}
		if err := f(l); err != nil {
			return err
		}
	}
}

// Follow calls f with all lines and then with new ones, until ctx ends or f returns an
// error. It waits if there is no file yet.
func (r *Reader) Follow(ctx context.Context, f func(Line) error) error {
	for {
		l, err := r.Next(ctx)
		switch {
		case err == nil:
			if err := f(l); err != nil {
				return err
			}
		case ctx.Err() != nil:
			return nil
		case errors.Is(err, io.EOF), errors.Is(err, os.ErrNotExist):
			wait(ctx, followInterval)
		default:
			return err
		}
	}
}

// SeekTail moves to the last n lines. A line without an end at the end of the output counts.
func (r *Reader) SeekTail(ctx context.Context, n int) error {
	parts, err := r.src.extents(ctx)
	if err != nil {
		return err
	}
	start, err := r.findTail(ctx, parts, n)
	if err != nil {
		return err
	}
	r.seek(start)
	return nil
}

// findTail returns the position at which the last n lines begin.
func (r *Reader) findTail(ctx context.Context, parts []extent, n int) (int64, error) {
	if len(parts) == 0 {
		return -1, nil
	}
	start := parts[len(parts)-1].end
	if n <= 0 {
		return start, nil
	}
	left := n
	for _, x := range slices.Backward(parts) {
		for end := x.end; end > x.start; {
			b := r.buf[:min(chunkBytes, end-x.start)]
			at := end - int64(len(b))
			if ok, err := r.fill(ctx, b, at); err != nil || !ok {
				return start, err
			}
			for i, c := range slices.Backward(b) {
				// The end of a part ends a line, with or without a line end.
				p := at + int64(i)
				if p+1 < x.end && c != '\n' {
					continue
				}
				if p+1 == x.end {
					if left == 0 {
						return start, nil
					}
					left--
					continue
				}
				if left == 0 {
					return p + 1, nil
				}
				left--
			}
			end, start = at, at
		}
	}
	return start, nil
}

// fill reads len(b) bytes at a position. It returns false if they do not exist any more.
func (r *Reader) fill(ctx context.Context, b []byte, at int64) (bool, error) {
	for len(b) > 0 {
		c, err := r.src.readAt(ctx, b, at)
		if errors.Is(err, io.EOF) || err == nil && c.at != at {
			return false, nil
		}
		if err != nil {
			return false, err
		}
		b, at = b[c.n:], at+int64(c.n)
	}
	return true, nil
}

// SeekTime moves to the first line that has at least a time.
func (r *Reader) SeekTime(ctx context.Context, at time.Time) error {
	r.seek(-1)
	position := int64(-1)
	for last := int64(0); ; {
		if err := r.times.load(last, last+1); err != nil {
			return err
		}
		if len(r.times.queue) == 0 { // nothing is that new, or it is not in the index
			break
		}
		e := r.times.queue[0]
		if !e.at.Before(at) {
			position = last
			break
		}
		r.times.queue = r.times.queue[1:]
		last, position = e.end, e.end
	}
	if position <= 0 {
		r.seek(-1)
		return nil
	}
	// The byte before tells whether a line begins here.
	var before [1]byte
	ok, err := r.fill(ctx, before[:], position-1)
	if err != nil {
		return err
	}
	r.seek(position)
	r.skip = ok && before[0] != '\n'
	return nil
}
