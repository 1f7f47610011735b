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

// walSave is a variable for tests without a full disk.
var walSave = (*wal.WAL).Save

// mend goes on after a write that found no room, in spite of makeRoom: the file
// system cannot allocate, or others were faster between the wal's files. If all
// entries are in the segment, they are appended: it was the next segment that
// could not begin. Otherwise what there is of them is cut off, so that nothing
// has changed, and the error is ErrNoRoom. appendMu is held.
func (l *Log) mend(entries []Entry, cause error) error {
	l.mu.Lock()
	name := l.files.current().name
	l.mu.Unlock()
	w := l.wal
	l.wal = nil
	if err := guard(w.Close); err != nil {
		return fmt.Errorf("%w; and close the wal: %w", cause, err)
	}
	end, whole, err := findEntries(l.o.Dir, name, entries)
	if err == nil {
		err = os.Truncate(filepath.Join(l.o.Dir, name.String()), end)
	}
	if err != nil {
		return fmt.Errorf("%w; and mend %s: %w", cause, name, err)
	}
	l.written = end + frameOverheadBytes
	l.o.Logger.Warn("a write found no room", zap.Stringer("segment", name), zap.Bool("appended", whole), zap.Error(cause))
	// Without room for that either the next append tries again.
	if err := l.renew(); err != nil && !errors.Is(err, ErrNoRoom) {
		return err
	}
	if !whole {
		return fmt.Errorf("%w: %w", ErrNoRoom, cause)
	}
	return nil
}

// findEntries looks for entries at the end of a segment. If they are whole, end
// is where the last record ends, else where the first of them begins.
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
				begin, found = at, 0 // the last one of this place: it may have been written before
			}
			if begin >= 0 && found < len(entries) && e.Position() == entries[found].Position() {
				found++
			}
		}
	}
}

// clearTemporary removes the files in which a wal that is no more prepared its
// next segments: the next one would go on in them, though they may be half written.
func clearTemporary(dir string) error {
	names, err := listSegments(dir)
	if err != nil {
		return err
	}
	last := filepath.Join(dir, names[len(names)-1].String())
	lock, err := fileutil.TryLockFile(last, os.O_WRONLY, fileutil.PrivateFileMode)
	if err != nil {
		return err // a living wal prepares its own
	}
	defer func() { _ = lock.Close() }()
	for _, name := range []string{"0.tmp", "1.tmp"} {
		if err := os.Remove(filepath.Join(dir, name)); err != nil && !errors.Is(err, os.ErrNotExist) {
			return err
		}
	}
	return nil
}
