package worker

import (
	"context"
	"sync"
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
type autoCompaction struct {
	lg   *zap.Logger
	what compactable

	mu        sync.Mutex
	compactor v3compactor.Compactor // nil: off
	running   bool
	leading   bool
}

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
	a := &autoCompaction{lg: lg, what: what}
	return a, a.keep(keep)
}

// keep changes how much history is kept. What was remembered until now is forgotten: by time,
// nothing is compacted before the new period is over.
func (a *autoCompaction) keep(keep config.AutoCompaction) error {
	next, err := newCompactor(a.lg, keep, a.what)
	if err != nil {
		return err
	}
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.compactor != nil && a.running {
		a.compactor.Stop()
	}
	a.compactor = next
	if next == nil {
		return nil
	}
	if !a.leading {
		next.Pause()
	}
	if a.running {
		next.Run()
	}
	return nil
}

func newCompactor(lg *zap.Logger, keep config.AutoCompaction, what compactable) (v3compactor.Compactor, error) {
	mode, retention := v3compactor.ModePeriodic, keep.Period
	switch {
	case keep == config.AutoCompaction{}:
		return nil, nil
	case keep.Revisions != 0:
		mode, retention = v3compactor.ModeRevision, time.Duration(keep.Revisions)
	}
	return v3compactor.New(lg, mode, retention, what, what)
}

// start begins to remember revisions.
func (a *autoCompaction) start() { a.change(&a.running, v3compactor.Compactor.Run) }

// lead begins to compact.
func (a *autoCompaction) lead() { a.change(&a.leading, v3compactor.Compactor.Resume) }

func (a *autoCompaction) change(state *bool, do func(v3compactor.Compactor)) {
	a.mu.Lock()
	defer a.mu.Unlock()
	*state = true
	if a.compactor != nil {
		do(a.compactor)
	}
}

func (a *autoCompaction) stop() {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.compactor != nil {
		a.compactor.Stop()
	}
	a.compactor, a.running = nil, false
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
