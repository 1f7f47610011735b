package store

import (
	"context"
	"errors"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/auth"
	"google.golang.org/grpc/metadata"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/rules/entry"
)

// clock is a clock that is set by hand.
type clock struct{ t time.Time }

func (s *Store) setClock(c *clock) {
	s.auth.(*tokenStore).now = func() time.Time { return c.t }
}

func proposeTo(t *testing.T, r *pb.InternalRaftRequest, stores ...*Store) (resp proto.Message) {
	t.Helper()
	data, err := proto.Marshal(r)
	if err != nil {
		t.Fatal(err)
	}
	for _, s := range stores {
		res, err := s.Apply(entry.Entry{Index: s.Applied().Index + 1, Epoch: 1, Data: data})
		if err != nil || res.Err != nil {
			t.Fatal(err, res)
		}
		resp = res.Resp
	}
	return resp
}

func openForTokens(t *testing.T, dir string, c *clock) *Store {
	t.Helper()
	s, err := Open(Config{Dir: dir})
	if err != nil {
		t.Fatal(err)
	}
	s.setClock(c)
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// withRoot enables authentication with root as the only user, and logs root in.
func withRoot(t *testing.T, s *Store) (token string) {
	t.Helper()
	proposeTo(t, &pb.InternalRaftRequest{AuthUserAdd: &pb.AuthUserAddRequest{Name: "root", HashedPassword: "eA=="}}, s)
	proposeTo(t, &pb.InternalRaftRequest{AuthUserGrantRole: &pb.AuthUserGrantRoleRequest{User: "root", Role: "root"}}, s)
	proposeTo(t, &pb.InternalRaftRequest{AuthEnable: &pb.AuthEnableRequest{}}, s)
	return loginRoot(t, s)
}

func loginRoot(t *testing.T, s *Store) (token string) {
	t.Helper()
	prefix, err := s.Auth().GenTokenPrefix()
	if err != nil {
		t.Fatal(err)
	}
	resp := proposeTo(t, &pb.InternalRaftRequest{Authenticate: &pb.InternalAuthenticateRequest{Name: "root", SimpleToken: prefix}}, s)
	return resp.(*pb.AuthenticateResponse).Token
}

func checkToken(t *testing.T, s *Store, token string, want error) {
	t.Helper()
	ctx := metadata.NewIncomingContext(context.Background(), metadata.Pairs(rpctypes.TokenFieldNameGRPC, token))
	who, err := s.Auth().AuthInfoFromCtx(ctx)
	if !errors.Is(err, want) || err == nil && (who == nil || who.Username != "root" || who.Revision != s.Auth().Revision()) {
		t.Fatalf("%v %v, want %v", who, err, want)
	}
}

// A token is in the file, so a member that starts with this file knows it. How long it lives
// there depends on its recorded use.
func TestTokensOutliveTheProcess(t *testing.T) {
	c := &clock{time.UnixMilli(1_800_000_000_000)}
	dir := t.TempDir()
	s := openForTokens(t, dir, c)
	token := withRoot(t, s)
	checkToken(t, s, token, nil)
	if s.Touch() != nil {
		t.Fatal("a use right after the login is written down")
	}
	// The token is used for longer than it lives. Each use that matters is recorded.
	touches := 0
	for range 20 {
		c.t = c.t.Add(DefaultTokenTTL / (touchFraction / 2))
		checkToken(t, s, token, nil)
		if r := s.Touch(); r != nil {
			proposeTo(t, r, s)
			touches++
		}
		if s.Touch() != nil {
			t.Fatal("the same use is written down twice")
		}
	}
	if touches != 20 {
		t.Errorf("written down %d times", touches)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c.t = c.t.Add(DefaultTokenTTL / 2)
	s = openForTokens(t, dir, c)
	checkToken(t, s, token, nil)
	checkToken(t, s, token+"1", auth.ErrInvalidAuthToken)
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	c.t = c.t.Add(DefaultTokenTTL)
	s = openForTokens(t, dir, c)
	checkToken(t, s, token, auth.ErrInvalidAuthToken)
}

// A login removes tokens that expired long ago.
func TestOldTokensAreRemoved(t *testing.T) {
	c := &clock{time.UnixMilli(1_800_000_000_000)}
	s := openForTokens(t, t.TempDir(), c)
	withRoot(t, s)
	for range 3 {
		loginRoot(t, s)
	}
	c.t = c.t.Add(3 * DefaultTokenTTL)
	token := loginRoot(t, s)
	rows := 0
	tx := s.be.ReadTx()
	tx.RLock()
	_ = tx.UnsafeForEach(tokenBucket{}, func(_, _ []byte) error { rows++; return nil })
	tx.RUnlock()
	if known := len(s.auth.(*tokenStore).logins); rows != 1 || known != 1 {
		t.Errorf("%d rows, %d known", rows, known)
	}
	checkToken(t, s, token, nil)
}

// Touches that no leader wrote do no harm.
func TestMalformedTouches(t *testing.T) {
	c := &clock{time.UnixMilli(1_800_000_000_000)}
	s := openForTokens(t, t.TempDir(), c)
	token := withRoot(t, s)
	for _, uses := range []string{"", ",", "x.y", "AAAA.1", "~.~"} {
		proposeTo(t, &pb.InternalRaftRequest{Authenticate: &pb.InternalAuthenticateRequest{SimpleToken: touchPrefix + uses}}, s)
	}
	checkToken(t, s, token, nil)
}
