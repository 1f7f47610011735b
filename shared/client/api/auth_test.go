package api

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"os"
	"path/filepath"
	"testing"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/replica/store"
)

// as is a stock client that logs in.
func (s *server) as(t *testing.T, user, password string) *clientv3.Client {
	t.Helper()
	c, err := clientv3.New(clientv3.Config{Endpoints: []string{s.address}, DialTimeout: 5 * time.Second,
		Username: user, Password: password, Logger: zap.NewNop()})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// enableUsers does what an operator does, with a stock client: it makes root, and a user alice
// who may read and write keys with the prefix "a/".
func enableUsers(t *testing.T, s *server) {
	t.Helper()
	c, ctx := s.stock(t), t.Context()
	do := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	do(c.UserAdd(ctx, "root", "secret"))
	do(c.UserGrantRole(ctx, "root", "root"))
	do(c.RoleAdd(ctx, "a"))
	do(c.RoleGrantPermission(ctx, "a", "a/", clientv3.GetPrefixRangeEnd("a/"), clientv3.PermissionType(clientv3.PermReadWrite)))
	do(c.UserAdd(ctx, "alice", "wonder"))
	do(c.UserGrantRole(ctx, "alice", "a"))
	do(c.AuthEnable(ctx))
}

func TestUsersOfAStockClient(t *testing.T) {
	s := serve(t, nil)
	var logged []*pb.InternalRaftRequest
	s.proposer.before = func(r *pb.InternalRaftRequest) error {
		logged = append(logged, proto.CloneOf(r))
		return nil
	}
	ctx := t.Context()
	if _, err := s.stock(t).AuthEnable(ctx); !errors.Is(err, rpctypes.ErrRootUserNotExist) {
		t.Fatalf("enable without root: %v", err)
	}
	enableUsers(t, s)
	root, alice := s.as(t, "root", "secret"), s.as(t, "alice", "wonder")
	if _, err := alice.Put(ctx, "a/1", "x"); err != nil {
		t.Fatal(err)
	}
	for what, err := range map[string]error{
		"put":          second(alice.Put(ctx, "b", "x")),
		"user list":    second(alice.UserList(ctx)),
		"defragment":   second(alice.Defragment(ctx, s.address)),
		"hash":         second(alice.HashKV(ctx, s.address, 0)),
		"disarm":       second(alice.AlarmDisarm(ctx, &clientv3.AlarmMember{MemberID: 1, Alarm: pb.AlarmType_NOSPACE})),
		"another user": second(alice.UserGet(ctx, "root")),
	} {
		if !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("alice: %s: %v", what, err)
		}
	}
	if got, err := alice.UserGet(ctx, "alice"); err != nil || len(got.Roles) != 1 || got.Header.MemberId != testMemberID {
		t.Errorf("alice of herself: %v %v", got, err)
	}
	if got, err := root.AuthStatus(ctx); err != nil || !got.Enabled {
		t.Errorf("%v %v", got, err)
	}
	if _, err := root.UserDelete(ctx, "root"); !errors.Is(err, rpctypes.ErrInvalidAuthMgmt) {
		t.Errorf("root deletes root: %v", err)
	}
	if _, err := s.stock(t).Authenticate(ctx, "alice", "wrong"); !errors.Is(err, rpctypes.ErrAuthFailed) {
		t.Errorf("wrong password: %v", err)
	}
	for _, r := range logged {
		if r.AuthUserAdd.GetPassword() != "" || r.Authenticate.GetPassword() != "" {
			t.Errorf("a password is replicated: %v", r)
		}
	}
}

func second[T any](_ T, err error) error { return err }

// A token becomes invalid with the user, with the user's password, and when authentication is
// disabled.
func TestTokensThatEnd(t *testing.T) {
	s := serve(t, nil)
	enableUsers(t, s)
	root, ctx := s.as(t, "root", "secret"), t.Context()
	put := func(token string) error {
		_, err := pb.NewKVClient(dial(t, s.address)).Put(withToken(t, token), &pb.PutRequest{Key: []byte("a/1")})
		return rpctypes.Error(err)
	}
	login := func(password string) string {
		resp, err := s.stock(t).Authenticate(ctx, "alice", password)
		if err != nil {
			t.Fatal(err)
		}
		if err := put(resp.Token); err != nil {
			t.Fatalf("a fresh token: %v", err)
		}
		return resp.Token
	}
	token := login("wonder")
	if _, err := root.RoleAdd(ctx, "another"); err != nil {
		t.Fatal(err)
	}
	if err := put(token); err != nil {
		t.Errorf("after a change that is not alice's: %v", err)
	}
	for _, c := range []struct {
		what string
		do   func() error
		next string
	}{
		{"another password", func() error { return second(root.UserChangePassword(ctx, "alice", "land")) }, "land"},
		{"deleted", func() error {
			if _, err := root.UserDelete(ctx, "alice"); err != nil {
				return err
			}
			if _, err := root.UserAdd(ctx, "alice", "land"); err != nil {
				return err
			}
			return second(root.UserGrantRole(ctx, "alice", "a"))
		}, "land"},
		{"disabled", func() error {
			if _, err := root.AuthDisable(ctx); err != nil {
				return err
			}
			return second(s.stock(t).AuthEnable(ctx))
		}, "land"},
	} {
		if err := c.do(); err != nil {
			t.Fatalf("%s: %v", c.what, err)
		}
		if err := put(token); !errors.Is(err, rpctypes.ErrInvalidAuthToken) {
			t.Errorf("%s: %v", c.what, err)
		}
		token = login(c.next)
	}
}

func TestJWT(t *testing.T) {
	key, err := rsa.GenerateKey(rand.Reader, 2048)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	raw := pem.EncodeToMemory(&pem.Block{Type: "RSA PRIVATE KEY", Bytes: x509.MarshalPKCS1PrivateKey(key)})
	if err := os.WriteFile(file, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	s := serve(t, func(c *store.Config, _ *Config) { c.AuthToken = "jwt,sign-method=RS256,priv-key=" + file })
	enableUsers(t, s)
	alice, ctx := s.as(t, "alice", "wonder"), t.Context()
	if _, err := alice.Put(ctx, "a/1", "x"); err != nil {
		t.Fatal(err)
	}
	// A JWT contains the revision of the users, so the stock client has to log in again.
	if _, err := s.as(t, "root", "secret").RoleAdd(ctx, "another"); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.Put(ctx, "a/1", "x"); err != nil {
		t.Fatal(err)
	}
	if _, err := alice.Put(ctx, "b", "x"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
		t.Fatal(err)
	}
}
