package store

import (
	"errors"
	"math"
	"os"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/rules/entry"
)

// oddRequests are entries that no client can cause, because the API refuses them. They can only
// come from the log of another program or version.
var oddRequests = []*pb.InternalRaftRequest{
	{},
	{Put: &pb.PutRequest{}},
	{Put: &pb.PutRequest{Key: []byte("k"), Lease: 99, IgnoreValue: true, IgnoreLease: true}},
	{Put: &pb.PutRequest{Key: []byte("k"), PrevKv: true, Lease: -1}},
	{Range: &pb.RangeRequest{}},
	{Range: &pb.RangeRequest{Key: []byte("k"), Revision: math.MinInt64, Limit: math.MinInt64, SortOrder: 77, SortTarget: -3}},
	{DeleteRange: &pb.DeleteRangeRequest{}},
	{DeleteRange: &pb.DeleteRangeRequest{Key: []byte("z"), RangeEnd: []byte("a")}},
	{Txn: &pb.TxnRequest{}},
	{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{{}}, Failure: []*pb.RequestOp{{}}}},
	{Txn: &pb.TxnRequest{Compare: []*pb.Compare{{}, {Result: 9, Target: 9, Key: []byte("k")}}, Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k")}}}}}},
	{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestTxn{RequestTxn: &pb.TxnRequest{Success: []*pb.RequestOp{{}}}}}}}},
	{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{}}}}},
	{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestPut{RequestPut: &pb.PutRequest{Key: []byte("k"), Lease: 12345}}}}}},
	{Txn: &pb.TxnRequest{Success: []*pb.RequestOp{{Request: &pb.RequestOp_RequestRange{RequestRange: &pb.RangeRequest{Key: []byte("k"), Revision: 1 << 40}}}}}},
	{Compaction: &pb.CompactionRequest{Revision: -1, Physical: true}},
	{Compaction: &pb.CompactionRequest{Revision: 1 << 60}},
	{LeaseGrant: &pb.LeaseGrantRequest{ID: -1, TTL: math.MaxInt64}},
	{LeaseGrant: &pb.LeaseGrantRequest{TTL: math.MinInt64}},
	{LeaseRevoke: &pb.LeaseRevokeRequest{ID: 4}},
	{LeaseCheckpoint: &pb.LeaseCheckpointRequest{Checkpoints: []*pb.LeaseCheckpoint{nil, {ID: 5, Remaining_TTL: math.MinInt64}}}},
	{Alarm: &pb.AlarmRequest{Action: 77, Alarm: -5}},
	{Alarm: &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: 99}},
	{Alarm: &pb.AlarmRequest{Action: pb.AlarmRequest_ACTIVATE, Alarm: pb.AlarmType_CORRUPT, MemberID: math.MaxUint64}},
	{Authenticate: &pb.InternalAuthenticateRequest{}},
	{Authenticate: &pb.InternalAuthenticateRequest{Name: "root", SimpleToken: "touch_x.y,,=.-1"}},
	{AuthEnable: &pb.AuthEnableRequest{}},
	{AuthDisable: &pb.AuthDisableRequest{}},
	{AuthStatus: &pb.AuthStatusRequest{}},
	{AuthUserAdd: &pb.AuthUserAddRequest{}},
	{AuthUserAdd: &pb.AuthUserAddRequest{Name: "root", HashedPassword: "!!"}},
	{AuthUserAdd: &pb.AuthUserAddRequest{Name: "x", Options: &authpb.UserAddOptions{NoPassword: true}}},
	{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: "x", Role: "none"}},
	{AuthUserChangePassword: &pb.AuthUserChangePasswordRequest{Name: "x", HashedPassword: "\x00"}},
	{AuthRoleAdd: &pb.AuthRoleAddRequest{}},
	{AuthRoleGrantPermission: &pb.AuthRoleGrantPermissionRequest{Name: "none"}},
	{AuthRoleAdd: &pb.AuthRoleAddRequest{Name: "r"}},
	{AuthRoleGrantPermission: &pb.AuthRoleGrantPermissionRequest{Name: "r"}},
	{AuthRoleGrantPermission: &pb.AuthRoleGrantPermissionRequest{Name: "r", Perm: &authpb.Permission{PermType: 44}}},
	{AuthRoleRevokePermission: &pb.AuthRoleRevokePermissionRequest{Role: "r"}},
	{AuthUserDelete: &pb.AuthUserDeleteRequest{Name: "root"}},
	{AuthUserList: &pb.AuthUserListRequest{}}, {AuthRoleList: &pb.AuthRoleListRequest{}},
	{AuthUserGet: &pb.AuthUserGetRequest{}}, {AuthRoleGet: &pb.AuthRoleGetRequest{}},
	{AuthUserRevokeRole: &pb.AuthUserRevokeRoleRequest{}}, {AuthRoleDelete: &pb.AuthRoleDeleteRequest{}},
	{Put: &pb.PutRequest{Key: []byte("k")}, Txn: &pb.TxnRequest{}, Compaction: &pb.CompactionRequest{}},
}

