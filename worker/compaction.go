package worker

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3compactor"
	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/config"
)

// autoCompaction lets old revisions go, by etcd's own rules and code. It runs
// in every member, paused in followers: they too remember which revision there was
// when, so that a takeover does not begin the period anew. (By count there is
// nothing to remember.)
type autoCompaction struct{ compactor v3compactor.Compactor }

// newAutoCompaction needs a member whose replica and proposals are there when
// start is called. Off, it does nothing.
func newAutoCompaction(m *Member) *autoCompaction {
	a, err := compactBy(m.logs.Zap("compaction"), m.cfg.Store.AutoCompaction, compacted{m})
	if err != nil {
		panic(err) // the modes are our own
	}
	return a
}

// compactable is what there is to be compacted.
type compactable interface {
	v3compactor.RevGetter
	v3compactor.Compactable
}

func compactBy(lg *zap.Logger, keep config.AutoCompaction, what compactable) (*autoCompaction, error) {
	mode, retention := v3compactor.ModePeriodic, keep.Period
	switch {
	case keep == config.AutoCompaction{}:
		return &autoCompaction{}, nil
	case keep.Revisions != 0:
		mode, retention = v3compactor.ModeRevision, time.Duration(keep.Revisions)
	}
	c, err := v3compactor.New(lg, mode, retention, what, what)
	if err != nil {
		return nil, err
	}
	c.Pause()
	return &autoCompaction{compactor: c}, nil
}

// start begins to remember revisions.
func (a *autoCompaction) start() {
	if a.compactor != nil {
		a.compactor.Run()
	}
}

// lead begins to compact.
func (a *autoCompaction) lead() {
	if a.compactor != nil {
		a.compactor.Resume()
	}
}

func (a *autoCompaction) stop() {
	if a.compactor != nil {
		a.compactor.Stop()
	}
}

// compacted is the store of a member.
type compacted struct{ m *Member }

// Rev is the newest revision, 0 while there is no store yet.
func (c compacted) Rev() int64 {
	h := c.m.replica.hold()
	defer h.release()
	if h.store == nil {
		return 0
	}
	return h.store.Revision()
}

// Compact has all members let the revisions before this one go.
func (c compacted) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	res, err := c.m.proposals.Propose(ctx, &pb.InternalRaftRequest{
		Header: &pb.RequestHeader{ID: uint64(time.Now().UnixNano())}, Compaction: r,
	})
	if err == nil {
		err = res.Err
	}
	if err != nil {
		return nil, err
	}
	return &pb.CompactionResponse{}, nil
}
