package restore

import (
	"context"
	"fmt"
	"os"
	"path/filepath"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/server/v3/storage/wal"
	"go.etcd.io/etcd/server/v3/storage/wal/walpb"
	"go.etcd.io/raft/v3/raftpb"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/shared/rules/entry"
)

// replay applies the entries of an etcd's log that its database lacks. etcd commits its
// database up to a hundred milliseconds or ten thousand writes after the log. After a crash
// only the log has the last writes.
func (s *source) replay(ctx context.Context, st *store.Store, res *Result) error {
	if s.dir == "" {
		return nil
	}
	applied := st.Applied()
	if err := s.newerDatabase(applied.Index); err != nil {
		return err
	}
	entries, committed, err := s.readLog(applied, res)
	if err != nil {
		return fmt.Errorf("read the log %s: %w", s.walDir, err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.Index <= applied.Index {
			continue
		}
		if _, err := st.Apply(e); err != nil {
			return fmt.Errorf("apply the log %s: %w", s.walDir, err)
		}
		res.Replayed++
		if e.Index > committed {
			res.Uncommitted++
		}
	}
	return nil
}

// readLog returns the entries from applied or an earlier index on, and the index up to which
// they were known to be committed.
func (s *source) readLog(applied entry.Position, res *Result) (entries []entry.Entry, committed uint64, err error) {
	// etcd's package panics on nonsensical records.
	defer func() {
		if p := recover(); p != nil {
			err = fmt.Errorf("%w: %v", ErrDamaged, p)
		}
	}()
	from, err := s.logStart(applied.Index)
	if err != nil {
		return nil, 0, err
	}
	w, err := wal.OpenForRead(s.lg, s.walDir, from)
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	_, state, raw, err := w.ReadAll()
	_ = w.Close() // closing a log that was only read always gives an error
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	for _, e := range raw {
		if e.GetIndex() == applied.Index && applied.Epoch != 0 && e.GetTerm() != applied.Epoch {
			return nil, 0, fmt.Errorf("%w: the log and the database belong to different etcds: entry %d has term %d in the log and term %d in the database", ErrDamaged, applied.Index, e.GetTerm(), applied.Epoch)
		}
		if e.GetIndex() > applied.Index {
			res.noteChange(e)
		}
		entries = append(entries, entry.Entry{Index: e.GetIndex(), Epoch: e.GetTerm(), Data: request(e)})
	}
	if last := from.GetIndex() + uint64(len(raw)); last < applied.Index && from.GetIndex() < applied.Index {
		return nil, 0, fmt.Errorf("%w: the log ends at entry %d, but the database at %d: the end of the log is lost, or the log belongs to another database", ErrDamaged, last, applied.Index)
	}
	return entries, state.GetCommit(), nil
}

// noteChange records a change of the source's members.
func (r *Result) noteChange(e *raftpb.Entry) {
	var c raftpb.ConfChange
	if e.GetType() != raftpb.EntryConfChange || proto.Unmarshal(e.Data, &c) != nil {
		return
	}
	if r.changes == nil {
		r.changes = map[string]bool{}
	}
	r.changes[types.ID(c.GetNodeId()).String()] = c.GetType() != raftpb.ConfChangeRemoveNode
}

// logStart returns the last place at or before applied at which the log can be entered. A
// snapshot was taken there.
func (s *source) logStart(applied uint64) (*walpb.Snapshot, error) {
	snaps, err := wal.ValidSnapshotEntries(s.lg, s.walDir)
	if err != nil {
		return nil, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	var from *walpb.Snapshot
	for _, sn := range snaps {
		if sn.GetIndex() <= applied && (from == nil || sn.GetIndex() > from.GetIndex()) {
			from = sn
		}
	}
	if from == nil {
		return nil, fmt.Errorf("%w: the log begins after entry %d, where the database ends: the entries between them are missing", ErrDamaged, applied)
	}
	return from, nil
}

// newerDatabase refuses the directory of an etcd that was killed while it installed a database
// from another member.
func (s *source) newerDatabase(applied uint64) error {
	files, err := filepath.Glob(filepath.Join(s.dir, "member", "snap", "*.snap.db"))
	if err != nil {
		return err
	}
	for _, f := range files {
		var index uint64
		if _, err := fmt.Sscanf(filepath.Base(f), "%016x.snap.db", &index); err != nil || index <= applied {
			continue
		}
		if _, err := os.Stat(f); err == nil {
			return fmt.Errorf("%w: the newer database %s from another member was not installed: start this etcd once more and stop it, or use the directory of another member", ErrDamaged, f)
		}
	}
	return nil
}

// request returns the content of an entry if it has a meaning here. It returns nil for the
// first entry of a term, and for what concerns etcd's cluster: its members, their names, its
// version.
func request(e *raftpb.Entry) []byte {
	var r pb.InternalRaftRequest
	switch {
	case e.GetType() != raftpb.EntryNormal, len(e.Data) == 0:
		return nil
	case proto.Unmarshal(e.Data, &r) != nil, r.Header == nil:
		// A request of etcd's API v2, which etcd used up to 3.5 for attributes of members and
		// for the clock. (It cannot be damage, because the log has checksums.)
		return nil
	case r.ClusterVersionSet != nil, r.ClusterMemberAttrSet != nil, r.DowngradeInfoSet != nil, r.DowngradeVersionTest != nil:
		return nil
	}
	return e.Data
}
