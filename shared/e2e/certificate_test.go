package e2e

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.etcd.io/etcd/api/v3/authpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

// issuer is a certificate authority of clients and servers.
type issuer struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	dir  string
}

func newIssuer(t *testing.T) *issuer {
	i := &issuer{t: t, dir: t.TempDir()}
	raw, key := i.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	i.cert, i.key = must(x509.ParseCertificate(raw))(t), key
	i.write("ca.crt", "CERTIFICATE", raw)
	return i
}

func (i *issuer) sign(c *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	i.t.Helper()
	key := must(ecdsa.GenerateKey(elliptic.P256(), rand.Reader))(i.t)
	c.SerialNumber = must(rand.Int(rand.Reader, big.NewInt(1<<60)))(i.t)
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := i.cert, i.key
	if parent == nil {
		parent, signer = c, key
	}
	return must(x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer))(i.t), key
}

func (i *issuer) write(name, kind string, der []byte) string {
	i.t.Helper()
	path := filepath.Join(i.dir, name)
	if err := os.WriteFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		i.t.Fatal(err)
	}
	return path
}

// issue writes a certificate for a name and its key.
func (i *issuer) issue(name string) (cert, key string) {
	raw, private := i.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)}})
	return i.write(name+".crt", "CERTIFICATE", raw), i.write(name+".key", "PRIVATE KEY", must(x509.MarshalPKCS8PrivateKey(private))(i.t))
}

// config is a client's configuration, with a certificate unless name is empty.
func (i *issuer) config(name string) *tls.Config {
	c := &tls.Config{RootCAs: x509.NewCertPool()}
	c.RootCAs.AddCert(i.cert)
	if name != "" {
		c.Certificates = []tls.Certificate{must(tls.LoadX509KeyPair(i.issue(name)))(i.t)}
	}
	return c
}

// The common name of a client's certificate is the user: under each leader, and
// for etcdctl too. A login goes before it.
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
			t.Errorf("anna, where she may: %v", err)
		}
		if err := put(anna, "z"); !errors.Is(err, rpctypes.ErrPermissionDenied) {
			t.Errorf("anna, where she may not: %v", err)
		}
		if err := put(root, "z"); err != nil {
			t.Errorf("root: %v", err)
		}
		if err := put(stranger, "a1"); err == nil {
			t.Error("a name that is no user may write")
		}
		if err := put(both, "z"); err != nil {
			t.Errorf("anna's certificate and root's password: %v", err)
		}
		c.certificatesOfOthers(ca)
		c.nextLeader()
	}
}

// certificatesOfOthers asks without a certificate, over the gateway, and with etcdctl.
func (c *cluster) certificatesOfOthers(ca *issuer) {
	t := c.t
	web := func(cfg *tls.Config) *http.Client {
		return &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: cfg}}
	}
	if code, text, err := ask(testContext(t), web(ca.config("")), "GET", "https://"+c.client+"/health", ""); err == nil {
		t.Errorf("without a certificate: %d %s", code, text)
	}
	body := fmt.Sprintf(`{"key":%q,"value":%q}`, b64("a1"), b64("v"))
	if code, text, err := ask(testContext(t), web(ca.config("anna")), "POST", "https://"+c.client+"/v3/kv/put", body); err != nil || code != 400 {
		t.Errorf("anna over the gateway: %d %s %v", code, text, err)
	}
	cert, key := ca.issue("anna")
	flags := []string{"--endpoints=https://" + c.client, "--cacert=" + filepath.Join(ca.dir, "ca.crt"), "--cert=" + cert, "--key=" + key}
	if code, out, errs := c.ctl("", append(flags, "put", "a2", "v")...); code != 0 || out != "OK\n" {
		t.Errorf("anna with etcdctl: %d %s%s", code, out, errs)
	}
	if code, _, errs := c.ctl("", append(flags, "put", "z", "v")...); code != 1 || !strings.Contains(errs, "permission denied") {
		t.Errorf("anna with etcdctl, where she may not: %d %s", code, errs)
	}
}
