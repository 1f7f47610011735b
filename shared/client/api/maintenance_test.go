package api

import (
	"bytes"
	"context"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/coreos/go-semver/semver"
	bolt "go.etcd.io/bbolt"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/replica/store"
)

func TestStatus(t *testing.T) {
	s := serve(t, func(c *store.Config, _ *Config) { c.QuotaBytes = 64 << 20 })
	c, ctx := s.stock(t), t.Context()
	if _, err := c.Put(ctx, "a", "1"); err != nil {
		t.Fatal(err)
	}
	st, err := c.Status(ctx, s.address)
	if err != nil {
		t.Fatal(err)
	}
	v, err := semver.NewVersion(st.Version)
	if err != nil || v.LessThan(*semver.New("3.5.13")) {
		t.Errorf("version %q: %v", st.Version, err)
	}
	if st.Leader != st.Header.MemberId || st.RaftTerm != testEpoch || st.RaftIndex == 0 || st.RaftIndex != st.RaftAppliedIndex ||
		st.DbSize <= 0 || st.DbSizeInUse <= 0 || st.DbSizeQuota != 64<<20 || st.IsLearner || len(st.Errors) != 0 ||
		st.StorageVersion == "" || st.DowngradeInfo.GetEnabled() {
		t.Errorf("%v", st)
	}
}

