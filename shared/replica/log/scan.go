package log

import (
	"errors"
	"fmt"
	"slices"
)

// scan accumulates the records of successive segments.
type scan struct {
	// forget is an index. Entries up to it are checked and not kept. The kept entries follow
	// begin without a gap.
	forget  uint64
	begin   Position
	entries []Entry

	// epochStarts holds the first position of each epoch that was seen, in order.
	epochStarts []Position

	known    bool // begin is set and its epoch is known
	any      bool // a record told where in the log the segments are
	seen     bool // at least one record was an entry
	snapshot Position

	// segment, offset and torn say how the last usable segment ends, for a later append.
	segment segmentName
	offset  int64
	torn    bool
	// drop lists the segments behind the usable end. Nothing in them was ever durable.
	drop []segmentName
}

// last is the position at which the log ends.
func (s *scan) last() Position {
	if n := len(s.entries); n > 0 {
		return s.entries[n-1].Position()
	}
	return s.begin
}

// lastOf returns the last position of a wanted epoch, or zero if there is none.
func (s *scan) lastOf(want func(epoch uint64) bool) Position {
	end := s.last().Index
	for _, first := range slices.Backward(s.epochStarts) {
		if want(first.Epoch) {
			return Position{Epoch: first.Epoch, Index: end}
		}
		end = first.Index - 1
	}
	return Position{}
}

// noteEpoch updates epochStarts. An entry at p replaces everything from p on.
func (s *scan) noteEpoch(p Position) {
	n := len(s.epochStarts)
	for n > 0 && s.epochStarts[n-1].Index >= p.Index {
		n--
	}
	s.epochStarts = s.epochStarts[:n]
	if n == 0 || s.epochStarts[n-1].Epoch != p.Epoch {
		s.epochStarts = append(s.epochStarts, p)
	}
}

// scanSegments reads segments to the end of the log. The Data of entries share buffers of at
// least readChunkBytes.
func scanSegments(dir string, segments []segmentName, forget uint64) (*scan, error) {
	return (&scan{forget: forget}).read(dir, segments, nil)
}

// read reads segments to the end of the log. It begins the first one at the mark from, if that
// is not nil.
func (s *scan) read(dir string, segments []segmentName, from *mark) (*scan, error) {
	var crc uint32
	for i, name := range segments {
		r, err := openFrames(dir, name, crc)
		if err != nil {
			return nil, err
		}
		if i == 0 && from != nil {
			err = s.resume(r, from)
		} else {
			err = s.readSegment(r, i == 0)
		}
		r.close()
		switch {
		case err == nil:
			s.segment, s.offset, crc = name, r.offset, r.crc
			continue
		case errors.Is(err, errNoChain):
			// The segment before ended early, or this one was never written.
			if i == 0 {
				return nil, fmt.Errorf("%w: %w", errNothing, corruptf(name.String(), 0, "no segment header"))
			}
			s.drop = segments[i:]
		case errors.Is(err, errTorn):
			s.segment, s.offset, s.torn = name, r.offset, true
			s.drop = segments[i+1:]
		default:
			return nil, err
		}
		// The power may have failed between the end of a segment and the fsync after it. If a
		// later segment shows that this fsync completed, the end is damage.
		if err := checkNotConfirmed(dir, s.drop, s.segment, s.offset); err != nil {
			return nil, err
		}
		break
	}
	if !s.any {
		return nil, fmt.Errorf("%w: %w", errNothing, corruptf(segments[0].String(), s.offset, "no entry and no snapshot record"))
	}
	s.settle()
	return s, nil
}

var (
	// errNoChain means that a segment does not continue where the one before ends.
	errNoChain = errors.New("segment does not continue the log")
	// errNothing means that these segments alone do not tell a position.
	errNothing = errors.New("the segments hold no position")
)

func (s *scan) readSegment(r *frameReader, first bool) error {
	var rec record
	err := r.next(&rec)
	switch {
	case errors.Is(err, errEnd), errors.Is(err, errTorn) && r.size < sectorBytes:
		return errNoChain
	case errors.Is(err, errTorn), err == nil && (rec.kind != recordCRC || len(rec.data) != 0):
		return corruptf(r.name.String(), 0, "no segment header") // it lies in one sector, so it is written as a whole or not at all
	case err != nil:
		return err
	}
	continues := first || rec.crc == r.crc
	r.crc = rec.crc
	if !continues {
		// Either the segment before is incomplete, or this checksum is damaged. A damaged
		// checksum does not match the record after it either.
		if err := r.next(&rec); err != nil {
			return corruptf(r.name.String(), 0, "damaged segment header")
		}
		return errNoChain
	}
	return s.readRecords(r)
}

func (s *scan) readRecords(r *frameReader) error {
	var rec record
	for {
		if err := r.next(&rec); err != nil {
			if errors.Is(err, errEnd) {
				return nil
			}
			return err
		}
		if err := s.take(r, &rec); err != nil {
			return corruptf(r.name.String(), rec.offset, "%v", err)
		}
	}
}

