package log

import (
	"errors"
	"fmt"
)

// scan is what the records of some successive segments amount to.
type scan struct {
	// forget: entries up to this index are checked, not kept. The kept ones
	// follow begin without a gap.
	forget  uint64
	begin   Position
	entries []Entry

	known    bool // begin is set, and its epoch is known
	any      bool // some record said where the log is
	seen     bool // an entry was among the records
	snapshot Position

	// How the last usable segment ends, for who wants to append.
	segment segmentName
	offset  int64
	torn    bool
	// drop are segments behind the usable end, of which nothing was ever durable.
	drop []segmentName
}

// last is where the log ends.
func (s *scan) last() Position {
	if n := len(s.entries); n > 0 {
		return s.entries[n-1].Position()
	}
	return s.begin
}

// scanSegments reads segments of a log to the end. Entries' Data share buffers
// of at least readChunkBytes.
func scanSegments(dir string, segments []segmentName, forget uint64) (*scan, error) {
	s := &scan{forget: forget}
	var crc uint32
	for i, name := range segments {
		r, err := openFrames(dir, name, crc)
		if err != nil {
			return nil, err
		}
		err = s.readSegment(r, i == 0)
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
		// Power was lost between the end of a segment and the fsync after it. If
		// a later segment says that the fsync took place, this is damage.
		if err := refuteConfirmed(dir, s.drop, s.segment, s.offset); err != nil {
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
	// errNoChain: the segment does not go on where the one before ends.
	errNoChain = errors.New("segment does not continue the log")
	// errNothing: no position can be told from these segments alone.
	errNothing = errors.New("nothing to go by")
)

func (s *scan) readSegment(r *frameReader, first bool) error {
	var rec record
	err := r.next(&rec)
	switch {
	case errors.Is(err, errEnd), errors.Is(err, errTorn) && r.size < sectorBytes:
		return errNoChain
	case errors.Is(err, errTorn), err == nil && (rec.kind != recordCRC || len(rec.data) != 0):
		return corruptf(r.name.String(), 0, "no segment header") // it is in one sector: written as a whole
	case err != nil:
		return err
	}
	continues := first || rec.crc == r.crc
	r.crc = rec.crc
	if !continues {
		// Either the segment before is not whole, or this checksum is damaged: then
		// it doesn't fit what follows it.
		if err := r.next(&rec); err != nil {
			return corruptf(r.name.String(), 0, "damaged segment header")
		}
		return errNoChain
	}
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
	case recordCRC: // only ever written at the head; harmless if it agrees
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
		// The log goes further back than what is read, or than what is left of it.
		if e.Index > r.name.index {
			return fmt.Errorf("entry %d is the first of a segment that begins with %d", e.Index, r.name.index)
		}
		s.begin, s.known, s.entries = Position{Index: e.Index - 1}, false, nil
	case e.Index > last.Index+1:
		return fmt.Errorf("entry %d follows %d", e.Index, last.Index)
	case e.Index <= s.snapshot.Index:
		return fmt.Errorf("entry %d replaces one that a snapshot record covers (%d)", e.Index, s.snapshot.Index)
	case e.Index <= s.begin.Index: // a tail was replaced from before what is kept
		s.begin, s.known, s.entries = Position{Index: e.Index - 1}, false, nil
	default:
		s.entries = s.entries[:e.Index-s.begin.Index-1]
	}
	if prev := s.last(); prev.Epoch > e.Epoch {
		return fmt.Errorf("entry %s follows %s", e.Position(), prev)
	}
	s.any, s.seen = true, true
	if e.Index <= s.forget {
		s.begin, s.known = e.Position(), true
		return nil
	}
	r.retained = r.retained || len(e.Data) > 0
	s.entries = append(s.entries, e)
	return nil
}

// takeSnapshot takes the record which says that a database holds everything
// up to p. Create writes one for where the log begins, Compact before it deletes.
func (s *scan) takeSnapshot(p Position) error {
	if p.Index < s.snapshot.Index {
		return fmt.Errorf("snapshot record %s after %s", p, s.snapshot)
	}
	s.snapshot = p
	if !s.seen {
		s.begin, s.known, s.any = p, true, true
		return nil
	}
	switch {
	case p.Index > s.last().Index:
		return fmt.Errorf("snapshot record %s beyond the last entry %s", p, s.last())
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
		return fmt.Errorf("snapshot record %s, the log has %s", p, have)
	}
	return nil
}

// settle gives up the first entry if nobody said what is before it: it becomes
// the known beginning. Who compacted had a durable database beyond it.
func (s *scan) settle() {
	if !s.known && len(s.entries) > 0 {
		s.begin, s.known = s.entries[0].Position(), true
		s.entries = s.entries[1:]
	}
}

// refuteConfirmed reports damage if one of the segments that would be dropped
// shows that everything before it was once durable.
func refuteConfirmed(dir string, segments []segmentName, end segmentName, offset int64) error {
	for _, name := range segments {
		confirmed, err := confirms(dir, name)
		if err != nil {
			return err
		}
		if confirmed {
			return corruptf(end.String(), offset, "it ends here, but was durable to its end before %s went on", name)
		}
	}
	return nil
}

// confirms reports whether a segment has a state record behind an entry: Append
// writes one once everything before the segment is durable. (A state record
// ahead of all entries is only the wal package's copy of an older one.)
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
