package log

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// segment is a segment file with a descriptor of its own for fsync. An fsync works on the
// inode, whoever wrote it, so appends through the wal's descriptor need not wait.
type segment struct {
	name segmentName
	f    *os.File // nil: durable and not the current segment
	// dirty means that it was written to since the last fsync began.
	dirty bool
	// confirmed means that it has the state record which says that all earlier segments are
	// durable.
	confirmed bool
}

// syncState tracks which files are not durable yet. Log.mu guards it.
type syncState struct {
	segments []*segment // all segments of the log, oldest first; the last is the current one
	dirDirty bool
	synced   Position
	// cutBack is the lowest position to which the log was cut back since the running fsync
	// began.
	cutBack *Position
}

func (s *syncState) current() *segment { return s.segments[len(s.segments)-1] }

// wrote notes an append to the current segment. began is the segment that was begun after it,
// or nil.
func (s *syncState) wrote(confirmed bool, began *segment) {
	c := s.current()
	c.dirty = true
	c.confirmed = c.confirmed || confirmed
	if began != nil {
		began.dirty, s.dirDirty = true, true
		s.segments = append(s.segments, began)
	}
}

// replaced notes that the log was cut back to p.
func (s *syncState) replaced(p Position) {
	if s.synced.Index > p.Index {
		s.synced = p
	}
	if s.cutBack == nil || p.Index < s.cutBack.Index {
		s.cutBack = &p
	}
}

// confirmDue reports whether everything before the current segment is durable and no record
// says so yet.
func (s *syncState) confirmDue() bool {
	c := s.current()
	if c.confirmed || s.dirDirty || s.synced.Index == 0 {
		return false
	}
	for _, seg := range s.segments[:len(s.segments)-1] {
		if seg.f != nil {
			return false
		}
	}
	return true
}

func (s *syncState) close() {
	for _, seg := range s.segments {
		if seg.f != nil {
			_ = seg.f.Close()
			seg.f = nil
		}
	}
}

// Sync makes everything durable that was appended before the call, and returns the position up
// to which the log is durable. Appends go on meanwhile. If there is nothing new, Sync makes no
// system call. After an error it is unknown what was written, and the log refuses everything
// (ErrFailed).
func (l *Log) Sync() (Position, error) {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	return l.sync()
}

// sync is Sync with syncMu held.
func (l *Log) sync() (Position, error) {
	l.mu.Lock()
	if l.failed != nil {
		defer l.mu.Unlock()
		return l.files.synced, fmt.Errorf("sync log: %w", l.failed)
	}
	target := l.tail.last()
	dirDirty := l.files.dirDirty
	var batch []*segment
	for _, seg := range l.files.segments {
		if seg.dirty {
			seg.dirty = false
			batch = append(batch, seg)
		}
	}
	l.files.dirDirty, l.files.cutBack = false, nil
	if len(batch) == 0 && !dirDirty {
		defer l.mu.Unlock()
		return l.files.synced, nil
	}
	l.mu.Unlock()

	err := syncFiles(l.o.Dir, batch, dirDirty)

	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		return l.files.synced, fmt.Errorf("sync log: %w", l.fail(err))
	}
	if b := l.files.cutBack; b != nil && b.Index < target.Index {
		target = *b
	}
	l.files.synced = target
	for _, seg := range batch {
		if !seg.dirty && seg != l.files.current() {
			_ = seg.f.Close()
			seg.f = nil
		}
	}
	return target, nil
}

// syncFiles syncs the files in the order in which they were written. At any moment the durable
// part is therefore a prefix of the log.
func syncFiles(dir string, batch []*segment, dirDirty bool) error {
	for _, seg := range batch {
		err := unix.EINTR
		for err == unix.EINTR {
			err, _ = unix.Fdatasync(int(seg.f.Fd())).(unix.Errno)
		}
		if err != 0 {
			return fmt.Errorf("fdatasync %s: %w", seg.name, err)
		}
	}
	if !dirDirty {
		return nil
	}
	return syncDir(dir)
}

func syncDir(dir string) error {
	d, err := os.Open(dir)
	if err != nil {
		return fmt.Errorf("fsync directory: %w", err)
	}
	defer func() { _ = d.Close() }()
	if err := d.Sync(); err != nil {
		return fmt.Errorf("fsync directory: %w", err)
	}
	return nil
}
