package clientapi

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/dynast-io/dynast/shared/tick"
)

// QuotaAlarmMember is the member that the NOSPACE alarm names when the store
// is at its quota. The quota is every member's, so it is none of them.
const QuotaAlarmMember = 2

const (
	// quotaInterval is how often it is looked whether a full store has room again.
	quotaInterval = 250 * time.Millisecond
	// recounts is how many commits it takes until what was freed is counted.
	recounts = 3
)

// checkQuota refuses a request that the store has no room for, before it is
// replicated. As in etcd the request's own validity is looked at later.
func (a *API) checkQuota(ctx context.Context, r any) error {
	if a.store.Fits(r) {
		return nil
	}
	a.raiseQuotaAlarm(ctx)
	return rpctypes.ErrGRPCNoSpace
}

// raiseQuotaAlarm makes every member refuse writes until there is room. That
// it fails is no reason to tell the client anything else: the next write tries
// again.
func (a *API) raiseQuotaAlarm(ctx context.Context) {
	// Of all who find the store full at the same time one does it.
	if len(a.store.Alarms().Get(pb.AlarmType_NOSPACE)) > 0 || !a.raising.TryLock() {
		return
	}
	defer a.raising.Unlock()
	if err := a.setQuotaAlarm(ctx, pb.AlarmRequest_ACTIVATE); err != nil {
		a.logger.Warn("the NOSPACE alarm could not be raised", "error", err)
		return
	}
	a.logger.Warn("the store is at its quota: writes are refused until keys are deleted and old revisions compacted",
		"used_bytes", a.store.Used(), "quota_bytes", a.store.QuotaBytes())
}

func (a *API) setQuotaAlarm(ctx context.Context, action pb.AlarmRequest_AlarmAction) error {
	_, err := a.proposer.Propose(ctx, &pb.InternalRaftRequest{
		Header: &pb.RequestHeader{ID: a.ids.Next()},
		Alarm:  &pb.AlarmRequest{MemberID: QuotaAlarmMember, Action: action, Alarm: pb.AlarmType_NOSPACE},
	})
	return err
}

// quotaKeeper disarms the alarm of the quota when there is room again, whoever
// raised it: this leader, an earlier one, or one with a smaller quota. etcd waits for an
// operator.
type quotaKeeper struct {
	*API
	// at is what the store was like when it was counted last, and left how many
	// counts are to follow.
	at   [2]int64
	left int
}

func (*quotaKeeper) register(*grpc.Server) {}

func (k *quotaKeeper) run(ctx context.Context) {
	timer := time.NewTimer(tick.Until(quotaInterval))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			k.look(ctx)
			timer.Reset(tick.Until(quotaInterval))
		case <-ctx.Done():
			return
		}
	}
}

func (k *quotaKeeper) look(ctx context.Context) {
	if !k.alarmed() {
		k.at, k.left = [2]int64{}, 0
		return
	}
	if k.store.HasRoom() {
		if err := k.setQuotaAlarm(ctx, pb.AlarmRequest_DEACTIVATE); err != nil {
			if ctx.Err() == nil {
				k.logger.Warn("the NOSPACE alarm could not be disarmed", "error", err)
			}
			return
		}
		k.logger.Info("the store has room again: writes are accepted", "used_bytes", k.store.Used(), "quota_bytes", k.store.QuotaBytes())
		return
	}
	k.recount()
}

func (k *quotaKeeper) alarmed() bool {
	for _, a := range k.store.Alarms().Get(pb.AlarmType_NOSPACE) {
		if a.MemberID == QuotaAlarmMember {
			return true
		}
	}
	return false
}

// recount has the store count anew after something was applied or a compaction
// ended. Without that nothing is freed, and nothing is written.
func (k *quotaKeeper) recount() {
	at := [2]int64{int64(k.store.Applied().Index), k.store.Compacted()}
	if at != k.at {
		k.at, k.left = at, recounts
	}
	if k.left > 0 {
		k.left--
		k.store.Recount()
	}
}
