package testkit

import (
	"crypto/tls"
	"crypto/x509"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"testing"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// A leaf is good for its authority, as a file too, and for no other one.
func TestAuthority(t *testing.T) {
	a, dir := NewAuthority(t), t.TempDir()
	leaf := a.Leaf(t, "anna")
	cert, key := filepath.Join(dir, "anna.crt"), filepath.Join(dir, "anna.key")
	WriteCertificate(t, cert, leaf.Leaf)
	WriteKey(t, key, leaf.PrivateKey)
	read, err := tls.LoadX509KeyPair(cert, key)
	if err != nil {
		t.Fatal(err)
	}
	o := x509.VerifyOptions{Roots: a.Pool(), DNSName: "127.0.0.1"}
	if _, err := read.Leaf.Verify(o); err != nil || read.Leaf.Subject.CommonName != "anna" {
		t.Errorf("%q: %v", read.Leaf.Subject.CommonName, err)
	}
	o.Roots = NewAuthority(t).Pool()
	if _, err := read.Leaf.Verify(o); err == nil {
		t.Error("another authority's certificate is trusted")
	}
}

func TestNotifySocket(t *testing.T) {
	hear := NotifySocket(t)
	c, err := net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET"))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := c.Write([]byte("READY=1")); err != nil {
		t.Fatal(err)
	}
	if got := hear(); got != "READY=1" {
		t.Errorf("heard %q", got)
	}
}

func TestDo(t *testing.T) {
	s := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.WriteHeader(http.StatusTeapot)
		_, _ = w.Write([]byte(r.URL.Path))
	}))
	defer s.Close()
	defer http.DefaultClient.CloseIdleConnections()
	req, err := http.NewRequest(http.MethodGet, s.URL+"/x", nil)
	if err != nil {
		t.Fatal(err)
	}
	if resp, body := Do(t, req); resp.StatusCode != http.StatusTeapot || body != "/x" {
		t.Errorf("%d %q", resp.StatusCode, body)
	}
}

func TestTCPFile(t *testing.T) {
	l, f := TCPFile(t)
	again, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	defer again.Close()
	if again.Addr().String() != l.Addr().String() {
		t.Errorf("the file is of %s, the listener of %s", again.Addr(), l.Addr())
	}
}
