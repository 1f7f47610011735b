package replica

import (
	"slices"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/worker/state/statetest"
)

func TestDescribe(t *testing.T) {
	sh, _ := statetest.New(t, &config.Config{DataDir: t.TempDir()}, false)
	copies := &holder{Shared: sh}
	r := &Replica{Shared: sh, holder: copies}
	if s, ok := r.Describe(); ok {
		t.Errorf("without a store: %+v", s)
	}
	st, err := store.Open(store.Config{Dir: t.TempDir(), QuotaBytes: 64 << 20})
	if err != nil {
		t.Fatal(err)
	}
	defer st.Close()
	copies.cur.Store = st
	alarm := func(member uint64, kind pb.AlarmType) *pb.InternalRaftRequest {
		return &pb.InternalRaftRequest{Alarm: &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, MemberID: member, Alarm: kind}}
	}
	for i, q := range []*pb.InternalRaftRequest{
		{Put: &pb.PutRequest{Key: []byte("k"), Value: []byte("v")}}, alarm(1, pb.AlarmType_NOSPACE), alarm(2, pb.AlarmType_NOSPACE), alarm(1, pb.AlarmType_CORRUPT),
	} {
		raw, err := proto.Marshal(q)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := st.Apply(entry.Entry{Index: uint64(i + 1), Epoch: 1, Data: raw}); err != nil {
			t.Fatal(err)
		}
	}
	s, ok := r.Describe()
	slices.Sort(s.Alarms)
	if !ok || s.Keys != 1 || s.Revision != 2 || s.QuotaBytes != 64<<20 || s.FileBytes <= 0 || s.UsedBytes <= 0 || s.DiskFreeBytes == 0 ||
		!slices.Equal(s.Alarms, []string{"CORRUPT", "NOSPACE"}) {
		t.Errorf("%+v, %t", s, ok)
	}
}

func BenchmarkDescribe(b *testing.B) {
	st, err := store.Open(store.Config{Dir: b.TempDir()})
	if err != nil {
		b.Fatal(err)
	}
	defer st.Close()
	sh, _ := statetest.New(b, &config.Config{DataDir: b.TempDir()}, false)
	r := &Replica{Shared: sh, holder: &holder{Shared: sh, cur: Copy{Store: st}}}
	for b.Loop() {
		if _, ok := r.Describe(); !ok {
			b.Fatal("no store")
		}
	}
}
