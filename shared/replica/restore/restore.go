package restore

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/shared/rules/entry"
)

// Errors of Restore and Status, besides errors of the file system.
var (
	// ErrNotEmpty means that the data directory to be made exists and is not empty.
	ErrNotEmpty = errors.New("not empty")
	// ErrInUse means that another process has the source open.
	ErrInUse = errors.New("in use")
	// ErrNoSnapshot means that the source is neither a snapshot nor an etcd's data directory.
	ErrNoSnapshot = errors.New("not an etcd snapshot")
	// ErrDamaged means that the source is one of them, but cannot be relied on.
	ErrDamaged = errors.New("damaged")
)

// begin is the position at which a restored log begins, in the first epoch. The first leader
// begins the second epoch.
var begin = entry.Position{Epoch: 1, Index: 1}

// Options say what is restored, and where to.
type Options struct {
	// Source is a snapshot file or an etcd's data directory.
	Source string
	// WALDir is the directory of the log, if the etcd had it elsewhere (--wal-dir). Empty means
	// member/wal in Source.
	WALDir string
	// DataDir is the data directory to make. It must be empty or not exist.
	DataDir string
	// SkipHashCheck accepts a file without a checksum at its end: a copied database.
	SkipHashCheck bool
	// BumpRevision is added to the latest revision. With it no revision is used twice, even if
	// clients saw later revisions than the snapshot has.
	BumpRevision uint64
	// MarkCompacted compacts everything up to the bumped revision. Clients that watch are told
	// so, and read everything again.
	MarkCompacted bool
	// KeepAlarms also keeps NOSPACE alarms, for a restore on the same disk.
	KeepAlarms bool
	// Ours means that the source is an engine of this program. It is then checked once less, by the
	// store that opens the copy.
	Ours bool
	// Client and Member are the addresses, as host:port, that succession.json names until a
	// leader starts.
	Client, Member string
	// Logger may be nil.
	Logger *zap.Logger
}

// Result describes what was restored.
type Result struct {
	DataDir         string `json:"data_dir"`
	Revision        int64  `json:"revision"`
	CompactRevision int64  `json:"compact_revision"`
	Keys            int64  `json:"keys"`
	Leases          int    `json:"leases"`
	Users           int    `json:"users"`
	Roles           int    `json:"roles"`
	AuthEnabled     bool   `json:"auth_enabled"`
	// Replayed is the number of log entries that the database lacked. Uncommitted is the number
	// of those that were not known to be committed.
	Replayed    uint64 `json:"replayed"`
	Uncommitted uint64 `json:"uncommitted"`
	// Members is the number of members that the source's cluster had.
	Members int `json:"members"`
	// changes holds the members that the log adds (true) and removes (false).
	changes map[string]bool
	// UsedBytes is the number of bytes that count for the quota.
	UsedBytes int64 `json:"used_bytes"`
	// Corrupt means that the source has a CORRUPT alarm. The alarm is kept.
	Corrupt bool `json:"corrupt_alarm"`
}

// Restore makes a data directory. If it fails or ctx ends, there is none.
func Restore(ctx context.Context, o Options) (*Result, error) {
	if o.Logger == nil {
		o.Logger = zap.NewNop()
	}
	if o.MarkCompacted && o.BumpRevision == 0 {
		return nil, errors.New("restore: --mark-compacted needs --bump-revision: it marks the revisions up to the bumped one as compacted")
	}
	src, err := openSource(o)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", o.Source, err)
	}
	defer src.close()
	s, err := newStage(o.DataDir)
	if err != nil {
		return nil, fmt.Errorf("restore to %s: %w", o.DataDir, err)
	}
	defer s.discard()
	res, err := build(ctx, o, src, s)
	if err != nil {
		return nil, fmt.Errorf("restore %s: %w", o.Source, err)
	}
	if res.DataDir, err = s.publish(); err != nil {
		return nil, fmt.Errorf("restore to %s: %w", o.DataDir, err)
	}
	return res, nil
}

// build fills the stage.
func build(ctx context.Context, o Options, src *source, s *stage) (*Result, error) {
	slot := s.dir.Slot(1)
	if err := slot.Make(); err != nil {
		return nil, err
	}
	db := store.Path(slot.DBDir())
	if err := src.copyTo(ctx, db); err != nil {
		return nil, err
	}
	if !o.Ours {
		if err := checkEtcd(db); err != nil {
			return nil, err
		}
	}
	clusterID, err := s.dir.MakeClusterID()
	if err != nil {
		return nil, err
	}
	res := &Result{}
	if err := fill(ctx, o, src, slot, clusterID, res); err != nil {
		return nil, err
	}
	if err := makeOurs(db, o, res); err != nil {
		return nil, err
	}
	if err := syncAll(db, slot.Path(), filepath.Dir(slot.Path())); err != nil {
		return nil, err
	}
	log, err := replog.Create(replog.Options{Dir: slot.LogDir(), Logger: o.Logger}, begin)
	if err != nil {
		return nil, err
	}
	if err := log.Close(); err != nil {
		return nil, err
	}
	return res, nameSlot(o, s.dir, clusterID)
}

// fill applies the part of the source's log that its database lacks, and describes the outcome
// in res.
func fill(ctx context.Context, o Options, src *source, slot datadir.Slot, clusterID uint64, res *Result) error {
	st, err := store.Open(store.Config{
		Dir: slot.DBDir(), QuotaBytes: -1, Logger: o.Logger, OpenTimeout: time.Second, ClusterID: clusterID, MemberID: 1,
	})
	if err != nil {
		return sourceError(err)
	}
	err = src.replay(ctx, st, res)
	if err == nil {
		err = describe(ctx, st, res)
	}
	return errors.Join(err, st.Close())
}

// sourceError translates the error of a store that cannot be opened. The store was just copied
// from the source, so its fault is the source's.
func sourceError(err error) error {
	switch {
	case errors.Is(err, store.ErrCorrupt):
		return fmt.Errorf("%w: %w; use another snapshot, or one of another member", ErrDamaged, err)
	case errors.Is(err, store.ErrLocked):
		return fmt.Errorf("%w: another process has it open", ErrInUse)
	case errors.Is(err, store.ErrNewer):
		return fmt.Errorf("%w: a later version of etcd wrote it", err)
	}
	return err
}

// nameSlot records that the only slot has every write. The first leader continues with it.
func nameSlot(o Options, dir *datadir.Dir, clusterID uint64) error {
	boot, err := proc.BootID()
	if err != nil {
		return err
	}
	self := proc.Self()
	if err := dir.WriteClaims(datadir.Claims{ClusterID: clusterID, Epoch: begin.Epoch, At: time.Now().UTC()}); err != nil {
		return err
	}
	return dir.WriteSuccession(datadir.Succession{
		ClusterID: clusterID, Epoch: begin.Epoch, Slot: 1, Client: o.Client, BootID: boot, At: time.Now().UTC(),
		Leader: datadir.Leader{Address: o.Member, PID: self.PID, StartTime: self.StartTime},
	})
}

func syncAll(paths ...string) error {
	for _, path := range paths {
		f, err := os.Open(path)
		if err != nil {
			return err
		}
		if err := errors.Join(f.Sync(), f.Close()); err != nil {
			return err
		}
	}
	return nil
}
