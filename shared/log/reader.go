package log

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// Reader reads entries of a log that are not in memory any more, in their order,
// from its files. One goroutine uses it.
//
// It is for a log that only grows: its owner leads, so that from the last epoch's
// first entry on nothing is replaced. What was replaced before is not shown.
type Reader struct {
	l     *Log
	after Position // the next entry follows it
	sure  bool     // the log has after, or had it
	epoch uint64   // the last one

	name   segmentName  // of the segment that is being read
	frames *frameReader // nil: to be opened
	crc    uint32       // at the end of the segment before; 0: not known
	headed bool         // the segment's header is read
	scan   scan
	bytes  int // about what waits in scan
	// ended: nothing more was found in the segment, beyond what was read ahead of its
	// writer, and next is the segment after it, as it was then.
	ended bool
	next  *segmentName
}

// ReadAfter begins behind a position. ErrCompacted: what follows it is not there
// any more. ErrDiverged: the log has another entry there. ErrOutOfOrder: nothing follows.
func (l *Log) ReadAfter(after Position) (*Reader, error) {
	names, last := l.onDisk()
	if after.Index >= last.Index {
		return nil, fmt.Errorf("read log %s after %s: %w: it ends at %s", l.o.Dir, after, ErrOutOfOrder, last)
	}
	r := &Reader{l: l, after: after, epoch: last.Epoch}
	r.locate(names)
	if err := r.fill(last.Index, 1); err != nil {
		r.Close()
		return nil, r.failed(err)
	}
	return r, nil
}

// locate begins with the segment that has what is wanted next.
func (r *Reader) locate(segments []segmentName) {
	r.Close()
	r.name, r.crc = segments[segmentOf(segments, r.after.Index)], 0
	r.scan, r.bytes = scan{forget: r.after.Index}, 0
}

// onDisk is what the files hold in any case.
func (l *Log) onDisk() (segments []segmentName, last Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.files.segments {
		segments = append(segments, s.name)
	}
	return segments, l.tail.last()
}

// Next returns the next entries, of about maxBytes of data, but at least one; none
// at the end of the log. ErrCompacted: they were let go of meanwhile.
func (r *Reader) Next(maxBytes int) ([]Entry, error) {
	last := r.l.Last().Index
	if r.after.Index >= last {
		return nil, nil
	}
	if err := r.fill(last, maxBytes); err != nil {
		return nil, r.failed(err)
	}
	entries := r.scan.entries
	r.after = entries[len(entries)-1].Position()
	r.scan.begin, r.scan.known, r.scan.entries, r.bytes = r.after, true, nil, 0
	return entries, nil
}

// After is the position that the next entry follows.
func (r *Reader) After() Position { return r.after }

// Close closes the file that is open.
func (r *Reader) Close() {
	if r.frames != nil {
		r.frames.close()
		r.frames = nil
	}
}

func (r *Reader) failed(err error) error {
	return fmt.Errorf("read log %s after %s: %w", r.l.o.Dir, r.after, err)
}

// fill reads until entries of so many bytes wait, or all up to last, which must be
// in the files, and in any case so far that none of them can be replaced.
func (r *Reader) fill(last uint64, bytes int) error {
	for {
		end := r.scan.last()
		if r.scan.seen && end.Epoch == r.epoch && (end.Index >= last || r.bytes >= bytes) {
			break
		}
		if err := r.step(); err != nil {
			return err
		}
	}
	switch begin := r.scan.begin; {
	case begin == r.after:
	case begin.Index > r.after.Index, !r.scan.known && !r.sure:
		return fmt.Errorf("%w: it begins after %d", ErrCompacted, begin.Index)
	case r.scan.known:
		return fmt.Errorf("%w: it has %s", ErrDiverged, begin)
	}
	r.sure = true
	return nil
}

// step reads a record, or finds out where the next one is.
func (r *Reader) step() error {
	if r.frames == nil {
		f, err := openFrames(r.l.o.Dir, r.name, r.crc)
		if errors.Is(err, fs.ErrNotExist) {
			return fmt.Errorf("%w: %w", ErrCompacted, err)
		}
		if err != nil {
			return err
		}
		r.frames, r.headed, r.ended = f, false, false
	}
	var rec record
	switch err := r.frames.next(&rec); {
	case errors.Is(err, errEnd), errors.Is(err, errTorn), errors.Is(err, ErrCorrupt):
		return r.end(err)
	case err != nil:
		return err
	}
	r.ended = false
	if !r.headed {
		if rec.kind != recordCRC || r.crc != 0 && rec.crc != r.crc {
			return corruptf(r.name.String(), 0, "its header does not continue the segment before")
		}
		r.frames.crc, r.headed = rec.crc, true
		return nil
	}
	before := len(r.scan.entries)
	if err := r.scan.take(r.frames, &rec); err != nil {
		return corruptf(r.name.String(), rec.offset, "%v", err)
	}
	if len(r.scan.entries) > before {
		r.bytes += len(rec.data)
	}
	return nil
}

// end looks once more for a record: the writer may have been there since, or just
// when, the file was read. Only the second time it is the end of the segment, if the
// next one had begun before.
func (r *Reader) end(cause error) error {
	if !r.ended {
		r.ended, r.next = true, nil
		names, _ := r.l.onDisk()
		i := slices.Index(names, r.name)
		if i < 0 { // let go of, as nothing in it is wanted any more
			r.locate(names)
			return nil
		}
		if i+1 < len(names) {
			r.next = &names[i+1]
		}
		return r.frames.refresh()
	}
	if errors.Is(cause, ErrCorrupt) {
		return cause
	}
	if r.next == nil {
		return corruptf(r.name.String(), r.frames.offset, "it ends here, the log does not")
	}
	r.crc = r.frames.crc
	r.frames.close()
	r.frames, r.name = nil, *r.next
	return nil
}
