package log

import (
	"fmt"
	"sync"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.uber.org/zap"
)

const (
	// DefaultSegmentBytes is the size at which a segment ends. Each open log has two segments
	// allocated ahead.
	DefaultSegmentBytes = 4 << 20
	// DefaultTailBytes bounds the memory of the tail.
	DefaultTailBytes = 64 << 20
)

// Options say where a log is and how much of it is kept in memory.
type Options struct {
	// Dir is the log's own directory.
	Dir string
	// SegmentBytes is the size at which a segment ends; 0 means DefaultSegmentBytes. All logs
	// that one process has open for append at the same time must use the same size, because the
	// wal package keeps it in a global variable.
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

// segmentSize guards wal.SegmentSizeBytes. Every open wal reads that variable without a lock,
// so it may change only while no wal is open.
var segmentSize struct {
	sync.Mutex
	users int
}

func acquireSegmentSize(bytes int64) error {
	segmentSize.Lock()
	defer segmentSize.Unlock()
	if segmentSize.users > 0 && wal.SegmentSizeBytes != bytes {
		return fmt.Errorf("log: cannot use segments of %d bytes while a log with segments of %d bytes is open", bytes, wal.SegmentSizeBytes)
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
