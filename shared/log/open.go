package log

import (
	"errors"
	"fmt"
	"math"
	"os"
	"path/filepath"
	"sync/atomic"

	"go.etcd.io/etcd/client/pkg/v3/fileutil"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"go.uber.org/zap"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/proc"
)

// Create makes an empty log that begins after a position: that of a snapshot,
// or zero for a fresh cluster; and opens it. It appears whole and durable, or
// not at all. It replaces nothing (os.ErrExist) but an empty directory.
func Create(o Options, at Position) (*Log, error) {
	o = o.withDefaults()
	if err := create(o, at); err != nil {
		return nil, fmt.Errorf("create log %s: %w", o.Dir, err)
	}
	return Open(o, at.Index)
}

func create(o Options, at Position) error {
	if files, err := os.ReadDir(o.Dir); err == nil && len(files) > 0 {
		return os.ErrExist
	}
	// wal.Create is atomic too, but knows only logs that begin at zero.
	staging := filepath.Clean(o.Dir) + ".new"
	if err := os.RemoveAll(staging); err != nil {
		return err
	}
	if err := acquireSegmentSize(o.SegmentBytes); err != nil {
		return err
	}
	err := guard(func() error { return createIn(staging, o.Logger, at) })
	releaseSegmentSize()
	if err == nil {
		err = unix.Rename(staging, o.Dir) // refuses a directory with files
	}
	if err != nil {
		return errors.Join(err, os.RemoveAll(staging))
	}
	return syncDir(filepath.Dir(filepath.Clean(o.Dir)))
}

func createIn(dir string, lg *zap.Logger, at Position) error {
	w, err := wal.Create(lg, dir, nil)
	if err != nil {
		return err
	}
	if !at.IsZero() {
		err = w.SaveSnapshot(snapshotRecord(at))
	}
	if err == nil {
		err = syncDir(dir)
	}
	return errors.Join(err, w.Close())
}

func snapshotRecord(p Position) *walpb.Snapshot {
	return &walpb.Snapshot{Index: &p.Index, Term: &p.Epoch, ConfState: &raftpb.ConfState{}}
}

// Open opens a log for append and loads its last entries. applied is the index up
// to which the database holds everything durably; what is beyond it stays in
// memory, whatever TailBytes says, until Applied is told.
//
// An unfinished end, as a power loss leaves it, is cut off (the original is
// kept aside as *.broken); ErrCorrupt leaves everything as it was. ErrLocked:
// another process has it open. os.ErrNotExist: there is no log. ErrCompacted:
// the log begins after applied, so that entries are missing. The log may end before applied (a
// host that crashed): see Last. Nothing counts as Synced before the first Sync.
func Open(o Options, applied uint64) (*Log, error) {
	o = o.withDefaults()
	l, err := open(o, applied)
	if err != nil {
		return nil, fmt.Errorf("open log %s: %w", o.Dir, err)
	}
	return l, nil
}

func open(o Options, applied uint64) (*Log, error) {
	if err := acquireSegmentSize(o.SegmentBytes); err != nil {
		return nil, err
	}
	spent := &atomic.Bool{}
	o.Logger = watched(o.Logger, spent)
	w, s, names, err := openScanned(o, applied)
	if err != nil {
		releaseSegmentSize()
		return nil, err
	}
	l := &Log{o: o, wal: w, spent: spent, written: s.offset + frameOverheadBytes}
	l.tail.before = s.begin
	l.tail.push(s.entries)
	l.floor = max(applied, s.begin.Index, s.snapshot.Index)
	l.applied = applied
	l.files = syncState{dirDirty: true, synced: s.begin}
	l.boundTail()
	if err := l.openFiles(names); err != nil {
		return nil, errors.Join(err, l.Close())
	}
	l.allocated = allocatedBytes(l.files.current().f)
	if s.begin.Index > applied {
		return nil, errors.Join(fmt.Errorf("%w: it begins after %s, the database ends at %d", ErrCompacted, s.begin, applied), l.Close())
	}
	return l, nil
}