// applyOne applies one entry's data to a new store, alone and after others. It checks that the
// outcome is a result or an error of the store, without a panic or a lock that stays held.
func applyOne(t *testing.T, lead bool, d []byte) {
	t.Helper()
	s, err := Open(Config{Dir: t.TempDir(), BcryptCost: 4, CommitInterval: time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if lead {
		s.Promote(time.Second)
	}
	for _, r := range []*pb.InternalRaftRequest{
		{Put: &pb.PutRequest{Key: []byte("k"), Value: []byte("1")}},
		{LeaseGrant: &pb.LeaseGrantRequest{ID: 7, TTL: 60}},
		{AuthRoleAdd: &pb.AuthRoleAddRequest{Name: "r"}},
		{AuthUserAdd: &pb.AuthUserAddRequest{Name: "x", HashedPassword: "eA=="}},
	} {
		feed(t, s, 1, data(t, r))
	}
	before := s.Applied()
	type answer struct {
		err error
	}
	done := make(chan answer, 1)
	go func() {
		_, err := s.Apply(entry.Entry{Index: before.Index + 1, Epoch: 1, Data: d})
		done <- answer{err}
	}()
	select {
	case a := <-done:
		err = a.err
	case <-time.After(time.Minute):
		t.Fatalf("applying %q never ends", d)
	}
	switch {
	case errors.Is(err, ErrBroken):
		t.Errorf("the entry broke the store: %v", err)
	case err != nil && !errors.Is(err, ErrBadEntry):
		t.Errorf("neither applied nor refused: %v", err)
	case err != nil && s.Applied() != before:
		t.Errorf("refused, and counted: %s after %s", s.Applied(), before)
	case err == nil && s.Applied().Index != before.Index+1:
		t.Errorf("applied, and not counted: %s after %s", s.Applied(), before)
	}
	if err == nil {
		// The next process can read the result.
		if err := s.Close(); err != nil {
			t.Fatal(err)
		}
		if s, err = Open(Config{Dir: s.cfg.Dir, BcryptCost: 4}); err != nil {
			t.Fatalf("%q was applied, and the database cannot be opened any more: %v", d, err)
		}
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

// FuzzApply: an entry of any bytes, in a leader and in a follower.
func FuzzApply(f *testing.F) {
	if os.Getenv("ETCD_VERIFY") != "none" {
		f.Cleanup(func() { os.Setenv("ETCD_VERIFY", "all") })
		os.Setenv("ETCD_VERIFY", "none") // its checks panic on purpose
	}
	for i, r := range oddRequests {
		b, err := proto.Marshal(r)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(i%2 == 0, b)
		r.Header = &pb.RequestHeader{ID: 5, Username: "root", AuthRevision: 9}
		if b, err = proto.Marshal(r); err != nil {
			f.Fatal(err)
		}
		f.Add(i%2 == 1, b)
	}
	f.Add(true, []byte{0xff})
	f.Fuzz(func(t *testing.T, lead bool, d []byte) { applyOne(t, lead, d) })
}

// FuzzCheckAuthToken: any text for the kind of tokens is accepted or refused.
func FuzzCheckAuthToken(f *testing.F) {
	for _, s := range []string{"simple", "", "jwt", "jwt,", "jwt,sign-method=RS256", "jwt,sign-method=HS256,priv-key=/dev/null", "jwt,sign-method=none,priv-key=x,ttl=1",
		"jwt,sign-method=ES256,pub-key=/dev/null,priv-key=/dev/null,ttl=-1s", "jwt,sign-method=EdDSA,priv-key=/nowhere", "jwt,=,=", "simple,a=b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, kind string) {
		if err := CheckAuthToken(kind); err != nil && err.Error() == "" {
			t.Error("an error without a text")
		}
	})
}

// FuzzDecodeLogin: a row of the token bucket.
func FuzzDecodeLogin(f *testing.F) {
	f.Add((&login{user: "root", written: 5}).encode())
	f.Add([]byte{})
	f.Add(make([]byte, loginHeader-1))
	f.Fuzz(func(t *testing.T, b []byte) {
		l := decodeLogin(b)
		if (l == nil) != (len(b) < loginHeader) {
			t.Fatalf("%d bytes: %+v", len(b), l)
		}
		if l != nil && string(l.encode()) != string(b) {
			t.Errorf("%q became %q", b, l.encode())
		}
	})
}
