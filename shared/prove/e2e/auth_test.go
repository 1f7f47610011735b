package e2e

import (
	"bytes"
	"crypto/ed25519"
	"crypto/rand"
	"crypto/sha256"
	"errors"
	"io"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/prove/testkit"
	"github.com/dynast-io/dynast/shared/replica/store"
)

// replaceFollowers kills all followers and waits for new ones.
func (c *cluster) replaceFollowers() {
	c.t.Helper()
	before := c.full()
	old := map[int]bool{}
	for _, f := range followersOf(before) {
		old[f.PID] = true
		c.signal(f, syscall.SIGKILL)
	}
	c.wait("new followers", func(t *tree.Tree) bool {
		for _, f := range followersOf(t) {
			if old[f.PID] {
				return false
			}
		}
		return count(t, "in_sync") == len(old)
	})
}

// nextLeader kills the leader and waits until the heir leads.
func (c *cluster) nextLeader() {
	c.t.Helper()
	before := c.full()
	c.signal(leaderOf(before), syscall.SIGKILL)
	c.wait("the next leader", func(t *tree.Tree) bool { return t.Epoch > before.Epoch })
}

// enableRoot creates the user root, turns on authentication, logs in as root, and returns the
// token.
func (c *cluster) enableRoot() (token string) {
	c.t.Helper()
	cl, ctx := c.dial(), testContext(c.t)
	do := func(_ any, err error) {
		c.t.Helper()
		if err != nil {
			c.t.Fatal(err)
		}
	}
	do(cl.UserAdd(ctx, "root", "secret"))
	do(cl.UserGrantRole(ctx, "root", "root"))
	do(cl.AuthEnable(ctx))
	login, err := cl.Authenticate(ctx, "root", "secret")
	do(login, err)
	return login.Token
}

// putter returns a function that writes with a token. It does not use the stock client, because
// that client would log in again by itself.
func (c *cluster) putter() func(token string) error {
	c.t.Helper()
	conn, err := grpc.NewClient("passthrough:///"+c.client, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		c.t.Fatal(err)
	}
	c.t.Cleanup(func() { _ = conn.Close() })
	ctx := testContext(c.t)
	return func(token string) error {
		ctx := metadata.AppendToOutgoingContext(ctx, rpctypes.TokenFieldNameGRPC, token)
		_, err := pb.NewKVClient(conn).Put(ctx, &pb.PutRequest{Key: []byte("a")}, grpc.WaitForReady(true))
		return rpctypes.Error(err)
	}
}

// TestTokenAcrossTakeovers: a token is valid under the next leader, even if that member was
// started after the login.
func TestTokenAcrossTakeovers(t *testing.T) {
	// With a short commit interval, the login reaches the databases soon. A new member then gets
	// it from a database and not from the log.
	c := start(t, withExtra(`store { commit_interval = "1ms" }`))
	token := c.enableRoot()
	put := c.putter()
	if err := put(token); err != nil {
		t.Fatal(err)
	}
	c.nextLeader()
	if err := put(token); err != nil {
		t.Errorf("a write with the token under the heir: %v", err)
	}
	c.replaceFollowers()
	c.nextLeader()
	if err := put(token); err != nil {
		t.Errorf("a write with the token under a leader that was started after the login: %v", err)
	}
	if err := put(token + "0"); !errors.Is(err, rpctypes.ErrInvalidAuthToken) {
		t.Errorf("a write with an invalid token: error %v, want %v", err, rpctypes.ErrInvalidAuthToken)
	}
}

// TestJWTAcrossATakeover: a JWT is valid under the next leader, because all members have the key.
func TestJWTAcrossATakeover(t *testing.T) {
	_, key, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	file := filepath.Join(t.TempDir(), "key.pem")
	testkit.WriteKey(t, file, key)
	c := newCluster(t)
	if out, err := c.command("up", "--config", c.config, "--client-auth-token", "jwt,sign-method=EdDSA,priv-key="+file+".none").Output(); err == nil {
		t.Fatalf("dynast started although the key file does not exist: %s", out)
	}
	c.up("--client-auth-token", "jwt,sign-method=EdDSA,priv-key="+file)
	c.full()
	token := c.enableRoot()
	put := c.putter()
	if err := put(token); err != nil {
		t.Fatal(err)
	}
	c.nextLeader()
	if err := put(token); err != nil {
		t.Error(err)
	}
	if err := put(token + "x"); !errors.Is(err, rpctypes.ErrInvalidAuthToken) {
		t.Errorf("a write with an invalid token: error %v, want %v", err, rpctypes.ErrInvalidAuthToken)
	}
}

// TestBackupOfARunningCluster: "snapshot save" from a running cluster gives a complete database,
// and a running cluster can be defragmented.
func TestBackupOfARunningCluster(t *testing.T) {
	c := start(t)
	cl, ctx := c.dial(), testContext(t)
	value := string(bytes.Repeat([]byte("x"), 100<<10))
	var last *clientv3.PutResponse
	for range 20 {
		var err error
		if last, err = cl.Put(ctx, "key", value); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := cl.Compact(ctx, last.Header.Revision, clientv3.WithCompactPhysical()); err != nil {
		t.Fatal(err)
	}
	if _, err := cl.Defragment(ctx, c.client); err != nil {
		t.Fatal(err)
	}
	body, err := cl.Snapshot(ctx)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := io.ReadAll(body)
	if err != nil {
		t.Fatal(err)
	}
	db, sum := raw[:len(raw)-sha256.Size], raw[len(raw)-sha256.Size:]
	if got := sha256.Sum256(db); !bytes.Equal(got[:], sum) || len(db)%512 != 0 {
		t.Fatalf("the snapshot of %d bytes has a wrong checksum or size", len(db))
	}
	dir := t.TempDir()
	if err := os.WriteFile(store.Path(dir), db, 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := store.Open(store.Config{Dir: dir}) // Open checks every page
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if s.Revision() != last.Header.Revision {
		t.Errorf("the snapshot has revision %d, want %d", s.Revision(), last.Header.Revision)
	}
}
