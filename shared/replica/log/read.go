package log

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
)

// scanAttempts is how often a log is read again while its writer changes it. A segment may be
// deleted between the listing and the open, and a record may be read while it is half written.
const scanAttempts = 4

// Read reads a log that another process owns, or owned when it died, without its lock.
// It returns the entries after a position, which is usually where the reader's own log
// ends, and the position of the log's last entry. It finds everything for which the
// writer's Append returned before Read was called. A torn tail is not an error, and
// nothing is changed on disk.
//
// ErrDiverged means that the log has another entry at that position. ErrCompacted means
// that the log begins after it. If the log ends before it, Read returns no entries, and
// last is where the log ends. The caller then has to check whether its own log has the
// same entry at last.
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

// retryChanging repeats a read that failed with an error that a concurrent writer can cause. It
// stops when the read fails in the same way twice.
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
	return s.after(after)
}

// after returns the entries after a position and the position at which the log ends.
func (s *scan) after(after Position) ([]Entry, Position, error) {
	last := s.last()
	switch {
	case s.begin.Index > after.Index:
		return nil, Position{}, fmt.Errorf("%w: the log begins after %s", ErrCompacted, s.begin)
	case s.begin.Index == after.Index && s.begin != after:
		return nil, Position{}, fmt.Errorf("%w: the log has %s", ErrDiverged, s.begin)
	case s.begin.Index < after.Index && last.Epoch > after.Epoch:
		return nil, Position{}, fmt.Errorf("%w: the log ends at %s", ErrDiverged, last)
	}
	return compactEntries(s.entries), last, nil
}

// scanFrom reads the segments that are needed to know the log after an index.
func scanFrom(dir string, segments []segmentName, after uint64) (*scan, error) {
	return scanBack(dir, segments, segmentOf(segments, after), after)
}

// segmentOf returns the number of the last segment whose first index is not above after, or 0.
func segmentOf(segments []segmentName, after uint64) int {
	i := len(segments) - 1
	for i > 0 && segments[i].index > after {
		i--
	}
	return i
}

// scanBack reads the segments from number from on. A segment without entries of its own does
// not even tell where the log ends; scanBack then reads the segment before it as well.
func scanBack(dir string, segments []segmentName, from int, forget uint64) (*scan, error) {
	for ; ; from-- {
		s, err := scanSegments(dir, segments[from:], forget)
		if from == 0 || err == nil && s.seen || err != nil && !errors.Is(err, errNothing) {
			return s, err
		}
	}
}

// compactEntries copies the data of a few entries out of the large buffers of a scan, because
// the entries would otherwise keep the whole buffers alive.
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

// LastOf returns the last position whose epoch the caller wants, or the zero Position if the
// log has none. It reads only as much of the log's end as that takes.
func LastOf(dir string, o Options, want func(epoch uint64) bool) (last Position, err error) {
	err = retryChanging(func() error {
		segments, err := listSegments(dir)
		if err != nil {
			return err
		}
		for from := segmentOf(segments, math.MaxUint64); ; from-- {
			s, err := scanBack(dir, segments, from, math.MaxUint64)
			if err != nil {
				return err
			}
			if last = s.lastOf(want); !last.IsZero() || from == 0 {
				return nil
			}
		}
	})
	if err != nil {
		return Position{}, fmt.Errorf("end of log %s: %w", dir, err)
	}
	return last, nil
}

// LastPosition returns where a log ends, for comparing the logs of several slots. It reads the
// last segment and trusts the earlier ones. Only Read tells which entries are usable.
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
