package log

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
)

// walSave is a variable so that tests need no full disk.
var walSave = (*wal.WAL).Save

// mend recovers from a write that found the disk full in spite of makeRoom. That happens when
// the file system cannot allocate, or when others used up the space. If the segment holds all
// entries, they are appended, and only the next segment could not begin. Otherwise mend cuts
// off what was written of them, so that nothing has changed, and returns ErrNoRoom. appendMu is
// held.
func (l *Log) mend(entries []Entry, cause error) error {
	l.mu.Lock()
	name := l.files.current().name
	l.mu.Unlock()
	w := l.wal
	l.wal = nil
	if err := guard(w.Close); err != nil {
		return fmt.Errorf("%w; then closing the wal failed: %w", cause, err)
	}
	end, whole, err := findEntries(l.o.Dir, name, entries)
	if err == nil {
		err = os.Truncate(filepath.Join(l.o.Dir, name.String()), end)
	}
	if err != nil {
		return fmt.Errorf("%w; then repairing %s failed: %w", cause, name, err)
	}
	l.written = end + frameOverheadBytes
	l.o.Logger.Warn("disk full while writing to the log", zap.Stringer("segment", name), zap.Bool("appended", whole), zap.Error(cause))
	// If there is no space for a new wal either, the next append tries again.
	if err := l.renew(); err != nil && !errors.Is(err, ErrNoRoom) {
		return err
	}
	if !whole {
		return fmt.Errorf("%w: %w", ErrNoRoom, cause)
	}
	return nil
}

// findEntries looks for entries at the end of a segment. If they are all there, end is the end
// of the last record. Otherwise end is the beginning of the first of them.
func findEntries(dir string, name segmentName, entries []Entry) (end int64, whole bool, err error) {
	r, err := openFrames(dir, name, 0)
	if err != nil {
		return 0, false, err
	}
	defer r.close()
	found, begin := 0, int64(-1)
	for {
		at := r.offset
		var rec record
		switch err := r.next(&rec); {
		case err == nil:
		case errors.Is(err, errEnd), errors.Is(err, errTorn), errors.Is(err, ErrCorrupt):
			switch {
			case found == len(entries):
				return r.offset, true, nil
			case begin >= 0:
				return begin, false, nil
			}
			return r.offset, false, nil
		default:
			return 0, false, err
		}
		switch rec.kind {
		case recordCRC:
			r.crc = rec.crc
		case recordEntry:
			e, err := parseEntry(rec.data)
			if err != nil {
				return 0, false, corruptf(name.String(), at, "entry: %v", err)
			}
			if e.Position() == entries[0].Position() {
				begin, found = at, 0 // an earlier write may have left the same position; the last one counts
			}
			if begin >= 0 && found < len(entries) && e.Position() == entries[found].Position() {
				found++
			}
		}
	}
}

// clearTemporary removes the files in which an earlier wal prepared its next segments. They may
// be half written, and the next wal would continue in them.
func clearTemporary(dir string) error {
	names, err := listSegments(dir)
	if err != nil {
		return err
	}
	last := filepath.Join(dir, names[len(names)-1].String())
	lock, err := fileutil.TryLockFile(last, os.O_WRONLY, fileutil.PrivateFileMode)
	if err != nil {
		return err // a living wal still uses them
	}
	defer func() { _ = lock.Close() }()
	for _, name := range []string{"0.tmp", "1.tmp"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
