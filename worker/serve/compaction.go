package serve

import (
	"context"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3compactor"
	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/worker/state"
)

// autoCompaction compacts old revisions by etcd's own rules and code. It runs in every member,
// and is paused in followers. They also record which revision was current at which time, so
// that a takeover does not restart the period. (Compaction by count needs no record.)
type autoCompaction struct {
	lg   *zap.Logger
	what compactable

	mu        sync.Mutex
	compactor v3compactor.Compactor // nil: off
	running   bool
	leading   bool
}

// newAutoCompaction returns an autoCompaction that does nothing before start is called. It
// never does anything if compaction is off.
func newAutoCompaction(sh *state.Shared, r Replica, p Proposer) *autoCompaction {
	a, err := compactBy(sh.Logs.Zap("compaction"), sh.Settings.Start.Store.AutoCompaction, compacted{replica: r, proposer: p})
	if err != nil {
		panic(err) // newCompactor only passes modes that etcd knows
	}
	return a
}

// compactable is the store to compact.
type compactable interface {
	v3compactor.RevGetter
	v3compactor.Compactable
}

func compactBy(lg *zap.Logger, keep config.AutoCompaction, what compactable) (*autoCompaction, error) {
	a := &autoCompaction{lg: lg, what: what}
	return a, a.keep(keep)
}

// keep changes how much history is kept, and drops the record of earlier revisions. By time,
// nothing is compacted before the new period has passed.
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

// start starts recording revisions.
func (a *autoCompaction) start() { a.change(&a.running, v3compactor.Compactor.Run) }

// lead starts compacting.
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

// compacted is the store of this member, as etcd's compactor sees it.
type compacted struct {
	replica  Replica
	proposer Proposer
}

// Rev returns the newest revision, or 0 if there is no store yet.
func (c compacted) Rev() int64 {
	h := c.replica.Hold()
	defer h.Release()
	if h.Store == nil {
		return 0
	}
	return h.Store.Revision()
}

// Compact makes all members drop the revisions before this one.
func (c compacted) Compact(ctx context.Context, r *pb.CompactionRequest) (*pb.CompactionResponse, error) {
	res, err := c.proposer.Propose(ctx, &pb.InternalRaftRequest{
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