func (s *scan) take(r *frameReader, rec *record) error {
	switch rec.kind {
	case recordEntry:
		e, err := parseEntry(rec.data)
		if err != nil {
			return fmt.Errorf("entry: %w", err)
		}
		return s.takeEntry(r, e)
	case recordSnapshot:
		p, err := parseSnapshot(rec.data)
		if err != nil {
			return fmt.Errorf("snapshot record: %w", err)
		}
		return s.takeSnapshot(p)
	case recordState:
		return parseState(rec.data)
	case recordMetadata:
		if len(rec.data) != 0 {
			return errors.New("metadata of another program")
		}
		return nil
	case recordCRC: // the wal writes it at the head only; elsewhere it is harmless if it agrees
		if rec.crc != r.crc || len(rec.data) != 0 {
			return errors.New("checksum record does not agree")
		}
		return nil
	default:
		return fmt.Errorf("unknown record type %d", rec.kind)
	}
}

func (s *scan) takeEntry(r *frameReader, e Entry) error {
	last := s.last()
	switch {
	case !s.any || !s.seen && e.Index > last.Index+1:
		// The log begins before what is read, or its beginning was deleted.
		if e.Index > r.name.index {
			return fmt.Errorf("the first entry is %d, but the segment's name says %d", e.Index, r.name.index)
		}
		s.begin, s.known, s.entries = Position{Index: e.Index - 1}, false, nil
	case e.Index > last.Index+1:
		return fmt.Errorf("entry %d follows entry %d", e.Index, last.Index)
	case e.Index <= s.snapshot.Index:
		return fmt.Errorf("entry %d replaces an entry that a snapshot record covers (up to %d)", e.Index, s.snapshot.Index)
	case e.Index <= s.begin.Index: // the replaced tail begins before the kept entries
		s.begin, s.known, s.entries = Position{Index: e.Index - 1}, false, nil
	default:
		s.entries = s.entries[:e.Index-s.begin.Index-1]
	}
	if prev := s.last(); prev.Epoch > e.Epoch {
		return fmt.Errorf("entry %s follows %s", e.Position(), prev)
	}
	s.any, s.seen = true, true
	s.noteEpoch(e.Position())
	if e.Index <= s.forget {
		s.begin, s.known = e.Position(), true
		return nil
	}
	r.retained = r.retained || len(e.Data) > 0
	s.entries = append(s.entries, e)
	return nil
}

// takeSnapshot takes a record which says that a database holds everything up to p. Create
// writes one for the beginning of the log, and Compact writes one before it deletes segments.
func (s *scan) takeSnapshot(p Position) error {
	if p.Index < s.snapshot.Index {
		return fmt.Errorf("snapshot record %s follows snapshot record %s", p, s.snapshot)
	}
	s.snapshot = p
	if !s.seen {
		s.begin, s.known, s.any = p, true, true
		if !p.IsZero() {
			s.noteEpoch(p)
		}
		return nil
	}
	switch {
	case p.Index > s.last().Index:
		return fmt.Errorf("snapshot record %s is beyond the last entry %s", p, s.last())
	case p.Index < s.begin.Index:
		return nil
	case p.Index == s.begin.Index && !s.known:
		s.begin, s.known = p, true
		return nil
	}
	have := s.begin
	if p.Index > s.begin.Index {
		have = s.entries[p.Index-s.begin.Index-1].Position()
	}
	if have != p {
		return fmt.Errorf("snapshot record %s, but the log has entry %s", p, have)
	}
	return nil
}

// settle gives up the first entry if no record told what is before it. That entry becomes the
// known beginning. Nothing is lost: whoever compacted the log had a durable database beyond it.
func (s *scan) settle() {
	if !s.known && len(s.entries) > 0 {
		s.begin, s.known = s.entries[0].Position(), true
		s.entries = s.entries[1:]
	}
}

// checkNotConfirmed reports damage if one of the segments that would be dropped shows that
// everything before it was durable.
func checkNotConfirmed(dir string, segments []segmentName, end segmentName, offset int64) error {
	for _, name := range segments {
		confirmed, err := confirms(dir, name)
		if err != nil {
			return err
		}
		if confirmed {
			return corruptf(end.String(), offset, "the log ends here, although it was durable to the end of this segment when %s was written", name)
		}
	}
	return nil
}

// confirms reports whether a segment has a state record after an entry. Append writes one once
// everything before the segment is durable. (A state record before all entries is only the wal
// package's copy of an older one.)
func confirms(dir string, name segmentName) (bool, error) {
	r, err := openFrames(dir, name, 0)
	if err != nil {
		return false, err
	}
	defer r.close()
	var rec record
	for entries := 0; ; {
		switch err := r.next(&rec); {
		case errors.Is(err, errEnd), errors.Is(err, errTorn), errors.Is(err, ErrCorrupt):
			return false, nil
		case err != nil:
			return false, err
		case rec.kind == recordCRC:
			r.crc = rec.crc
		case rec.kind == recordEntry:
			entries++
		case rec.kind == recordState && entries > 0:
			return true, nil
		}
	}
}
