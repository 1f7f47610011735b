package log

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"sync"
	"sync/atomic"

	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/encoding/protowire"

	"github.com/dynast-io/dynast/shared/host/proc"
)

// frameOverheadBytes is an upper bound of what a frame needs in addition to an entry's data:
// the frame's length and padding (8 + 7), the record's type, checksum and length (2 + 6 + 6),
// and the entry's epoch, index and length (11 + 11 + 6).
const frameOverheadBytes = 57

// Log is the log of one slot, open for append.
type Log struct {
	o Options
	// wal is nil after a write found the disk full, until there is space again. appendMu guards
	// it.
	wal *wal.WAL

	// appendMu is held while writing to the wal.
	appendMu sync.Mutex
	scratch  scratch
	// written is an upper bound of the bytes in the current segment. allocated is the length up
	// to which the segment has blocks on the disk.
	written, allocated int64
	// preallocFailed is set when the wal cannot begin another segment.
	preallocFailed *atomic.Bool

	// syncMu is held during an fsync, compactMu during a compaction. Lock order: compactMu,
	// syncMu, appendMu, mu.
	syncMu    sync.Mutex
	compactMu sync.Mutex

	// mu guards the fields below. It is held only briefly, never during I/O.
	mu   sync.Mutex
	tail tail
	// floor is the last index that a durable database holds. Entries up to floor are never
	// replaced.
	floor uint64
	// applied is the last applied index. Entries above it stay in memory whatever their size,
	// because the applier still has to read them.
	applied uint64
	files   syncState
	failed  error
}

// scratch is reused by each Append. The wal does not keep references into it.
type scratch struct {
	entries []raftpb.Entry
	refs    []*raftpb.Entry
	terms   []Position
}

func (s *scratch) fill(entries []Entry) []*raftpb.Entry {
	if n := len(entries); n > len(s.entries) {
		s.entries = make([]raftpb.Entry, n)
		s.terms = make([]Position, n)
		s.refs = make([]*raftpb.Entry, n)
		for i := range s.entries {
			s.entries[i].Term, s.entries[i].Index = &s.terms[i].Epoch, &s.terms[i].Index
			s.refs[i] = &s.entries[i]
		}
	}
	for i, e := range entries {
		s.terms[i] = e.Position()
		s.entries[i].Data = e.Data
	}
	return s.refs[:len(entries)]
}

func (s *scratch) release(n int) {
	for i := range n {
		s.entries[i].Data = nil
	}
}

// Append writes entries to the end of the log and returns when the kernel has them.
// From then on they survive the death of this process. They survive the death of the
// host only after Sync.
//
// Their indices and epochs must continue the log. Entries that begin at or below Last
// replace the end of the log, but never entries that the database is known to hold
// (ErrOutOfOrder). Append takes ownership of each Data, which must not change
// afterwards. Only one goroutine may append.
//
// ErrNoRoom means that the disk is full and that nothing was written. After any other
// disk error the log refuses everything (ErrFailed) until it is opened again. Some of
// the entries may then be found in it.
func (l *Log) Append(entries []Entry) error {
	if len(entries) == 0 {
		return nil
	}
	if err := l.append(entries); err != nil {
		return fmt.Errorf("append entries %d to %d: %w", entries[0].Index, entries[len(entries)-1].Index, err)
	}
	return nil
}

