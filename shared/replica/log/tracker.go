package log

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"sync"
)

// mark is a place up to which a segment was read: the frame of an entry. A reader that goes on
// from there reads this frame again, and so notices when the file is not the one that was read
// before.
type mark struct {
	name     segmentName
	offset   int64    // of the frame
	crc      uint32   // of everything before the frame
	entry    Position // of the entry in the frame
	snapshot Position // of the last snapshot record before the frame
}

var errMark = errors.New("the log has changed where it was already read")

// resume reads on after a mark.
func (s *scan) resume(r *frameReader, from *mark) error {
	if from.offset >= r.size {
		return errMark
	}
	r.offset, r.crc = from.offset, from.crc
	var rec record
	if err := r.next(&rec); err != nil || rec.kind != recordEntry {
		return errMark
	}
	if e, err := parseEntry(rec.data); err != nil || e.Position() != from.entry {
		return errMark
	}
	s.begin, s.known, s.any, s.seen, s.snapshot = from.entry, true, true, true, from.snapshot
	s.noteEpoch(from.entry)
	return s.readRecords(r)
}

// Tracker reads the log of another process ahead, so that a later Read has less to
// read. In a takeover, no client is served while the dead leader's log is read. Reading
// from the beginning of the segment takes longer the more the leader wrote into it.
//
// A Tracker is for the log of one process: no other process may have written to the
// directory since NewTracker. All methods may be called from any goroutine.
type Tracker struct {
	dir string

	mu sync.Mutex
	at *mark // nil: nothing was read yet
}

// NewTracker makes a Tracker for the log in a directory. It reads nothing yet.
func NewTracker(dir string) *Tracker { return &Tracker{dir: dir} }

// Advance reads up to an index. The writer must not be able to replace or undo any entry up to
// it. An error means that nothing was gained; a later Advance may succeed.
func (t *Tracker) Advance(index uint64) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at != nil && index <= t.at.entry.Index {
		return nil
	}
	segments, err := listSegments(t.dir)
	if err != nil {
		return fmt.Errorf("read ahead: %w", err)
	}
	// A segment whose first entry is missing has not begun.
	name := segments[segmentOf(segments, index)]
	r, err := openFrames(t.dir, name, 0)
	if err != nil {
		return fmt.Errorf("read ahead: %w", err)
	}
	defer r.close()
	from := mark{name: name}
	var rec record
	if t.at != nil && t.at.name == name {
		from = *t.at
		r.offset, r.crc = from.offset, from.crc
	} else if err := r.next(&rec); err != nil || rec.kind != recordCRC {
		return fmt.Errorf("read ahead: segment %s has no header", name)
	} else {
		r.crc = rec.crc
	}
	return t.follow(r, from, index)
}

// follow moves the mark to the last entry that is not above an index. mu is held.
func (t *Tracker) follow(r *frameReader, from mark, index uint64) error {
	var rec record
	for {
		before := r.crc
		switch err := r.next(&rec); {
		case errors.Is(err, errEnd), errors.Is(err, errTorn):
			return nil
		case err != nil:
			return fmt.Errorf("read ahead: %w", err)
		}
		switch rec.kind {
		case recordSnapshot:
			p, err := parseSnapshot(rec.data)
			if err != nil {
				return fmt.Errorf("read ahead: %w", err)
			}
			from.snapshot = p
		case recordEntry:
			e, err := parseEntry(rec.data)
			if err != nil {
				return fmt.Errorf("read ahead: %w", err)
			}
			if e.Index > index {
				return nil
			}
			from.offset, from.crc, from.entry = rec.offset, before, e.Position()
			at := from
			t.at = &at
		}
	}
}

// Read is like the package's Read, but begins where Advance stopped. If that does not help, it
// reads the log as if there had been no Advance.
func (t *Tracker) Read(after Position, o Options) (entries []Entry, last Position, err error) {
	t.mu.Lock()
	at := t.at
	t.mu.Unlock()
	if at != nil && at.entry.Index <= after.Index {
		if entries, last, err = t.readFrom(at, after); err == nil {
			return entries, last, nil
		}
	}
	return Read(t.dir, after, o)
}

func (t *Tracker) readFrom(at *mark, after Position) ([]Entry, Position, error) {
	segments, err := listSegments(t.dir)
	if err != nil {
		return nil, Position{}, err
	}
	i := slices.Index(segments, at.name)
	if i < 0 {
		return nil, Position{}, fs.ErrNotExist // compacted meanwhile
	}
	s, err := (&scan{forget: after.Index}).read(t.dir, segments[i:], at)
	if err != nil {
		return nil, Position{}, err
	}
	return s.after(after)
}

// At is the entry at which Advance stopped, or zero if it has read none.
func (t *Tracker) At() Position {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.at == nil {
		return Position{}
	}
	return t.at.entry
}