// openFiles takes descriptors for the fsync. Whoever wrote the segments before
// may not have synced them.
func (l *Log) openFiles(names []segmentName) error {
	for _, n := range names {
		f, err := os.Open(filepath.Join(l.o.Dir, n.String()))
		if err != nil {
			return err
		}
		l.files.segments = append(l.files.segments, &segment{name: n, f: f, dirty: true})
	}
	return nil
}

// openScanned locks the log, reads it, repairs its end if that is unfinished,
// and returns it ready for append.
func openScanned(o Options, applied uint64) (*wal.WAL, *scan, []segmentName, error) {
	for repaired := false; ; repaired = true {
		w, s, names, err := lockAndScan(o, applied)
		if err != nil {
			return nil, nil, nil, err
		}
		if !s.torn && len(s.drop) == 0 {
			if err := readyForAppend(w); err != nil {
				return nil, nil, nil, errors.Join(err, guard(w.Close))
			}
			return w, s, names, nil
		}
		if err := guard(w.Close); err != nil {
			return nil, nil, nil, err
		}
		if repaired {
			return nil, nil, nil, corruptf(s.segment.String(), s.offset, "its end is unfinished again after a repair")
		}
		if err := repair(o, s); err != nil {
			return nil, nil, nil, err
		}
	}
}

// lockAndScan reads the log from applied on, and before that as much as may stay in
// memory: others may want it. A log can be much longer than that.
func lockAndScan(o Options, applied uint64) (*wal.WAL, *scan, []segmentName, error) {
	names, err := listSegments(o.Dir)
	if err != nil {
		return nil, nil, nil, err
	}
	w, err := openLast(o)
	if err != nil {
		return nil, nil, nil, err
	}
	from := segmentOf(names, applied) - int((o.TailBytes+o.SegmentBytes-1)/o.SegmentBytes)
	s, err := scanBack(o.Dir, names, max(from, 0), 0)
	if err != nil {
		return nil, nil, nil, errors.Join(err, guard(w.Close))
	}
	return w, s, names, nil
}

// openLast opens the wal and its last segment only. Its lock excludes other
// writers, and the wal need not read entries that the scan reads.
func openLast(o Options) (w *wal.WAL, err error) {
	err = guard(func() (err error) {
		if err := clearTemporary(o.Dir); err != nil {
			return err
		}
		beyond := uint64(math.MaxUint64)
		w, err = wal.Open(o.Logger, o.Dir, &walpb.Snapshot{Index: &beyond})
		return err
	})
	if errors.Is(err, fileutil.ErrLocked) {
		return nil, fmt.Errorf("%w: %w", ErrLocked, err)
	}
	if err != nil {
		return nil, err
	}
	w.SetUnsafeNoFsync()
	return w, nil
}

// readyForAppend lets the wal find the end of its last segment, which it also
// clears behind.
func readyForAppend(w *wal.WAL) error {
	return guard(func() error {
		_, _, _, err := w.ReadAll()
		if err != nil && !errors.Is(err, ErrCorrupt) && !proc.NoSpace(err) {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return err
	})
}

// repair cuts off the unfinished end. The log was just locked, so no writer is
// alive; the slot's own lock keeps it so.
func repair(o Options, s *scan) error {
	o.Logger.Warn("cutting off the unfinished end of the log",
		zap.String("dir", o.Dir), zap.Stringer("segment", s.segment), zap.Int64("offset", s.offset),
		zap.Stringer("last", s.last()), zap.Int("segments-dropped", len(s.drop)))
	for i := len(s.drop) - 1; i >= 0; i-- { // from the end: never a gap
		path := filepath.Join(o.Dir, s.drop[i].String())
		if err := os.Rename(path, path+brokenSuffix); err != nil {
			return fmt.Errorf("repair: %w", err)
		}
	}
	if err := syncDir(o.Dir); err != nil {
		return fmt.Errorf("repair: %w", err)
	}
	if !s.torn {
		return nil
	}
	mended := false
	err := guard(func() error {
		mended = wal.Repair(o.Logger, o.Dir)
		return nil
	})
	if err == nil && !mended {
		err = corruptf(s.segment.String(), s.offset, "its unfinished end cannot be repaired")
	}
	return err
}
