package certs

import (
	"bytes"
	"context"
	"crypto/tls"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc/credentials"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// writeLeaf writes only the requested parts.
func writeLeaf(t *testing.T, f Files, c tls.Certificate, cert, key bool) {
	t.Helper()
	if cert {
		testkit.WriteCertificate(t, f.Cert, c.Leaf)
	}
	if key {
		testkit.WriteKey(t, f.Key, c.PrivateKey)
	}
}

func newFiles(t *testing.T) Files {
	dir := t.TempDir()
	return Files{Cert: filepath.Join(dir, "server.crt"), Key: filepath.Join(dir, "server.key"), ClientCA: filepath.Join(dir, "ca.crt")}
}

// handshake connects a client and returns the server's view of the connection.
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

func client(a *testkit.Authority, protos ...string) *tls.Config {
	return &tls.Config{RootCAs: a.Pool(), ServerName: "127.0.0.1", NextProtos: protos}
}

func TestProtocolAndClientCertificate(t *testing.T) {
	a, f := testkit.NewAuthority(t), newFiles(t)
	writeLeaf(t, f, a.Leaf(t, "server"), true, true)
	testkit.WriteCertificate(t, f.ClientCA, a.Cert)
	r := New(f, nil)
	if err := r.Load(); err != nil {
		t.Fatal(err)
	}
	with := func(c *tls.Config, by *testkit.Authority) *tls.Config {
		c.Certificates = []tls.Certificate{by.Leaf(t, "alice")}
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
	if _, _, err := handshake(t, r, with(client(a, "h2"), testkit.NewAuthority(t))); err == nil {
		t.Error("a client with another CA's certificate is let in")
	}
}

func TestReload(t *testing.T) {
	a, f := testkit.NewAuthority(t), newFiles(t)
	f.ClientCA = ""
	one, two := a.Leaf(t, "one"), a.Leaf(t, "two")
	writeLeaf(t, f, one, true, true)
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
	writeLeaf(t, f, two, true, false) // half of a change
	shown("one")                      // not looked at yet
	for range 3 {
		now = now.Add(lookInterval)
		shown("one") // looked at, and no good
	}
	if n := strings.Count(log.String(), "cannot use the new TLS files"); n != 1 {
		t.Errorf("reported %d times:\n%s", n, log.String())
	}
	writeLeaf(t, f, two, false, true)
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

// A follower that becomes leader before its files are valid serves when they are.
func TestFilesBecomeValidLater(t *testing.T) {
	a, f := testkit.NewAuthority(t), newFiles(t)
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
	writeLeaf(t, f, a.Leaf(t, "late"), true, true)
	now = now.Add(lookInterval)
	if _, _, err := handshake(t, r, client(a, "h2")); err != nil {
		t.Fatal(err)
	}
}

func TestClientCAWithoutCertificates(t *testing.T) {
	a, f := testkit.NewAuthority(t), newFiles(t)
	writeLeaf(t, f, a.Leaf(t, "server"), true, true)
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
