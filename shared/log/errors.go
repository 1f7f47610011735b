package log

import (
	"errors"
	"fmt"
)

var (
	// ErrCompacted means that the wanted entries are no longer here: they left
	// the memory tail, or the log begins after them.
	ErrCompacted = errors.New("log: entries are compacted away")
	// ErrDiverged means that the other log has another entry at the same index:
	// one of the two holds a tail that was never acknowledged.
	ErrDiverged = errors.New("log: logs diverged")
	// ErrCorrupt means that a log is damaged in a way that neither a killed
	// writer nor a power loss explains. The text names segment and offset.
	// Nothing was changed on disk.
	ErrCorrupt = errors.New("log: corrupt")
	// ErrLocked means that another process has the log open for append.
	ErrLocked = errors.New("log: in use by another process")
	// ErrOutOfOrder means that entries do not continue the log.
	ErrOutOfOrder = errors.New("log: entries out of order")
	// ErrNoRoom means that the disk is full. Nothing was changed: the same can be
	// tried again later.
	ErrNoRoom = errors.New("log: no room on the disk")
	// ErrFailed means that an earlier write or fsync failed. What the disk holds
	// beyond Synced is unknown until the log is closed and opened again.
	ErrFailed = errors.New("log: failed before")
	// ErrClosed means that the log was closed.
	ErrClosed = errors.New("log: closed")
)

// corruptf makes an ErrCorrupt that names the place.
func corruptf(segment string, offset int64, format string, args ...any) error {
	return fmt.Errorf("%w: segment %s, offset %d: %s", ErrCorrupt, segment, offset, fmt.Sprintf(format, args...))
}
