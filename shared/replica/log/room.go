package log

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
)

// These system calls are variables so that tests need no full disk.
var (
	fallocate = unix.Fallocate
	statfs    = unix.Statfs
)

// aheadBytes is how much is allocated beyond what is needed.
const aheadBytes = 256 << 10

// makeRoom makes sure that the disk has space for n more bytes before any of them is written. A
// half-written record, or a segment that cannot be followed by the next one, would end the log
// for this process. ErrNoRoom in contrast changes nothing, and the same entries can be tried
// again. appendMu is held.
func (l *Log) makeRoom(n int64) error {
	end := l.written + n
	if end >= l.o.SegmentBytes {
		// A new segment follows. The wal has its file ready and allocates the file after it in
		// the background.
		if free := freeBytes(l.o.Dir); free < uint64(l.o.SegmentBytes) {
			return fmt.Errorf("%w: %d bytes are free, but a new segment needs %d: %w", ErrNoRoom, free, l.o.SegmentBytes, unix.ENOSPC)
		}
	}
	if l.wal == nil || end >= l.o.SegmentBytes && l.preallocFailed.Load() {
		if err := l.renew(); err != nil {
			return err
		}
	}
	if end <= l.allocated {
		return nil
	}
	l.mu.Lock()
	path := filepath.Join(l.o.Dir, l.files.current().name.String())
	l.mu.Unlock()
	// Allocate some space ahead if the disk has it, to save a system call for most appends.
	ahead := end + aheadBytes
	err := allocate(path, l.allocated, ahead)
	if err == nil {
		end = ahead
	} else {
		err = allocate(path, l.allocated, end)
	}
	switch {
	case proc.NoSpace(err), errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		return fmt.Errorf("%w: %w", ErrNoRoom, err)
	case err != nil:
		// Not every file system supports fallocate. There an append may find the disk full.
		l.allocated = math.MaxInt64
	default:
		l.allocated = end
	}
	return nil
}

// renew opens the wal anew. The wal's background allocation stops at its first failure, and a
// wal without it fails at the next segment. If there is no space for a new wal, the log is as
// it was, and the next append tries again.
func (l *Log) renew() error {
	if w := l.wal; w != nil {
		l.wal = nil
		if err := guard(w.Close); err != nil {
			return l.broken(fmt.Errorf("renew the wal: %w", err))
		}
	}
	l.preallocFailed.Store(false)
	w, err := openLast(l.o)
	if err == nil {
		if err = readyForAppend(w); err != nil {
			err = errors.Join(err, guard(w.Close))
		}
	}
	switch {
	case proc.NoSpace(err):
		return fmt.Errorf("%w: renew the wal: %w", ErrNoRoom, err)
	case err != nil:
		return l.broken(fmt.Errorf("renew the wal: %w", err))
	}
	l.wal = w
	l.mu.Lock()
	defer l.mu.Unlock()
	l.allocated = 0
	if c := l.files.current(); c.f != nil {
		l.allocated = allocatedBytes(c.f) // the wal may have given back blocks when it zeroed the rest
	}
	return nil
}

func (l *Log) broken(err error) error {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.fail(err)
}

// preallocationFailed is the log message of the wal package when the file for its next segment
// cannot be allocated. The wal package reports this failure in no other way.
const preallocationFailed = "failed to preallocate space when creating a new WAL"

// watched returns a logger that sets failed when the wal logs preallocationFailed.
func watched(lg *zap.Logger, failed *atomic.Bool) *zap.Logger {
	return lg.WithOptions(zap.WrapCore(func(c zapcore.Core) zapcore.Core {
		return zapcore.NewTee(c, watch{zapcore.ErrorLevel, failed})
	}))
}

// watch is a zap core that looks at messages and writes nothing.
type watch struct {
	zapcore.LevelEnabler
	failed *atomic.Bool
}

func (w watch) With([]zapcore.Field) zapcore.Core { return w }
func (w watch) Sync() error                       { return nil }

func (w watch) Check(e zapcore.Entry, ce *zapcore.CheckedEntry) *zapcore.CheckedEntry {
	if w.Enabled(e.Level) {
		return ce.AddCore(e, w)
	}
	return ce
}

func (w watch) Write(e zapcore.Entry, _ []zapcore.Field) error {
	if e.Message == preallocationFailed {
		w.failed.Store(true)
	}
	return nil
}

// allocate gives a file blocks without changing its length.
func allocate(path string, from, to int64) error {
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	for {
		err = fallocate(int(f.Fd()), unix.FALLOC_FL_KEEP_SIZE, from, to-from)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		return &os.PathError{Op: "fallocate", Path: path, Err: err}
	}
	return nil
}

// allocatedBytes is the length up to which a segment has blocks. It assumes that the segment
// has no holes; the wal package allocates a segment as a whole.
func allocatedBytes(f *os.File) int64 {
	var st unix.Stat_t
	if unix.Fstat(int(f.Fd()), &st) != nil {
		return 0
	}
	return min(st.Size, st.Blocks*512)
}

// freeBytes is the free space on the disk. If statfs fails, it returns the maximum, and a write
// will find out.
func freeBytes(dir string) uint64 {
	var st unix.Statfs_t
	for {
		switch err := statfs(dir, &st); err {
		case nil:
			return st.Bavail * uint64(st.Frsize)
		case unix.EINTR:
		default:
			return math.MaxUint64
		}
	}
}
