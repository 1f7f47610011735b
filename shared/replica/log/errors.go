package log

import (
	"errors"
	"fmt"
)

var (
	// ErrCompacted means that the requested entries are gone: they have left the memory tail,
	// or the log begins after them.
	ErrCompacted = errors.New("log: entries were compacted away")
	// ErrDiverged means that the other log has a different entry at the same index. One of the
	// two logs holds a tail that was never acknowledged.
	ErrDiverged = errors.New("log: logs diverged")
	// ErrCorrupt means that a log is damaged in a way that neither a killed writer nor a power
	// loss explains. The error text names segment and offset. Nothing was changed on disk.
	ErrCorrupt = errors.New("log: corrupt")
	// ErrLocked means that another process has the log open for append.
	ErrLocked = errors.New("log: in use by another process")
	// ErrOutOfOrder means that entries do not continue the log.
	ErrOutOfOrder = errors.New("log: entries out of order")
	// ErrNoRoom means that the disk is full. Nothing was changed, and the same call can be
	// tried again later.
	ErrNoRoom = errors.New("log: disk full")
	// ErrFailed means that an earlier write or fsync failed. What the disk holds beyond Synced
	// is unknown until the log is closed and opened again.
	ErrFailed = errors.New("log: an earlier write or fsync failed")
	// ErrClosed means that the log was closed.
	ErrClosed = errors.New("log: closed")
)

// corruptf makes an ErrCorrupt that names segment and offset.
func corruptf(segment string, offset int64, format string, args ...any) error {
	return fmt.Errorf("%w: segment %s, offset %d: %s", ErrCorrupt, segment, offset, fmt.Sprintf(format, args...))
}
