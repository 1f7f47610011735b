package api

import (
	"context"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"

	"github.com/dynast-io/dynast/shared/host/tick"
)

// QuotaAlarmMember is the member id in the NOSPACE alarm when the store has reached its quota.
// The quota applies to all members, so this is the id of none of them.
const QuotaAlarmMember = 2

const (
	// quotaInterval is how often the keeper checks whether a full store has room again.
	quotaInterval = 250 * time.Millisecond
	// recounts is how many commits it takes until freed pages are counted.
	recounts = 3
)

// checkQuota refuses a request for which the store has no room, before it is replicated. As in
// etcd, the validity of the request is checked later.
func (a *API) checkQuota(ctx context.Context, r any) error {
	if a.store.Fits(r) {
		return nil
	}
	a.raiseQuotaAlarm(ctx)
	return rpctypes.ErrGRPCNoSpace
}

// raiseQuotaAlarm makes every member refuse writes until there is room. If it fails, the client
// gets the same error, and the next write tries again.
func (a *API) raiseQuotaAlarm(ctx context.Context) {
	// If several requests find the store full at the same time, one of them raises the alarm.
	if len(a.store.Alarms().Get(pb.AlarmType_NOSPACE)) > 0 || !a.raising.TryLock() {
		return
	}
	defer a.raising.Unlock()
	if err := a.setQuotaAlarm(ctx, pb.AlarmRequest_ACTIVATE); err != nil {
		a.logger.Warn("cannot raise the NOSPACE alarm", "error", err)
		return
	}
	a.logger.Error("quota reached: refusing writes until keys are deleted and old revisions are compacted",
		"used_bytes", a.store.Used(), "quota_bytes", a.store.QuotaBytes())
}

func (a *API) setQuotaAlarm(ctx context.Context, action pb.AlarmRequest_AlarmAction) error {
	_, err := a.proposer.Propose(ctx, &pb.InternalRaftRequest{
		Header: &pb.RequestHeader{ID: a.ids.Next()},
		Alarm:  &pb.AlarmRequest{MemberID: QuotaAlarmMember, Action: action, Alarm: pb.AlarmType_NOSPACE},
	})
	return err
}

// quotaKeeper disarms the quota alarm when there is room again, even if an earlier leader
// raised it, or a leader with a smaller quota. In etcd an operator has to do that.
type quotaKeeper struct {
	*API
	// at is the state of the store at the last count, and left is how many counts are still
	// due.
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
				k.logger.Warn("cannot disarm the NOSPACE alarm", "error", err)
			}
			return
		}
		k.logger.Info("the store has room again: accepting writes", "used_bytes", k.store.Used(), "quota_bytes", k.store.QuotaBytes())
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

// recount makes the store count again after an entry was applied, a compaction ended or an old
// state was read. Otherwise nothing was freed, and nothing is written.
func (k *quotaKeeper) recount() {
	at := [2]int64{int64(k.store.Applied().Index), k.store.Compacted()}
	if at != k.at {
		k.at, k.left = at, recounts
	}
	if k.left > 0 {
		k.left--
		if !k.store.Recount() {
			k.left = recounts
		}
	}
}
