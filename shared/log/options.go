package log

import (
	"fmt"
	"sync"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
)

const (
	// DefaultSegmentBytes is the size at which a segment ends. Two of them are
	// allocated ahead per open log.
	DefaultSegmentBytes = 4 << 20
	// DefaultTailBytes bounds the memory of the tail.
	DefaultTailBytes = 64 << 20
)

// Options say where a log is and how much of it is kept at hand.
type Options struct {
	// Dir is the log's own directory.
	Dir string
	// SegmentBytes is the size at which a segment ends; 0 means
	// DefaultSegmentBytes. All logs that one process has open for append at the
	// same time must agree on it, since the wal package keeps it in a variable.
	SegmentBytes int64
	// TailBytes bounds the entries in memory; 0 means DefaultTailBytes.
	TailBytes int64
	// Logger may be nil.
	Logger *zap.Logger
}

func (o Options) withDefaults() Options {
	if o.SegmentBytes <= 0 {
		o.SegmentBytes = DefaultSegmentBytes
	}
	if o.TailBytes <= 0 {
		o.TailBytes = DefaultTailBytes
	}
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	return o
}

// segmentSize guards wal.SegmentSizeBytes, which every open wal reads without
// a lock: it changes only while none is open.
var segmentSize struct {
	sync.Mutex
	users int
}

func acquireSegmentSize(bytes int64) error {
	segmentSize.Lock()
	defer segmentSize.Unlock()
	if segmentSize.users > 0 && wal.SegmentSizeBytes != bytes {
		return fmt.Errorf("log: segments of %d bytes wanted while a log with %d is open", bytes, wal.SegmentSizeBytes)
	}
	if wal.SegmentSizeBytes != bytes {
		wal.SegmentSizeBytes = bytes
	}
	segmentSize.users++
	return nil
}

func releaseSegmentSize() {
	segmentSize.Lock()
	defer segmentSize.Unlock()
	segmentSize.users--
}
