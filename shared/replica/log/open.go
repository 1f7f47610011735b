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

	"github.com/dynast-io/dynast/shared/host/proc"
)

// Create makes an empty log that begins after a position, and opens it. The position is that of
// a snapshot, or zero for a fresh cluster. The log appears whole and durable, or not at all.
// Create replaces an empty directory only; otherwise it returns os.ErrExist.
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
	// wal.Create is atomic too, but it can only make logs that begin at zero.
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
		err = unix.Rename(staging, o.Dir) // fails if the directory has files
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

// Open opens a log for append and loads its last entries. applied is the index up to
// which the database holds everything durably. Entries beyond it stay in memory,
// whatever TailBytes says, until Applied is called for them.
//
// Open cuts off an unfinished end, as a power loss leaves it. The original is kept as
// *.broken until the log is open. The log may end before applied after a crash of the
// host; the caller compares with Last. Nothing counts as Synced before the first Sync.
//
//   - ErrCorrupt: the log is damaged. Nothing was changed.
//   - ErrLocked: another process has the log open.
//   - os.ErrNotExist: there is no log.
//   - ErrCompacted: the log begins after applied, so entries are missing.
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
	preallocFailed := &atomic.Bool{}
	o.Logger = watched(o.Logger, preallocFailed)
	w, s, names, err := openScanned(o, applied)
	if err != nil {
		releaseSegmentSize()
		return nil, err
	}
	l := &Log{o: o, wal: w, preallocFailed: preallocFailed, written: s.offset + frameOverheadBytes}
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
		return nil, errors.Join(fmt.Errorf("%w: the log begins after %s, but the database ends at %d", ErrCompacted, s.begin, applied), l.Close())
	}
	removeBroken(o)
	return l, nil
}

// removeBroken removes the files that this or an earlier repair has put aside. The log is whole
// without them, and they hold nothing that was ever acknowledged. If they stayed, etcd's wal
// would warn of each at every start.
func removeBroken(o Options) {
	names, _ := filepath.Glob(filepath.Join(o.Dir, "*"+brokenSuffix))
	for _, name := range names {
		if err := os.Remove(name); err != nil {
			o.Logger.Warn("could not remove a file that a repair put aside", zap.String("file", name), zap.Error(err))
		}
	}
}

// openFiles opens the segments for fsync and marks them all dirty, because whoever wrote them
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

// openScanned locks and reads the log, repairs an unfinished end, and returns the wal ready for
// append.
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
			return nil, nil, nil, corruptf(s.segment.String(), s.offset, "the end is still unfinished after a repair")
		}
		if err := repair(o, s); err != nil {
			return nil, nil, nil, err
		}
	}
}

// lockAndScan reads the log from applied on. It also reads as much before that as may stay in
// memory, because followers may want it. The log can be much longer.
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

// openLast opens only the wal's last segment. Its file lock excludes other writers. The scan
// reads the entries, so the wal need not read them as well.
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

// readyForAppend lets the wal find the end of its last segment. The wal also zeroes the rest of
// the segment.
func readyForAppend(w *wal.WAL) error {
	return guard(func() error {
		_, _, _, err := w.ReadAll()
		if err != nil && !errors.Is(err, ErrCorrupt) && !proc.NoSpace(err) {
			return fmt.Errorf("%w: %w", ErrCorrupt, err)
		}
		return err
	})
}

// repair cuts off the unfinished end. No writer can be alive: the log was just locked, and the
// slot's own lock excludes new ones.
func repair(o Options, s *scan) error {
	level := zap.InfoLevel // the usual end of the log of a killed process
	if len(s.drop) > 0 {
		level = zap.WarnLevel
	}
	o.Logger.Log(level, "cutting off an unfinished end of the log",
		zap.String("dir", o.Dir), zap.Stringer("segment", s.segment), zap.Int64("offset", s.offset),
		zap.Stringer("last", s.last()), zap.Int("segments-dropped", len(s.drop)))
	for i := len(s.drop) - 1; i >= 0; i-- { // from the end, so that there is never a gap
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
		err = corruptf(s.segment.String(), s.offset, "the unfinished end cannot be repaired")
	}
	return err
}
