package log

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
)

// scanAttempts is how often a log that its writer is changing is read again:
// a segment may be deleted between the listing and the open, and a record may
// be read half written.
const scanAttempts = 4

// Read reads a log that another process owns, or owned when it died, without
// its lock: the entries after a position that the reader's own log ends with,
// and the position of the log's last entry. Everything that the writer's
// Append returned for before Read was called is found.
//
// ErrDiverged: the log has another entry there. ErrCompacted: it begins later.
// If the log ends before after, there are no entries, and last tells where; the
// caller has to look into its own log whether it has the same entry there. A
// torn tail is not an error, and nothing is changed on disk.
func Read(dir string, after Position, o Options) (entries []Entry, last Position, err error) {
	err = retryChanging(func() error {
		entries, last, err = readOnce(dir, after)
		return err
	})
	if err != nil {
		return nil, Position{}, fmt.Errorf("read log %s after %s: %w", dir, after, err)
	}
	return entries, last, nil
}

// retryChanging repeats a read that failed as it fails while a log is being
// written, unless it fails in the same way twice.
func retryChanging(read func() error) error {
	var before string
	for attempt := 1; ; attempt++ {
		err := read()
		if err == nil || attempt == scanAttempts {
			return err
		}
		if !errors.Is(err, ErrCorrupt) && !errors.Is(err, fs.ErrNotExist) || err.Error() == before {
			return err
		}
		before = err.Error()
	}
}

func readOnce(dir string, after Position) ([]Entry, Position, error) {
	segments, err := listSegments(dir)
	if err != nil {
		return nil, Position{}, err
	}
	s, err := scanFrom(dir, segments, after.Index)
	if err != nil {
		return nil, Position{}, err
	}
	last := s.last()
	switch {
	case s.begin.Index > after.Index:
		return nil, Position{}, fmt.Errorf("%w: it begins after %s", ErrCompacted, s.begin)
	case s.begin.Index == after.Index && s.begin != after:
		return nil, Position{}, fmt.Errorf("%w: it has %s", ErrDiverged, s.begin)
	case s.begin.Index < after.Index && last.Epoch > after.Epoch:
		return nil, Position{}, fmt.Errorf("%w: it ends at %s", ErrDiverged, last)
	}
	return compactEntries(s.entries), last, nil
}

// scanFrom reads what is needed to know the log after an index.
func scanFrom(dir string, segments []segmentName, after uint64) (*scan, error) {
	return scanBack(dir, segments, segmentOf(segments, after), after)
}

// segmentOf is the number of the last segment which began no later than after an
// index.
func segmentOf(segments []segmentName, after uint64) int {
	i := len(segments) - 1
	for i > 0 && segments[i].index > after {
		i--
	}
	return i
}

// scanBack reads the segments from one on. One that has no entries of its own does
// not even tell where the log ends, so then the one before is read as well.
func scanBack(dir string, segments []segmentName, from int, forget uint64) (*scan, error) {
	for ; ; from-- {
		s, err := scanSegments(dir, segments[from:], forget)
		if from == 0 || err == nil && s.seen || err != nil && !errors.Is(err, errNothing) {
			return s, err
		}
	}
}

// compactEntries moves a few entries out of the large buffers of a scan, which
// they would keep alive.
func compactEntries(entries []Entry) []Entry {
	total := 0
	for _, e := range entries {
		total += len(e.Data)
	}
	if total >= readChunkBytes/2 {
		return entries
	}
	arena := make([]byte, 0, total)
	for i, e := range entries {
		begin := len(arena)
		arena = append(arena, e.Data...)
		entries[i].Data = arena[begin:len(arena):len(arena)]
	}
	return entries
}

// LastPosition says where a log ends, for comparing the logs of several slots.
// It reads the last segment and trusts the ones before it: what is really
// usable is known to Read.
func LastPosition(dir string, o Options) (last Position, err error) {
	err = retryChanging(func() error {
		segments, err := listSegments(dir)
		if err != nil {
			return err
		}
		s, err := scanFrom(dir, segments, math.MaxUint64)
		if err != nil {
			return err
		}
		last = s.last()
		return nil
	})
	if err != nil {
		return Position{}, fmt.Errorf("last position of log %s: %w", dir, err)
	}
	return last, nil
}
