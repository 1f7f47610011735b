package clienttls

import (
	"bytes"
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"math/big"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/credentials"
)

// authority makes certificates for tests.
type authority struct {
	t    *testing.T
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
}

func newAuthority(t *testing.T) *authority {
	a := &authority{t: t}
	raw, key := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: "ca"}, IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign})
	var err error
	if a.cert, err = x509.ParseCertificate(raw); err != nil {
		t.Fatal(err)
	}
	a.key = key
	return a
}

func (a *authority) sign(c *x509.Certificate) ([]byte, *ecdsa.PrivateKey) {
	a.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		a.t.Fatal(err)
	}
	if c.SerialNumber, err = rand.Int(rand.Reader, big.NewInt(1<<60)); err != nil {
		a.t.Fatal(err)
	}
	c.NotBefore, c.NotAfter = time.Now().Add(-time.Hour), time.Now().Add(time.Hour)
	parent, signer := a.cert, a.key
	if parent == nil {
		parent, signer = c, key
	}
	raw, err := x509.CreateCertificate(rand.Reader, c, parent, key.Public(), signer)
	if err != nil {
		a.t.Fatal(err)
	}
	return raw, key
}

func (a *authority) leaf(name string) tls.Certificate {
	raw, key := a.sign(&x509.Certificate{Subject: pkix.Name{CommonName: name}, IPAddresses: []net.IP{net.IPv4(127, 0, 0, 1)},
		ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth}})
	return tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key}
}

func (a *authority) pool() *x509.CertPool {
	p := x509.NewCertPool()
	p.AddCert(a.cert)
	return p
}

func (a *authority) write(path, kind string, der []byte) {
	a.t.Helper()
	// Replaced as a whole, as tools do that renew certificates.
	if err := os.WriteFile(path+".new", pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: der}), 0o600); err != nil {
		a.t.Fatal(err)
	}
	if err := os.Rename(path+".new", path); err != nil {
		a.t.Fatal(err)
	}
}

// writeLeaf writes only the parts that are asked for.
func (a *authority) writeLeaf(f Files, c tls.Certificate, cert, key bool) {
	a.t.Helper()
	if cert {
		a.write(f.Cert, "CERTIFICATE", c.Certificate[0])
	}
	if key {
		der, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
		if err != nil {
			a.t.Fatal(err)
		}
		a.write(f.Key, "PRIVATE KEY", der)
	}
}

func newFiles(t *testing.T) Files {
	dir := t.TempDir()
	return Files{Cert: filepath.Join(dir, "server.crt"), Key: filepath.Join(dir, "server.key"), ClientCA: filepath.Join(dir, "ca.crt")}
}

