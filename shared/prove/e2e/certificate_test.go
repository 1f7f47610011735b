package e2e

import (
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"path/filepath"
	"strings"
	"testing"

	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// issuer is a certificate authority for clients and servers, with files.
type issuer struct {
	*testkit.Authority
	t   *testing.T
	dir string
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{Authority: testkit.NewAuthority(t), t: t, dir: t.TempDir()}
	testkit.WriteCertificate(t, filepath.Join(i.dir, "ca.crt"), i.Cert)
	return i
}

// issue writes a certificate for a name, and its key.
func (i *issuer) issue(name string) (cert, key string) {
	cert, key = filepath.Join(i.dir, name+".crt"), filepath.Join(i.dir, name+".key")
	c := i.Leaf(i.t, name)
	testkit.WriteCertificate(i.t, cert, c.Leaf)
	testkit.WriteKey(i.t, key, c.PrivateKey)
	return cert, key
}

// config returns a client's configuration, with a certificate unless name is empty.
func (i *issuer) config(name string) *tls.Config {
	c := &tls.Config{RootCAs: i.Pool()}
	if name != "" {
		c.Certificates = []tls.Certificate{i.Leaf(i.t, name)}
	}
	return c
}

// TestCertificateUserAcrossATakeover: the common name of a client's certificate is the user,
// under each leader and for etcdctl too. A login takes precedence.
func TestCertificateUserAcrossATakeover(t *testing.T) {
	ca := newIssuer(t)
	cert, key := ca.issue("server")
	c := newCluster(t)
	c.up("--client-cert-file", cert, "--client-key-file", key, "--client-client-ca-file", filepath.Join(ca.dir, "ca.crt"))
	c.full()
	ctx := testContext(t)
	as := func(name, user string) *clientv3.Client {
		cfg := clientv3.Config{Endpoints: []string{"https://" + c.client}, TLS: ca.config(name), DialTimeout: patience, Logger: zap.NewNop()}
		if user != "" {
			cfg.Username, cfg.Password = user, "secret"
		}
		cl := must(clientv3.New(cfg))(t)
		t.Cleanup(func() { _ = cl.Close() })
		return cl
	}
	root, anna, stranger := as("root", ""), as("anna", ""), as("stranger", "")
	must(root.RoleAdd(ctx, "root"))(t)
	must(root.RoleAdd(ctx, "r"))(t)
	must(root.RoleGrantPermission(ctx, "r", "a", "b", clientv3.PermissionType(authpb.READWRITE)))(t)
	must(root.UserAdd(ctx, "root", "secret"))(t)
	must(root.UserGrantRole(ctx, "root", "root"))(t)
	must(root.UserAddWithOptions(ctx, "anna", "", &clientv3.UserAddOptions{NoPassword: true}))(t)
	must(root.UserGrantRole(ctx, "anna", "r"))(t)
	must(root.AuthEnable(ctx))(t)
	both := as("anna", "root")
	put := func(cl *clientv3.Client, key string) (err error) {
		eventually(t, "an answer", func() bool {
			_, err = cl.Put(ctx, key, "v")
			return !unavailable(err)
		})
		return err
	}
	for range 2 {
		if err := put(anna, "a1"); err != nil {
			t.Errorf("a write by anna to a key that she may write: %v", err)
		}
		if err := put(anna, "z"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("a write by anna to a key that she may not write: error %v, want \"permission denied\"", err)
		}
		if err := put(root, "z"); err != nil {
			t.Errorf("a write by root: %v", err)
		}
		if err := put(stranger, "a1"); err == nil {
			t.Error("a client whose certificate names no user could write")
		}
		if err := put(both, "z"); err != nil {
			t.Errorf("a write with anna's certificate and root's password: %v", err)
		}
		c.certificatesOfOthers(ca)
		c.nextLeader()
	}
}

// certificatesOfOthers sends requests without a certificate, through the gateway, and with
// etcdctl.
func (c *cluster) certificatesOfOthers(ca *issuer) {
	t := c.t
	web := func(cfg *tls.Config) *http.Client {
		return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: cfg}}
	}
	if code, text, err := ask(testContext(t), web(ca.config("")), "GET", "https://"+c.client+"/health", ""); err == nil {
		t.Errorf("a request without a certificate got status %d: %s", code, text)
	}
	body := fmt.Sprintf(`{"key":%q,"value":%q}`, b64("a1"), b64("v"))
	if code, text, err := ask(testContext(t), web(ca.config("anna")), "POST", "https://"+c.client+"/v3/kv/put", body); err != nil || code != 400 {
		t.Errorf("anna through the gateway: status %d, want 400: %s, %v", code, text, err)
	}
	cert, key := ca.issue("anna")
	flags := []string{"--endpoints=https://" + c.client, "--cacert=" + filepath.Join(ca.dir, "ca.crt"), "--cert=" + cert, "--key=" + key}
	if code, out, errs := c.ctl("", append(flags, "put", "a2", "v")...); code != 0 || out != "OK\n" {
		t.Errorf("put with etcdctl as anna: exit code %d\n%s%s", code, out, errs)
	}
	if code, _, errs := c.ctl("", append(flags, "put", "z", "v")...); code != 1 || !strings.Contains(errs, "permission denied") {
		t.Errorf("put with etcdctl as anna, to a key that she may not write: exit code %d, want 1\n%s", code, errs)
	}
}
