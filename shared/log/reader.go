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
	// truth is the first entry of each epoch from after on, without what was replaced;
	// the last one is that of the owner's own epoch.
	truth []Position

	name   segmentName  // of the segment that is being read
	frames *frameReader // nil: to be opened
	crc    uint32       // at the end of the segment before; 0: not known
	headed bool         // the segment's header is read
	// ended: nothing more was found in the segment, beyond what was read ahead of its
	// writer, and next is the segment after it, as it was then.
	ended bool
	next  *segmentName
}

// ReadAfter begins behind a position. ErrCompacted: what follows it is not there
// any more. ErrDiverged: the log has another entry there. ErrOutOfOrder: nothing follows.
func (l *Log) ReadAfter(after Position) (*Reader, error) {
	r := &Reader{l: l, after: after}
	if err := r.begin(); err != nil {
		r.Close()
		return nil, r.failed(err)
	}
	return r, nil
}

// begin reads up to the owner's own epoch, to know what was replaced before it, and
// goes back to where the reading begins.
func (r *Reader) begin() error {
	names, last := r.l.onDisk()
	if r.after.Index >= last.Index {
		return fmt.Errorf("%w: it ends at %s", ErrOutOfOrder, last)
	}
	r.locate(names)
	known := r.after.IsZero() // the log has r.after, or had it
	for {
		rec, err := r.record()
		if err != nil {
			return err
		}
		switch rec.kind {
		case recordSnapshot: // says what is before the first entry
			p, err := parseSnapshot(rec.data)
			if err != nil {
				return corruptf(r.name.String(), rec.offset, "snapshot record: %v", err)
			}
			known = known || p == r.after
		case recordEntry:
			e, err := r.parse(rec)
			if err != nil {
				return err
			}
			for len(r.truth) > 0 && r.truth[len(r.truth)-1].Index >= e.Index {
				r.truth = r.truth[:len(r.truth)-1]
			}
			if r.epochAt(e.Index) != e.Epoch {
				r.truth = append(r.truth, e.Position())
			}
			if e.Epoch == last.Epoch {
				r.locate(names)
				return r.check(known)
			}
		}
	}
}

// check compares the position that the reading begins behind with the log.
func (r *Reader) check(known bool) error {
	switch epoch := r.epochAt(r.after.Index); {
	case epoch != 0 && epoch == r.after.Epoch:
		return nil
	case epoch != 0:
		return fmt.Errorf("%w: it has an entry of epoch %d there", ErrDiverged, epoch)
	case known && r.truth[0].Index == r.after.Index+1:
		return nil
	default:
		return fmt.Errorf("%w: it begins with %d", ErrCompacted, r.truth[0].Index)
	}
}

// epochAt is the epoch of the entry that an index has now; 0 before the first one
// that was read.
func (r *Reader) epochAt(index uint64) uint64 {
	for _, first := range slices.Backward(r.truth) {
		if first.Index <= index {
			return first.Epoch
		}
	}
	return 0
}

// locate begins with the segment that has what is wanted next.
func (r *Reader) locate(segments []segmentName) {
	r.Close()
	r.name, r.crc = segments[segmentOf(segments, r.after.Index)], 0
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
	var entries []Entry
	last := r.l.Last().Index
	for bytes := 0; r.after.Index < last && (len(entries) == 0 || bytes < maxBytes); {
		e, err := r.entry()
		if err != nil {
			return nil, r.failed(err)
		}
		entries, bytes, r.after = append(entries, e), bytes+len(e.Data), e.Position()
	}
	// What was read ahead of the writer may yet become something else: a write that
	// finds no room is undone.
	if r.frames != nil {
		if err := r.frames.refresh(); err != nil {
			return nil, r.failed(err)
		}
	}
	return entries, nil
}

// entry reads the entry after r.after, which must be in the files.
func (r *Reader) entry() (Entry, error) {
	for {
		rec, err := r.record()
		if err != nil {
			return Entry{}, err
		}
		if rec.kind != recordEntry {
			continue
		}
		e, err := r.parse(rec)
		switch {
		case err != nil:
			return Entry{}, err
		case e.Index <= r.after.Index, r.epochAt(e.Index) != e.Epoch:
			continue // read before, or replaced
		case e.Index > r.after.Index+1:
			return Entry{}, fmt.Errorf("%w: %s is what follows", ErrCompacted, e.Position())
		}
		r.frames.retained = true
		return e, nil
	}
}

func (r *Reader) parse(rec record) (Entry, error) {
	e, err := parseEntry(rec.data)
	if err != nil {
		err = corruptf(r.name.String(), rec.offset, "entry: %v", err)
	}
	return e, err
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

// record reads the next record, of this segment or of those that follow.
func (r *Reader) record() (rec record, err error) {
	for {
		if r.frames == nil {
			if err := r.open(); err != nil {
				return rec, err
			}
		}
		switch err := r.frames.next(&rec); {
		case errors.Is(err, errEnd), errors.Is(err, errTorn), errors.Is(err, ErrCorrupt):
			if err := r.end(err); err != nil {
				return rec, err
			}
			continue
		case err != nil:
			return rec, err
		}
		r.ended = false
		if r.headed {
			return rec, nil
		}
		if rec.kind != recordCRC || r.crc != 0 && rec.crc != r.crc {
			return rec, corruptf(r.name.String(), 0, "its header does not continue the segment before")
		}
		r.frames.crc, r.headed = rec.crc, true
	}
}

func (r *Reader) open() error {
	f, err := openFrames(r.l.o.Dir, r.name, r.crc)
	if errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w: %w", ErrCompacted, err)
	}
	r.frames, r.headed, r.ended = f, false, false
	return err
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
