package log

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
)

// Compact gives up the entries below keepFrom, in memory and on disk. On disk it deletes
// whole segments, and only those that durable also covers, which is the position up to
// which the database holds everything durably. Before the first segment is deleted,
// Compact writes and syncs a record of durable, so that a crash at any step leaves a log
// that opens. If there is no segment to delete, it writes nothing.
//
// See Youngest for a keepFrom that bounds the size on disk.
func (l *Log) Compact(keepFrom uint64, durable Position) error {
	if err := l.compact(keepFrom, durable); err != nil {
		return fmt.Errorf("compact log to %d, durable %s: %w", keepFrom, durable, err)
	}
	return nil
}

func (l *Log) compact(keepFrom uint64, durable Position) error {
	l.compactMu.Lock()
	defer l.compactMu.Unlock()
	victims, err := l.compactTail(keepFrom, durable)
	if err != nil || len(victims) == 0 {
		return err
	}
	if err := l.recordSnapshot(durable); err != nil {
		return err
	}
	if _, err := l.Sync(); err != nil {
		return err
	}
	for _, name := range victims { // the oldest first, so that there is never a gap
		path := filepath.Join(l.o.Dir, name.String())
		for _, p := range []string{path, path + brokenSuffix} {
			if err := os.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) {
				return err
			}
		}
		l.mu.Lock()
		l.files.segments = l.files.segments[1:] // Sync made it durable, so it has no descriptor
		l.mu.Unlock()
	}
	return nil
}

// compactTail trims the memory and returns the segments that can be deleted.
func (l *Log) compactTail(keepFrom uint64, durable Position) ([]segmentName, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return nil, l.failed
	}
	last := l.tail.last()
	if durable.Index > last.Index {
		return nil, fmt.Errorf("%w: the log ends at %s", ErrOutOfOrder, last)
	}
	if p, ok := l.tail.at(durable.Index); ok && p != durable {
		return nil, fmt.Errorf("%w: the log has entry %s", ErrDiverged, p)
	}
	keepFrom = min(keepFrom, last.Index+1)
	stale := durable.Index < l.floor // an older position than the known one
	l.floor = max(l.floor, durable.Index)
	l.applied = max(l.applied, durable.Index)
	keepFrom = min(keepFrom, l.applied+1)
	l.tail.dropBefore(keepFrom)
	l.boundTail()
	if stale {
		return nil, nil
	}
	return deletable(l.files.segments, min(keepFrom, durable.Index+1)), nil
}

// Youngest returns the first index of the youngest segments that together have at most the
// given number of bytes. The current segment always counts among them.
func (l *Log) Youngest(bytes int64) uint64 {
	names, _ := l.onDisk()
	index := names[len(names)-1].index
	for _, n := range slices.Backward(names) {
		st, err := os.Stat(filepath.Join(l.o.Dir, n.String()))
		if err != nil {
			break // deleted meanwhile
		}
		if bytes -= st.Size(); bytes < 0 {
			break
		}
		index = n.index
	}
	return index
}

// deletable returns the oldest segments whose entries are all below index. A segment's entries
// that still count are below the index in the name of every later segment. Where a later name
// is lower than an entry, that entry was replaced.
func deletable(segments []*segment, index uint64) []segmentName {
	var names []segmentName
	for i := range len(segments) - 1 {
		covered := false
		for _, later := range segments[i+1:] {
			covered = covered || later.name.index <= index
		}
		if !covered {
			break
		}
		names = append(names, segments[i].name)
	}
	return names
}

func (l *Log) recordSnapshot(p Position) error {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	if err := l.makeRoom(frameOverheadBytes); err != nil {
		return err
	}
	err := guard(func() error { return l.wal.SaveSnapshot(snapshotRecord(p)) })
	l.written += frameOverheadBytes
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		return l.fail(err)
	}
	l.files.wrote(false, nil)
	return nil
}
