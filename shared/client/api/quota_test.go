package api

import (
	"bytes"
	"fmt"
	"os"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/prove/testkit"
	"github.com/dynast-io/dynast/shared/replica/store"
)

const testQuota = 1 << 20

// full returns a server that has reached its quota, with keys of 10 KiB that are named by
// numbers.
func full(t *testing.T) (s *server, keys int) {
	t.Helper()
	s = serve(t, func(c *store.Config, _ *Config) { c.QuotaBytes = testQuota })
	kv := pb.NewKVClient(dial(t, s.address))
	for keys = 0; ; keys++ {
		_, err := kv.Put(t.Context(), &pb.PutRequest{Key: fmt.Appendf(nil, "%04d", keys), Value: bytes.Repeat([]byte("x"), 10<<10)})
		if isNoSpace(err) {
			return s, keys
		}
		if err != nil || keys > 1000 {
			t.Fatalf("put %d: %v", keys, err)
		}
	}
}

func isNoSpace(err error) bool {
	return status.Convert(err).Message() == status.Convert(rpctypes.ErrGRPCNoSpace).Message()
}

// drop deletes the first n keys, and the history.
func (s *server) drop(t *testing.T, n int) {
	t.Helper()
	kv := pb.NewKVClient(dial(t, s.address))
	del, err := kv.DeleteRange(t.Context(), &pb.DeleteRangeRequest{Key: []byte("0"), RangeEnd: fmt.Appendf(nil, "%04d", n)})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := kv.Compact(t.Context(), &pb.CompactionRequest{Revision: del.Header.Revision}); err != nil {
		t.Fatal(err)
	}
	testkit.Eventually(t, "the compaction", func() bool { return s.store.Compacted() >= del.Header.Revision })
}

func TestQuota(t *testing.T) {
	s, keys := full(t)
	// Data that is not in the file yet counts too, because the file is committed once a second.
	// Around a commit, some data counts twice for a moment.
	if keys < 80 || keys > 105 {
		t.Errorf("refused with %d keys and %d of %d bytes used", keys, s.store.Used(), testQuota)
	}
	kv, ctx := pb.NewKVClient(dial(t, s.address)), t.Context()
	alarms := s.store.Alarms().Get(pb.AlarmType_NOSPACE)
	if len(alarms) != 1 || alarms[0].MemberID != QuotaAlarmMember {
		t.Fatalf("alarms %v", alarms)
	}
	put := &pb.RequestOp{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("a")}}}
	get := &pb.RequestOp{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("a")}}}
	for what, err := range map[string]error{
		"small put": second(kv.Put(ctx, &pb.PutRequest{Key: []byte("a")})),
		"txn":       second(kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{put}})),
		"lease":     second(pb.NewLeaseClient(dial(t, s.address)).LeaseGrant(ctx, &pb.LeaseGrantRequest{TTL: 60})),
	} {
		if !isNoSpace(err) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for what, err := range map[string]error{
		"range":             second(kv.Range(ctx, &pb.RangeRequest{Key: []byte("0001")})),
		"txn that reads":    second(kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{get}})),
		"delete":            second(kv.DeleteRange(ctx, &pb.DeleteRangeRequest{Key: []byte("0001")})),
		"txn that deletes":  second(kv.Txn(ctx, &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestDeleteRange{RequestDeleteRange: &pb.DeleteRangeRequest{Key: []byte("0002")}}}}})),
		"compaction":        second(kv.Compact(ctx, &pb.CompactionRequest{Revision: 3})),
		"authentication on": second(pb.NewAuthClient(dial(t, s.address)).RoleAdd(ctx, &pb.AuthRoleAddRequest{Name: "r"})),
	} {
		if err != nil {
			t.Errorf("%s: %v", what, err)
		}
	}
}

// After keys are deleted and compacted, writes are accepted again, without an operator and
// without a smaller file.
func TestQuotaDisarmsItself(t *testing.T) {
	s, keys := full(t)
	s.lead(t)
	size := s.store.Size()
	s.drop(t, keys)
	kv := pb.NewKVClient(dial(t, s.address))
	testkit.Eventually(t, "writes are taken again", func() bool {
		_, err := kv.Put(t.Context(), &pb.PutRequest{Key: []byte("again"), Value: bytes.Repeat([]byte("x"), 10<<10)})
		if err != nil && !isNoSpace(err) {
			t.Fatal(err)
		}
		return err == nil
	})
	if alarms := s.store.Alarms().Get(pb.AlarmType_NOSPACE); len(alarms) != 0 {
		t.Errorf("alarms: %v", alarms)
	}
	s.store.Commit()
	if now := s.store.Size(); now < size || now > 2*testQuota {
		t.Errorf("the file had %d bytes, and has %d", size, now)
	}
}

// keeper returns the quota keeper, to be called by the test.
func (s *server) keeper() *quotaKeeper { return &quotaKeeper{API: s.api} }

func (s *server) alarmed() bool { return len(s.store.Alarms().Get(pb.AlarmType_NOSPACE)) > 0 }

// A little free space is not enough, because the next write would use it. And checking for
// space writes nothing while nothing happens.
func TestQuotaDoesNotFlutter(t *testing.T) {
	s, keys := full(t)
	k := s.keeper()
	lookAll := func() {
		k.look(t.Context())
		testkit.Eventually(t, "the count is right", func() bool {
			k.look(t.Context())
			return k.left == 0
		})
	}
	s.store.Commit()
	s.store.Recount()
	each := s.store.Used() / int64(keys)
	s.drop(t, int((s.store.Used()-testQuota*95/100)/each))
	lookAll()
	if used := s.store.Used(); !s.alarmed() || used <= testQuota*9/10 || used >= testQuota {
		t.Fatalf("with %d of %d bytes used, alarmed: %v", used, testQuota, s.alarmed())
	}
	before, err := os.ReadFile(store.Path(s.dir))
	if err != nil {
		t.Fatal(err)
	}
	lookAll()
	after, err := os.ReadFile(store.Path(s.dir))
	if err != nil || !bytes.Equal(before, after) {
		t.Errorf("an idle store at its quota was written to: %v", err)
	}
	s.drop(t, keys/2)
	lookAll()
	if s.alarmed() {
		t.Fatalf("with %d of %d bytes used it is still alarmed", s.store.Used(), testQuota)
	}
}

// Only the quota alarm is disarmed. Another alarm has another reason.
func TestQuotaLeavesOtherAlarms(t *testing.T) {
	s := serve(t, nil)
	s.must(t, diskAlarm(pb.AlarmRequest_ACTIVATE))
	s.keeper().look(t.Context())
	if !s.alarmed() {
		t.Error("the alarm of the disk is gone")
	}
}

// A leader with a larger quota disarms the alarm that an earlier leader raised.
func TestQuotaRaised(t *testing.T) {
	s := serve(t, func(c *store.Config, _ *Config) { c.QuotaBytes = 64 * testQuota })
	s.must(t, &pb.InternalRaftRequest{Alarm: &pb.AlarmRequest{MemberID: QuotaAlarmMember, Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_NOSPACE}})
	s.keeper().look(t.Context())
	if s.alarmed() {
		t.Error("still alarmed")
	}
}