// The way out of a full store in etcd's manual works here too.
func TestNoSpaceIsDisarmed(t *testing.T) {
	s := serve(t, func(c *store.Config, _ *Config) { c.QuotaBytes = 256 << 10 })
	c, ctx := s.stock(t), t.Context()
	value := strings.Repeat("x", 16<<10)
	var last *clientv3.PutResponse
	for {
		resp, err := c.Put(ctx, "same", value)
		if err != nil {
			if !errors.Is(err, rpctypes.ErrNoSpace) {
				t.Fatal(err)
			}
			break
		}
		last = resp
		s.store.Commit() // the size is known at a commit
	}
	list, err := c.AlarmList(ctx)
	if err != nil || len(list.Alarms) != 1 || list.Alarms[0].Alarm != pb.AlarmType_NOSPACE {
		t.Fatalf("%v %v", list, err)
	}
	if st, err := c.Status(ctx, s.address); err != nil || len(st.Errors) != 1 || !strings.Contains(st.Errors[0], "NOSPACE") {
		t.Fatalf("%v %v", st, err)
	}
	if _, err := c.Compact(ctx, last.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	before := s.store.Size()
	if _, err := c.Defragment(ctx, s.address); err != nil {
		t.Fatal(err)
	}
	if after := s.store.Size(); after >= before {
		t.Errorf("%d bytes before, %d after", before, after)
	}
	if _, err := c.AlarmDisarm(ctx, &clientv3.AlarmMember{}); err != nil { // all
		t.Fatal(err)
	}
	if _, err := c.Put(ctx, "same", value); err != nil {
		t.Fatalf("after the alarm: %v", err)
	}
}

func TestBackup(t *testing.T) {
	s := serve(t, nil)
	c, ctx := s.stock(t), t.Context()
	for _, key := range []string{"a", "b"} {
		if _, err := c.Put(ctx, key, strings.Repeat(key, 200<<10)); err != nil {
			t.Fatal(err)
		}
	}
	resp, err := c.SnapshotWithVersion(ctx)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(resp.Snapshot)
	if err != nil {
		t.Fatal(err)
	}
	if resp.Version != s.store.Version() {
		t.Errorf("version %q", resp.Version)
	}
	db, sum := raw[:len(raw)-sha256.Size], raw[len(raw)-sha256.Size:]
	if got := sha256.Sum256(db); len(db)%512 != 0 || !bytes.Equal(got[:], sum) {
		t.Fatalf("%d bytes with the wrong sum", len(db))
	}
	file := filepath.Join(t.TempDir(), "db")
	if err := os.WriteFile(file, db, 0o600); err != nil {
		t.Fatal(err)
	}
	b, err := bolt.Open(file, 0o600, &bolt.Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer b.Close()
	err = b.View(func(tx *bolt.Tx) error {
		for err := range tx.Check() {
			t.Error(err)
		}
		if n := tx.Bucket([]byte("key")).Stats().KeyN; n != 2 {
			t.Errorf("%d keys", n)
		}
		return nil
	})
	if err != nil {
		t.Error(err)
	}
}

// TestBackupsAreBounded: if nobody reads the backups, only some have the file open. One more
// waits, and is sent when another one ends.
func TestBackupsAreBounded(t *testing.T) {
	s := serve(t, nil)
	c, ctx := s.stock(t), t.Context()
	for i := range 8 { // more than a stream has in its window
		if _, err := c.Put(ctx, string(rune('a'+i)), strings.Repeat("x", 512<<10)); err != nil {
			t.Fatal(err)
		}
	}
	s.store.Commit()
	begin := func() (answered chan error, cancel func()) {
		one, cancel := context.WithCancel(ctx)
		stream, err := pb.NewMaintenanceClient(dial(t, s.address)).Snapshot(one, &pb.SnapshotRequest{})
		if err != nil {
			t.Fatal(err)
		}
		answered = make(chan error, 1)
		go func() { answered <- second(stream.Recv()) }()
		return answered, cancel
	}
	var cancels []func()
	for range maxBackups {
		answered, cancel := begin()
		defer cancel()
		cancels = append(cancels, cancel)
		if err := <-answered; err != nil {
			t.Fatal(err)
		}
	}
	answered, cancel := begin()
	defer cancel()
	select {
	case err := <-answered:
		t.Errorf("one more backup is sent at once (%v)", err)
	case <-time.After(100 * time.Millisecond):
	}
	cancels[0]()
	if err := <-answered; err != nil {
		t.Error(err)
	}
}

func TestRefusedMaintenanceCalls(t *testing.T) {
	s := serve(t, nil)
	conn, ctx := dial(t, s.address), t.Context()
	m, members := pb.NewMaintenanceClient(conn), pb.NewClusterClient(conn)
	downgrade := func(action pb.DowngradeRequest_DowngradeAction, v string) error {
		return second(m.Downgrade(ctx, &pb.DowngradeRequest{Action: action, Version: v}))
	}
	for what, err := range map[string]error{
		"add":              second(members.MemberAdd(ctx, &pb.MemberAddRequest{})),
		"update":           second(members.MemberUpdate(ctx, &pb.MemberUpdateRequest{})),
		"promote":          second(members.MemberPromote(ctx, &pb.MemberPromoteRequest{})),
		"enable downgrade": downgrade(pb.DowngradeRequest_ENABLE, "3.6.0"),
	} {
		if status.Code(err) != codes.Unimplemented || !strings.HasPrefix(status.Convert(err).Message(), "dynast: ") {
			t.Errorf("%s: %v", what, err)
		}
	}
	if err := rpctypes.Error(second(m.MoveLeader(ctx, &pb.MoveLeaderRequest{TargetID: 1}))); !errors.Is(err, rpctypes.ErrBadLeaderTransferee) {
		t.Errorf("move the leader to nobody: %v", err)
	}
	if err := rpctypes.Error(second(members.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: 1}))); !errors.Is(err, rpctypes.ErrMemberNotFound) {
		t.Errorf("remove nobody: %v", err)
	}
	if resp, err := members.MemberRemove(ctx, &pb.MemberRemoveRequest{ID: 100}); err != nil || len(resp.Members) != 1 || resp.Members[0].ID != testMemberID {
		t.Errorf("remove: %v %v", resp, err)
	}
	if err := rpctypes.Error(downgrade(pb.DowngradeRequest_VALIDATE, "x")); !errors.Is(err, rpctypes.ErrWrongDowngradeVersionFormat) {
		t.Error(err)
	}
	if err := rpctypes.Error(downgrade(pb.DowngradeRequest_VALIDATE, "3.7.0")); !errors.Is(err, rpctypes.ErrInvalidDowngradeTargetVersion) {
		t.Error(err)
	}
	if err := downgrade(pb.DowngradeRequest_CANCEL, ""); err != nil {
		t.Error(err)
	}
	if _, err := m.Alarm(ctx, &pb.AlarmRequest{Action: 9}); status.Code(err) != codes.InvalidArgument {
		t.Error(err)
	}
	withUsers := withUsers(t)
	for what, err := range map[string]error{
		"add":         second(pb.NewClusterClient(dial(t, withUsers.address)).MemberAdd(withUsers.login(t, "reader"), &pb.MemberAddRequest{})),
		"remove":      second(pb.NewClusterClient(dial(t, withUsers.address)).MemberRemove(withUsers.login(t, "reader"), &pb.MemberRemoveRequest{ID: 100})),
		"move leader": second(pb.NewMaintenanceClient(dial(t, withUsers.address)).MoveLeader(withUsers.login(t, "reader"), &pb.MoveLeaderRequest{})),
	} {
		if !errors.Is(rpctypes.Error(err), rpctypes.ErrPermissionDenied) {
			t.Errorf("%s: %v", what, err)
		}
	}
}
