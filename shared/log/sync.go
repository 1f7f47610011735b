package log

import (
	"fmt"
	"os"

	"golang.org/x/sys/unix"
)

// segment is a segment file whose durability is watched through a descriptor
// of its own: an fsync works on the inode, whoever wrote it, so that appends
// through the wal's descriptor need not wait.
type segment struct {
	name segmentName
	f    *os.File // nil: durable, and not the current one
	// dirty: written to since the last fsync began.
	dirty bool
	// confirmed: it has the state record saying that all before it is durable.
	confirmed bool
}

// syncState tracks which files hold what is not durable yet. Log.mu guards it.
type syncState struct {
	segments []*segment // all of the log, oldest first; the last is the current one
	dirDirty bool
	synced   Position
	// cutBack: entries after it were replaced since the running fsync began.
	cutBack *Position
}

func (s *syncState) current() *segment { return s.segments[len(s.segments)-1] }

// wrote notes an append to the current segment, after which another may have begun.
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

// confirmDue: everything before the current segment is durable, which a reader
// can't know yet.
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

// Sync makes durable what was appended before the call, beside further
// appends, and returns the position up to which the log is durable. Without
// anything new it makes no system call. After an error nothing is known of what was
// written, and the log refuses everything (ErrFailed).
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

// syncFiles syncs in the order in which the files were written, so that at any
// moment what is durable is a beginning of the log.
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
