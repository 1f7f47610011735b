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

	"github.com/dynast-io/dynast/shared/entry"
	"github.com/dynast-io/dynast/shared/store"
)

// replay applies the entries of an etcd's log that its database lacks. etcd
// commits its database a hundred milliseconds or ten thousand writes after the log,
// and after a crash the log is all that has the last writes.
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
		return fmt.Errorf("the log %s: %w", s.walDir, err)
	}
	for _, e := range entries {
		if err := ctx.Err(); err != nil {
			return err
		}
		if e.Index <= applied.Index {
			continue
		}
		if _, err := st.Apply(e); err != nil {
			return fmt.Errorf("the log %s: %w", s.walDir, err)
		}
		res.Replayed++
		if e.Index > committed {
			res.Uncommitted++
		}
	}
	return nil
}

// readLog returns the entries from at or before applied on, and the index up to
// which they were known to be committed.
func (s *source) readLog(applied entry.Position, res *Result) (entries []entry.Entry, committed uint64, err error) {
	// etcd's package panics on records that make no sense.
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
	_ = w.Close() // of a log that is only read it has an error of its own
	if err != nil {
		return nil, 0, fmt.Errorf("%w: %w", ErrDamaged, err)
	}
	for _, e := range raw {
		if e.GetIndex() == applied.Index && applied.Epoch != 0 && e.GetTerm() != applied.Epoch {
			return nil, 0, fmt.Errorf("%w: it is of another etcd than the database: entry %d is of term %d in the one, of %d in the other", ErrDamaged, applied.Index, e.GetTerm(), applied.Epoch)
		}
		if e.GetIndex() > applied.Index {
			res.noteChange(e)
		}
		entries = append(entries, entry.Entry{Index: e.GetIndex(), Epoch: e.GetTerm(), Data: request(e)})
	}
	if last := from.GetIndex() + uint64(len(raw)); last < applied.Index && from.GetIndex() < applied.Index {
		return nil, 0, fmt.Errorf("%w: it ends at entry %d, and the database at %d: the end of the log is lost, or it belongs to another database", ErrDamaged, last, applied.Index)
	}
	return entries, state.GetCommit(), nil
}

// noteChange notes a change of the source's members.
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

// logStart is the last place at or before applied at which the log can be
// entered: there, a snapshot was taken.
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
		return nil, fmt.Errorf("%w: it begins after entry %d, up to which the database goes: entries between them are missing", ErrDamaged, applied)
	}
	return from, nil
}

// newerDatabase refuses the directory of an etcd that was killed while it put a
// database in place that it had got from another member.
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
			return fmt.Errorf("%w: the newer database %s, from another member, was not put in place: start this etcd once more and stop it, or take the directory of another member", ErrDamaged, f)
		}
	}
	return nil
}

// request is the content of an entry that means something here. Empty are the
// first entries of terms, and what concerns etcd's cluster: its members, their names, its version.
func request(e *raftpb.Entry) []byte {
	var r pb.InternalRaftRequest
	switch {
	case e.GetType() != raftpb.EntryNormal, len(e.Data) == 0:
		return nil
	case proto.Unmarshal(e.Data, &r) != nil, r.Header == nil:
		// A request of etcd's API v2, until etcd 3.5: attributes of members, and
		// the clock. (The log's checksums say that it is what was written.)
		return nil
	case r.ClusterVersionSet != nil, r.ClusterMemberAttrSet != nil, r.DowngradeInfoSet != nil, r.DowngradeVersionTest != nil:
		return nil
	}
	return e.Data
}
