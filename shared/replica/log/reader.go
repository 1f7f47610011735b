package log

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// Reader reads entries that are no longer in memory, in order, from the log's files.
// Only one goroutine may use it.
//
// A Reader is for the log of a leader. Such a log only grows: from the first entry of
// the last epoch on, nothing is replaced. Entries that were replaced earlier are skipped.
type Reader struct {
	l     *Log
	after Position // the next entry follows it
	// epochStarts holds the first entry of each epoch from after on, without replaced entries.
	// The last one is that of the owner's own epoch.
	epochStarts []Position

	name   segmentName  // of the segment being read
	frames *frameReader // nil: not open yet
	crc    uint32       // at the end of the segment before; 0 means not known
	headed bool         // the segment's header is read
	// ended means that a second look at the segment found nothing more. next is the segment
	// that followed it at the time of the first look.
	ended bool
	next  *segmentName
}

// ReadAfter returns a Reader that begins after a position. ErrCompacted means that the next
// entry is gone. ErrDiverged means that the log has another entry at the position.
// ErrOutOfOrder means that no entry follows it.
func (l *Log) ReadAfter(after Position) (*Reader, error) {
	r := &Reader{l: l, after: after}
	if err := r.begin(); err != nil {
		r.Close()
		return nil, r.failed(err)
	}
	return r, nil
}

// begin reads up to the first entry of the owner's own epoch, to know what was replaced before
// it, and then goes back to the start position.
func (r *Reader) begin() error {
	names, last := r.l.onDisk()
	if r.after.Index >= last.Index {
		return fmt.Errorf("%w: the log ends at %s", ErrOutOfOrder, last)
	}
	r.locate(names)
	known := r.after.IsZero() // the log has or had r.after
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
			for len(r.epochStarts) > 0 && r.epochStarts[len(r.epochStarts)-1].Index >= e.Index {
				r.epochStarts = r.epochStarts[:len(r.epochStarts)-1]
			}
			if r.epochAt(e.Index) != e.Epoch {
				r.epochStarts = append(r.epochStarts, e.Position())
			}
			if e.Epoch == last.Epoch {
				r.locate(names)
				return r.check(known)
			}
		}
	}
}

// check compares the start position with the log.
func (r *Reader) check(known bool) error {
	switch epoch := r.epochAt(r.after.Index); {
	case epoch != 0 && epoch == r.after.Epoch:
		return nil
	case epoch != 0:
		return fmt.Errorf("%w: the log has an entry of epoch %d at that index", ErrDiverged, epoch)
	case known && r.epochStarts[0].Index == r.after.Index+1:
		return nil
	default:
		return fmt.Errorf("%w: the log begins with entry %d", ErrCompacted, r.epochStarts[0].Index)
	}
}

// epochAt returns the current epoch of the entry at an index, or 0 before the first entry that
// was read.
func (r *Reader) epochAt(index uint64) uint64 {
	for _, first := range slices.Backward(r.epochStarts) {
		if first.Index <= index {
			return first.Epoch
		}
	}
	return 0
}

// locate starts over at the segment that has the next wanted entry.
func (r *Reader) locate(segments []segmentName) {
	r.Close()
	r.name, r.crc = segments[segmentOf(segments, r.after.Index)], 0
}

// onDisk returns the segments and the last position that is certainly in them.
func (l *Log) onDisk() (segments []segmentName, last Position) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for _, s := range l.files.segments {
		segments = append(segments, s.name)
	}
	return segments, l.tail.last()
}

// Next returns the next entries, with about maxBytes of data but at least one entry. It returns
// none at the end of the log. ErrCompacted means that the entries were deleted meanwhile.
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
	// Data read ahead of the writer may still change, because a write that finds the disk full
	// is undone.
	if r.frames != nil {
		if err := r.frames.refresh(); err != nil {
			return nil, r.failed(err)
		}
	}
	return entries, nil
}

// entry reads the entry after r.after. It must be in the files.
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
			continue // read before, or replaced later
		case e.Index > r.after.Index+1:
			return Entry{}, fmt.Errorf("%w: the next entry is %s", ErrCompacted, e.Position())
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

// After is the position before the next entry.
func (r *Reader) After() Position { return r.after }

// Close closes the open file, if there is one.
func (r *Reader) Close() {
	if r.frames != nil {
		r.frames.close()
		r.frames = nil
	}
}

func (r *Reader) failed(err error) error {
	return fmt.Errorf("read log %s after %s: %w", r.l.o.Dir, r.after, err)
}

// record reads the next record, from this segment or the following ones.
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
			return rec, corruptf(r.name.String(), 0, "the segment header does not continue the segment before")
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

// end looks for a record a second time, because the writer may have written it after, or while,
// the file was read. After the second look the segment has ended if the next segment had begun
// before that look.
func (r *Reader) end(cause error) error {
	if !r.ended {
		r.ended, r.next = true, nil
		names, _ := r.l.onDisk()
		i := slices.Index(names, r.name)
		if i < 0 { // deleted: nothing in it is wanted any more
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
		return corruptf(r.name.String(), r.frames.offset, "the segment ends here, but the log does not")
	}
	r.crc = r.frames.crc
	r.frames.close()
	r.frames, r.name = nil, *r.next
	return nil
}
