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

// What Open and Apply can fail with, besides errors of the file system.
var (
	// ErrCorrupt: the database file is damaged. It was left as it is.
	ErrCorrupt = errors.New("database is corrupt")
	// ErrLocked: another process has the database open.
	ErrLocked = errors.New("database is in use by another process")
	// ErrNewer: the database was written by a later version of the format.
	ErrNewer = errors.New("database has a newer format than this program knows")
	// ErrBadEntry: an entry that no version of this program could have
	// written, or not at this place of the log.
	ErrBadEntry = errors.New("entry cannot be applied")
	// ErrNoRoom: the disk has not enough room for what was asked.
	ErrNoRoom = errors.New("not enough disk space")
	// ErrBroken: applying an entry panicked inside etcd's code. The store
	// cannot be used any more; what is on disk is consistent.
	ErrBroken = errors.New("state machine is broken")

	errClosed = errors.New("store is closed")
)

// failure is a message that etcd's code logged at level panic or fatal, which
// is its way to say that it cannot go on.
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

// failureHook turns etcd's log-and-die into errors where that is possible:
// a panic carries the logged error, and fatal is a panic too as long as Open
// runs and can recover it. Later, fatal ends the process: it comes from
// goroutines that nobody can recover, with a half-done commit behind it.
type failureHook struct {
	opened  atomic.Bool
	onFatal func(error)
}

// logger returns lg with the hooks in place.
func (h *failureHook) logger(lg *zap.Logger) *zap.Logger {
	if lg == nil {
		lg = zap.NewNop()
	}
	return lg.WithOptions(zap.WithPanicHook(hookFunc(h.panicked)), zap.WithFatalHook(hookFunc(h.fatal)))
}

// jobFailed is what etcd's scheduler logs when a compaction panicked, on a
// goroutine where nobody recovers.
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

// die ends the process.
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

// openFailure sorts what a recovered panic during Open means.
func openFailure(path string, recovered any) error {
	f, ok := recovered.(*failure)
	switch {
	case !ok:
		// bbolt's assertions: a page is not what it should be.
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
	// Anything else with a system error in it (no space, no permission) says
	// nothing about the data; a panic for its own sake does.
	var sys interface{ Timeout() bool } // syscall.Errno and *os.PathError have it
	return !errors.As(f, &sys)
}
