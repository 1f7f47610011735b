package store

import (
	"errors"
	"fmt"
	"os"
	"runtime/debug"
	"sync/atomic"

	bolterrors "go.etcd.io/bbolt/errors"
	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// Errors of Open and Apply, besides errors of the file system.
var (
	// ErrCorrupt means that the database file is damaged. It was not changed.
	ErrCorrupt = errors.New("database is corrupt")
	// ErrLocked means that another process has the database open.
	ErrLocked = errors.New("database is in use by another process")
	// ErrNewer means that a later version wrote the database in its own format.
	ErrNewer = errors.New("database has a newer format than this program knows")
	// ErrBadEntry means that no version of this program could have written the entry, or not at
	// this place of the log.
	ErrBadEntry = errors.New("entry cannot be applied")
	// ErrNoRoom means that the disk has not enough free space for the operation.
	ErrNoRoom = errors.New("not enough disk space")
	// ErrBroken means that etcd's code panicked while an entry was applied. The store cannot be
	// used any more. Its content on disk is consistent.
	ErrBroken = errors.New("state machine is broken")

	errClosed = errors.New("store is closed")
)

// failure is a message that etcd's code logged at level panic or fatal. That is how etcd's code
// reports that it cannot go on.
type failure struct {
	message string
	err     error
}

func (f *failure) Error() string {
	if f.err == nil {
		return f.message
	}
	return f.message + ": " + f.err.Error()
}

func (f *failure) Unwrap() error { return f.err }

// failureHook turns etcd's panic and fatal log messages into errors where possible. A panic
// carries the logged error. While Open runs, fatal is a panic too, and Open recovers it. Later,
// fatal ends the process: it comes from goroutines where nobody can recover it, and leaves a
// half-done commit behind.
type failureHook struct {
	opened  atomic.Bool
	onFatal func(error)
}

// logger returns lg with the hooks installed.
func (h *failureHook) logger(lg *zap.Logger) *zap.Logger {
	if lg == nil {
		lg = zap.NewNop()
	}
	return lg.WithOptions(zap.WithPanicHook(hookFunc(h.panicked)), zap.WithFatalHook(hookFunc(h.fatal)))
}

// jobFailed is what etcd's scheduler logs when a compaction panics, on a goroutine where nobody
// recovers.
const jobFailed = "execute job failed"

func (h *failureHook) panicked(f *failure) {
	if f.message == jobFailed && h.opened.Load() {
		h.die(fmt.Errorf("%w: compaction: %w", ErrBroken, FromPanic(f, debug.Stack())))
	}
	panic(f)
}

func (h *failureHook) fatal(f *failure) {
	if !h.opened.Load() {
		panic(f)
	}
	h.die(f)
}

// die calls onFatal and ends the process.
func (h *failureHook) die(err error) {
	if h.onFatal != nil {
		h.onFatal(fmt.Errorf("store: %w", err))
	}
	os.Exit(1)
}

type hookFunc func(*failure)

// OnWrite implements zapcore.CheckWriteHook.
func (fn hookFunc) OnWrite(ce *zapcore.CheckedEntry, fields []zapcore.Field) {
	f := &failure{message: ce.Message}
	for i := range fields {
		if err, ok := fields[i].Interface.(error); ok && fields[i].Type == zapcore.ErrorType {
			f.err = err
		}
	}
	fn(f)
}

// openFailure classifies a panic that was recovered during Open.
func openFailure(path string, recovered any) error {
	f, ok := recovered.(*failure)
	switch {
	case !ok:
		// An assertion of bbolt failed: a page has unexpected content.
		return fmt.Errorf("open %s: %w: %v", path, ErrCorrupt, recovered)
	case errors.Is(f, bolterrors.ErrTimeout):
		return fmt.Errorf("open %s: %w", path, ErrLocked)
	case isDamage(f):
		return fmt.Errorf("open %s: %w: %w", path, ErrCorrupt, f)
	default:
		return fmt.Errorf("open %s: %w", path, f)
	}
}

func isDamage(f *failure) bool {
	for _, target := range []error{bolterrors.ErrInvalid, bolterrors.ErrVersionMismatch, bolterrors.ErrChecksum} {
		if errors.Is(f, target) {
			return true
		}
	}
	// A system error (no space, no permission) says nothing about the data. A panic without one
	// means damage.
	var sys interface{ Timeout() bool } // syscall.Errno and *os.PathError have it
	return !errors.As(f, &sys)
}