// handshake connects a client; the server's side is returned as it saw it.
func handshake(t *testing.T, r *Reloader, client *tls.Config) (server, seen tls.ConnectionState, err error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	type result struct {
		state tls.ConnectionState
		err   error
	}
	done := make(chan result, 1)
	go func() {
		raw, err := l.Accept()
		if err != nil {
			done <- result{err: err}
			return
		}
		defer raw.Close()
		c := tls.Server(raw, r.Config())
		err = c.Handshake()
		done <- result{c.ConnectionState(), err}
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	c := tls.Client(raw, client)
	clientErr := c.Handshake()
	res := <-done
	if res.err != nil {
		return tls.ConnectionState{}, tls.ConnectionState{}, res.err
	}
	if clientErr != nil {
		t.Fatal(clientErr)
	}
	return res.state, c.ConnectionState(), nil
}

func client(a *authority, protos ...string) *tls.Config {
	return &tls.Config{RootCAs: a.pool(), ServerName: "127.0.0.1", NextProtos: protos}
}

func TestProtocolAndClientCertificate(t *testing.T) {
	a, f := newAuthority(t), newFiles(t)
	a.writeLeaf(f, a.leaf("server"), true, true)
	a.write(f.ClientCA, "CERTIFICATE", a.cert.Raw)
	r := New(f, nil)
	if err := r.Load(); err != nil {
		t.Fatal(err)
	}
	with := func(c *tls.Config, by *authority) *tls.Config {
		c.Certificates = []tls.Certificate{by.leaf("alice")}
		return c
	}
	for want, protos := range map[string][]string{"h2": {"h2"}, "http/1.1": {"h2", "http/1.1"}, "": nil} {
		server, _, err := handshake(t, r, with(client(a, protos...), a))
		if err != nil {
			t.Fatal(err)
		}
		if server.NegotiatedProtocol != want {
			t.Errorf("%v: got %q", protos, server.NegotiatedProtocol)
		}
		if len(server.VerifiedChains) == 0 || server.VerifiedChains[0][0].Subject.CommonName != "alice" {
			t.Errorf("%v: the server does not know the client: %v", protos, server.VerifiedChains)
		}
	}
	if _, _, err := handshake(t, r, client(a, "h2")); err == nil {
		t.Error("a client without a certificate is let in")
	}
	if _, _, err := handshake(t, r, with(client(a, "h2"), newAuthority(t))); err == nil {
		t.Error("a client with another CA's certificate is let in")
	}
}

func TestReload(t *testing.T) {
	a, f := newAuthority(t), newFiles(t)
	f.ClientCA = ""
	one, two := a.leaf("one"), a.leaf("two")
	a.writeLeaf(f, one, true, true)
	var log bytes.Buffer
	r := New(f, hclog.New(&hclog.LoggerOptions{Output: &log}))
	now := time.Now()
	r.now = func() time.Time { return now }
	shown := func(want string) {
		t.Helper()
		_, seen, err := handshake(t, r, client(a, "h2"))
		if err != nil {
			t.Fatal(err)
		}
		if got := seen.PeerCertificates[0].Subject.CommonName; got != want {
			t.Fatalf("the certificate is %s, want %s", got, want)
		}
	}
	shown("one")
	a.writeLeaf(f, two, true, false) // half of a change
	shown("one")                     // not looked at yet
	for range 3 {
		now = now.Add(lookInterval)
		shown("one") // looked at, and no good
	}
	if n := strings.Count(log.String(), "not usable"); n != 1 {
		t.Errorf("reported %d times:\n%s", n, log.String())
	}
	a.writeLeaf(f, two, false, true)
	now = now.Add(lookInterval)
	shown("two")
	if err := os.Remove(f.Key); err != nil {
		t.Fatal(err)
	}
	now = now.Add(lookInterval)
	shown("two")
	if !strings.Contains(log.String(), "new connections use them") || !strings.Contains(log.String(), "no such file") {
		t.Errorf("log:\n%s", log.String())
	}
	if err := r.Load(); err == nil {
		t.Error("Load does not say that the key is gone")
	}
}

// A follower that leads before its files are good serves when they are.
func TestFilesThatComeLate(t *testing.T) {
	a, f := newAuthority(t), newFiles(t)
	f.ClientCA = ""
	r := New(f, nil)
	now := time.Now()
	r.now = func() time.Time { return now }
	if r.Load() == nil {
		t.Fatal("no files are no error")
	}
	now = now.Add(lookInterval)
	if _, _, err := handshake(t, r, client(a, "h2")); err == nil || !strings.Contains(err.Error(), "no such file") {
		t.Fatalf("got %v", err)
	}
	a.writeLeaf(f, a.leaf("late"), true, true)
	now = now.Add(lookInterval)
	if _, _, err := handshake(t, r, client(a, "h2")); err != nil {
		t.Fatal(err)
	}
}

func TestClientCAWithoutCertificates(t *testing.T) {
	a, f := newAuthority(t), newFiles(t)
	a.writeLeaf(f, a.leaf("server"), true, true)
	if err := os.WriteFile(f.ClientCA, []byte("nothing"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := New(f, nil).Load(); err == nil || !strings.Contains(err.Error(), "no certificate in it") {
		t.Errorf("got %v", err)
	}
}

func TestCredentials(t *testing.T) {
	c := Credentials()
	here, there := net.Pipe()
	defer here.Close()
	defer there.Close()
	conn, info, err := c.ServerHandshake(here)
	if err != nil || conn != here || info.AuthType() != "local" {
		t.Errorf("got %v, %v, %v", conn, info, err)
	}
	_, info, err = c.Clone().ServerHandshake(tls.Server(here, &tls.Config{}))
	if _, ok := info.(credentials.TLSInfo); !ok || err != nil {
		t.Errorf("got %v, %v", info, err)
	}
	if _, _, err := c.ClientHandshake(context.Background(), "", here); err == nil {
		t.Error("a server's credentials serve a client")
	}
}
