package api

import (
	"context"
	"errors"
	"strings"
	"sync"
	"sync/atomic"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"

	"github.com/dynast-io/dynast/shared/prove/testkit"
	"github.com/dynast-io/dynast/shared/replica/store"
)

// disarming disarms the disk alarm right after a put was applied.
type disarming struct {
	inner *direct
	armed bool
}

const diskAlarmMember = 1

func diskAlarm(action pb.AlarmRequest_AlarmAction) *pb.InternalRaftRequest {
	return &pb.InternalRaftRequest{Alarm: &pb.AlarmRequest{MemberID: diskAlarmMember, Action: action, Alarm: pb.AlarmType_NOSPACE}}
}

func (d *disarming) Propose(ctx context.Context, r *pb.InternalRaftRequest) (*apply.Result, error) {
	res, err := d.inner.Propose(ctx, r)
	if err == nil && d.armed && r.Put != nil {
		d.armed = false
		_, err = d.inner.Propose(ctx, diskAlarm(pb.AlarmRequest_DEACTIVATE))
	}
	return res, err
}

// A write can be applied while the disk alarm is on, and the alarm can be off when the answer
// is examined. That does not concern the quota.
func TestDiskAlarmDoesNotRaiseTheQuotaAlarm(t *testing.T) {
	d := &disarming{armed: true}
	s := serve(t, func(_ *store.Config, c *Config) { c.Proposer = d })
	d.inner = s.proposer
	s.must(t, diskAlarm(pb.AlarmRequest_ACTIVATE))
	cl := s.stock(t)
	if _, err := cl.Put(context.Background(), "k", "v"); !errors.Is(err, rpctypes.ErrNoSpace) {
		t.Fatalf("put under the alarm: %v", err)
	}
	if alarms := s.store.Alarms().Get(pb.AlarmType_NOSPACE); len(alarms) != 0 {
		t.Errorf("alarms: %v", alarms)
	}
	if _, err := cl.Put(context.Background(), "k", "v"); err != nil {
		t.Errorf("put after the alarm: %v", err)
	}
}

// counting counts the proposals that arm an alarm. They wait for the signal.
type counting struct {
	inner   *direct
	armed   atomic.Int32
	proceed chan struct{}
}

func (c *counting) Propose(ctx context.Context, r *pb.InternalRaftRequest) (*apply.Result, error) {
	if r.Alarm != nil {
		c.armed.Add(1)
		<-c.proceed
	}
	return c.inner.Propose(ctx, r)
}

// When many clients find the store full at the same moment, one alarm is enough.
func TestOneOfManyRaisesTheAlarm(t *testing.T) {
	c := &counting{proceed: make(chan struct{})}
	s := serve(t, func(sc *store.Config, ac *Config) { sc.QuotaBytes, ac.Proposer = 1<<10, c })
	c.inner = s.proposer
	const clients = 8
	var refused atomic.Int32
	var all sync.WaitGroup
	for range clients {
		kv := pb.NewKVClient(dial(t, s.address))
		all.Go(func() {
			_, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("k"), Value: []byte(strings.Repeat("x", 2<<10))})
			if !isNoSpace(err) {
				t.Errorf("put: %v", err)
			}
			refused.Add(1)
		})
	}
	// All except the client whose proposal waits.
	testkit.Eventually(t, "the others are refused", func() bool { return refused.Load() == clients-1 })
	close(c.proceed)
	all.Wait()
	if n := c.armed.Load(); n != 1 {
		t.Errorf("%d alarms", n)
	}
}