func (l *Log) append(entries []Entry) error {
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	confirm, err := l.admit(entries)
	if err != nil {
		return err
	}
	bytes := int64(0)
	if confirm != nil {
		bytes += frameOverheadBytes
	}
	for _, e := range entries {
		bytes += frameBytes(e)
	}
	if err := l.makeRoom(bytes); err != nil {
		return err
	}
	refs := l.scratch.fill(entries)
	err = guard(func() error { return walSave(l.wal, confirm, refs) })
	l.scratch.release(len(entries))
	l.written += bytes
	if proc.NoSpace(err) {
		if err = l.mend(entries, err); errors.Is(err, ErrNoRoom) {
			return err
		}
		confirm = nil // the state record may be what did not fit
	}
	var began *segment
	if err == nil && l.written >= l.o.SegmentBytes {
		began, err = l.segmentAfterCut(entries[len(entries)-1].Index)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	if err != nil {
		return l.fail(err)
	}
	l.files.wrote(confirm != nil, began)
	first := entries[0].Index
	if first <= l.tail.last().Index {
		l.tail.cutAfter(first - 1)
		l.files.replaced(l.tail.last())
	}
	l.tail.push(entries)
	l.boundTail()
	return nil
}

// frameBytes is an upper bound of an entry's size in the file. It exceeds the true size by the
// padding at most, so that a segment does not look full for long before it is.
func frameBytes(e Entry) int64 {
	n := len(e.Data) + protowire.SizeVarint(uint64(len(e.Data))) + protowire.SizeVarint(e.Epoch) + protowire.SizeVarint(e.Index) + 3
	n += protowire.SizeVarint(uint64(n)) + 1 + 8 // the record's own fields; type and checksum take at most 8
	return int64(frameHeaderBytes + n + 7)
}

// admit checks that entries continue the log. It returns the state record to write with them,
// if one is due.
func (l *Log) admit(entries []Entry) (*raftpb.HardState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return nil, l.failed
	}
	first, last := entries[0].Index, l.tail.last()
	if first == 0 || first > last.Index+1 || first <= last.Index && first <= l.floor {
		return nil, fmt.Errorf("%w: the log ends at %s, entries up to %d cannot be replaced", ErrOutOfOrder, last, l.floor)
	}
	prev, ok := l.tail.at(first - 1)
	if !ok {
		return nil, fmt.Errorf("%w: the entry before %d is no longer in memory", ErrCompacted, first)
	}
	for _, e := range entries {
		if e.Index != prev.Index+1 || e.Epoch < prev.Epoch || e.Epoch == 0 {
			return nil, fmt.Errorf("%w: %s after %s", ErrOutOfOrder, e.Position(), prev)
		}
		prev = e.Position()
	}
	if !l.files.confirmDue() {
		return nil, nil
	}
	epoch, index := l.files.synced.Epoch, l.files.synced.Index
	return &raftpb.HardState{Term: &epoch, Commit: &index}, nil
}

// segmentAfterCut returns the new segment if the wal has begun one.
func (l *Log) segmentAfterCut(last uint64) (*segment, error) {
	l.mu.Lock()
	name := segmentName{seq: l.files.current().name.seq + 1, index: last + 1}
	l.mu.Unlock()
	f, err := os.Open(filepath.Join(l.o.Dir, name.String()))
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("open new segment: %w", err)
	}
	l.written = 8 * frameOverheadBytes // upper bound of the new segment's header
	l.allocated = allocatedBytes(f)
	// The wal must hold its file lock on the last two segments only.
	if l.wal != nil {
		err = guard(func() error { return l.wal.ReleaseLockTo(name.index) })
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("release segment: %w", err)
	}
	return &segment{name: name, f: f}, nil
}

// guard turns a panic of the wal package into ErrCorrupt.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: the wal package panicked: %v", ErrCorrupt, p)
		}
	}()
	return f()
}

// fail records the first error, after which the log refuses everything. mu is held.
func (l *Log) fail(err error) error {
	if l.failed == nil {
		l.failed = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return err
}

// BoundTail changes Options.TailBytes. Raising it does not bring entries back into memory.
func (l *Log) BoundTail(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.o.TailBytes = bytes
	l.boundTail()
}

func (l *Log) boundTail() {
	l.tail.bound(l.o.TailBytes, min(l.applied, l.tail.last().Index))
}

// Applied records that the database holds the entries up to index, durably or not. Entries
// above it stay in memory, however many there are. The caller must therefore bound how far
// appending runs ahead of applying (see MemoryBytes).
func (l *Log) Applied(index uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if index > l.applied {
		l.applied = index
		l.boundTail()
	}
}

// MemoryBytes is the size of the entries in memory.
func (l *Log) MemoryBytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tail.bytes
}

// Last is the position of the last appended entry.
func (l *Log) Last() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tail.last()
}

// First is the index of the first entry in memory, or Last().Index+1 if there is none.
func (l *Log) First() uint64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tail.first()
}

// Synced is the last position that is known to survive the death of the host.
func (l *Log) Synced() Position {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.files.synced
}

// Entries returns the entries from lo to maxIndex or to the end of the log, with at most
// maxBytes of data but at least one entry if there is one. ErrCompacted means that lo is below
// First (see ReadAfter). The Data belong to the log and must not be changed.
func (l *Log) Entries(lo, maxIndex uint64, maxBytes int) ([]Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tail.read(lo, maxIndex, maxBytes)
}

// EpochAt returns the epoch of an entry in memory, or of the entry right before First.
func (l *Log) EpochAt(index uint64) (uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.tail.at(index)
	return p.Epoch, ok
}

// Close closes the log without syncing it.
func (l *Log) Close() error {
	l.compactMu.Lock()
	defer l.compactMu.Unlock()
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.appendMu.Lock()
	defer l.appendMu.Unlock()
	l.mu.Lock()
	defer l.mu.Unlock()
	if errors.Is(l.failed, ErrClosed) {
		return nil
	}
	l.failed = ErrClosed
	l.files.close()
	var err error
	if l.wal != nil {
		err = guard(l.wal.Close)
	}
	releaseSegmentSize()
	if err != nil {
		return fmt.Errorf("close log: %w", err)
	}
	return nil
}
