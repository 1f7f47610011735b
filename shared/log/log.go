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

	"github.com/dynast-io/dynast/shared/proc"
)

// frameOverheadBytes is more than a frame can need beside an entry's data:
// the frame's length and padding (8 + 7), the record's type, checksum and length
// (2 + 6 + 6), the entry's epoch, index and length (11 + 11 + 6).
const frameOverheadBytes = 57

// Log is the log of one slot, open for append.
type Log struct {
	o Options
	// wal is nil after it found no room, until there is some; appendMu guards it.
	wal *wal.WAL

	// appendMu is held by the one who writes to the wal.
	appendMu sync.Mutex
	scratch  scratch
	// written is no less than the bytes in the current segment, and allocated
	// is how many of them have their place on the disk.
	written, allocated int64
	// spent is set by the wal when it can begin no new segment.
	spent *atomic.Bool

	// syncMu is held by the one who fsyncs, compactMu by the one who compacts.
	// Order: compactMu, syncMu, appendMu, mu.
	syncMu    sync.Mutex
	compactMu sync.Mutex

	// mu guards what follows. It is held for moments, never during I/O.
	mu   sync.Mutex
	tail tail
	// floor: entries up to here are in a durable database; they are never replaced.
	floor uint64
	// applied: entries above it stay in memory, whatever their size, since who
	// applies them still has to read them.
	applied uint64
	files   syncState
	failed  error
}

// scratch is reused from append to append; the wal keeps nothing of it.
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

// Append writes entries to the end of the log and returns once the kernel has
// them: the death of this process can't lose them any more, that of the host
// can, until Sync. Their indices and epochs must continue the log; if they
// begin at or below Last they replace its end, down to what is known to be in
// the database and no further (ErrOutOfOrder). Append takes ownership of
// each Data, which must not change afterwards. One goroutine appends.
//
// ErrNoRoom: the disk is full, and nothing was written. After any other error of
// the disk the log refuses everything (ErrFailed) until it is opened again; some of
// the entries may be found in it then.
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
		confirm = nil // it may be what found no room
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

// frameBytes is no less than an entry takes in the file, and more by no more
// than the padding, so that the end of a segment does not seem near for long.
func frameBytes(e Entry) int64 {
	n := len(e.Data) + protowire.SizeVarint(uint64(len(e.Data))) + protowire.SizeVarint(e.Epoch) + protowire.SizeVarint(e.Index) + 3
	n += protowire.SizeVarint(uint64(n)) + 1 + 8 // the record's: type and checksum are 8 at most
	return int64(frameHeaderBytes + n + 7)
}

// admit checks entries against the log and returns the state record to write
// with them, if one is due.
func (l *Log) admit(entries []Entry) (*raftpb.HardState, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.failed != nil {
		return nil, l.failed
	}
	first, last := entries[0].Index, l.tail.last()
	if first == 0 || first > last.Index+1 || first <= last.Index && first <= l.floor {
		return nil, fmt.Errorf("%w: the log ends at %s, up to %d it is final", ErrOutOfOrder, last, l.floor)
	}
	prev, ok := l.tail.at(first - 1)
	if !ok {
		return nil, fmt.Errorf("%w: the entry before %d", ErrCompacted, first)
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

// segmentAfterCut finds out whether the wal began a new segment.
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
	l.written = 8 * frameOverheadBytes // the new segment's header, generously
	l.allocated = allocatedBytes(f)
	// The wal holds its lock on the last two segments only.
	if l.wal != nil {
		err = guard(func() error { return l.wal.ReleaseLockTo(name.index) })
	}
	if err != nil {
		_ = f.Close()
		return nil, fmt.Errorf("release segment: %w", err)
	}
	return &segment{name: name, f: f}, nil
}

// guard turns a panic of the wal package into an error.
func guard(f func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: the wal package panicked: %v", ErrCorrupt, p)
		}
	}()
	return f()
}

// fail makes an error stick. mu is held.
func (l *Log) fail(err error) error {
	if l.failed == nil {
		l.failed = fmt.Errorf("%w: %w", ErrFailed, err)
	}
	return err
}

// BoundTail changes Options.TailBytes. What is not in memory any more does not
// come back.
func (l *Log) BoundTail(bytes int64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.o.TailBytes = bytes
	l.boundTail()
}

func (l *Log) boundTail() {
	l.tail.bound(l.o.TailBytes, min(l.applied, l.tail.last().Index))
}

// Applied tells that the entries up to an index are in the database, durable or
// not. Those above stay in memory, however many they are: who appends must not
// be ahead of who applies without end (see MemoryBytes).
func (l *Log) Applied(index uint64) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if index > l.applied {
		l.applied = index
		l.boundTail()
	}
}

// MemoryBytes is what the entries in memory take.
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

// First is the index of the first entry in memory, Last().Index+1 if there is none.
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

// Entries returns entries from lo to maxIndex or to the end of the log, of at
// most maxBytes of data, but at least one if there is one. ErrCompacted: lo is
// below First (see ReadAfter). The Data belong to the log: read only.
func (l *Log) Entries(lo, maxIndex uint64, maxBytes int) ([]Entry, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.tail.read(lo, maxIndex, maxBytes)
}

// EpochAt returns the epoch of an entry in memory, or of the one right before
// First.
func (l *Log) EpochAt(index uint64) (uint64, bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	p, ok := l.tail.at(index)
	return p.Epoch, ok
}

// Close gives up the log. It does not sync.
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
