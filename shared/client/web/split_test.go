package web

import (
	"context"
	"crypto/tls"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc"

	"github.com/dynast-io/dynast/shared/client/gate"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// split serves a split on loopback until the test ends.
func split(t *testing.T, c *tls.Config) *Split {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewSplit(l, c, nil)
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Error(err)
		}
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return s
}

func dial(t *testing.T, s *Split) net.Conn {
	t.Helper()
	c, err := net.Dial("tcp", s.GRPC().Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if err := c.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

func send(t *testing.T, c net.Conn, text string) {
	t.Helper()
	if _, err := io.WriteString(c, text); err != nil {
		t.Fatal(err)
	}
}

// first accepts from both sides and returns which one got a connection.
func first(t *testing.T, s *Split) (net.Conn, string) {
	t.Helper()
	select {
	case c := <-s.grpc.conns:
		return c, "grpc"
	case c := <-s.http.conns:
		return c, "http"
	case <-time.After(patience):
		t.Fatal("no side gets the connection")
	}
	return nil, ""
}

func TestSplitByFirstBytes(t *testing.T) {
	s := split(t, nil)
	for text, want := range map[string]string{
		"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n": "grpc", "PRI": "grpc",
		"GET / HTTP/1.1\r\n": "http", "POST /v3": "http", "PUT": "http", "PR0": "http", "\x16\x03\x01": "http", "x": "http",
	} {
		c := dial(t, s)
		send(t, c, text)
		got, side := first(t, s)
		if side != want {
			t.Errorf("%q goes to %s, want %s", text, side, want)
		}
		// It must be the accepted connection, with nothing read. Around it are the gate's
		// count, and what detects that gRPC's server has finished the greeting.
		inner := got
		if g, ok := got.(*greeting); ok {
			inner = g.Unwrap()
		}
		if c, ok := inner.(*gate.Conn); !ok {
			t.Errorf("%q: the server gets a %T", text, got)
		} else if _, ok := c.Conn.(*net.TCPConn); !ok {
			t.Errorf("%q: the server gets a %T", text, c.Conn)
		}
		buf := make([]byte, len(text))
		if _, err := io.ReadFull(got, buf); err != nil || string(buf) != text {
			t.Errorf("%q: the server reads %q, %v", text, buf, err)
		}
		_ = got.Close()
	}
}

// The split waits for bytes that come one by one.
func TestSplitOfSlowClients(t *testing.T) {
	s := split(t, nil)
	for text, want := range map[string]string{"PRI": "grpc", "PRO": "http", "PU": "http"} {
		c := dial(t, s)
		for i := range len(text) - 1 {
			send(t, c, text[i:i+1])
			select {
			case <-s.grpc.conns:
				t.Errorf("%q is decided too early", text[:i+1])
			case <-s.http.conns:
				t.Errorf("%q is decided too early", text[:i+1])
			case <-time.After(20 * time.Millisecond): // long enough to catch it
			}
		}
		send(t, c, text[len(text)-1:])
		got, side := first(t, s)
		if side != want {
			t.Errorf("%q goes to %s, want %s", text, side, want)
		}
		_ = got.Close()
	}
}

func TestSilentConnectionsDoNotHoldUpOthers(t *testing.T) {
	s := split(t, nil)
	var silent []net.Conn
	for range 50 {
		silent = append(silent, dial(t, s))
	}
	send(t, silent[7], "P")
	send(t, dial(t, s), "PRI * HTTP/2.0")
	got, side := first(t, s)
	if side != "grpc" {
		t.Errorf("goes to %s", side)
	}
	_ = got.Close()
	// Both sides end with the split.
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	for _, c := range silent {
		if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
			t.Fatalf("still open: %v", err)
		}
	}
}

func isTimeout(err error) bool {
	e, ok := err.(net.Error)
	return ok && e.Timeout()
}

// A connection that hangs up before it spoke goes to no side.
func TestSplitOfAHangUp(t *testing.T) {
	s := split(t, nil)
	c := dial(t, s)
	send(t, c, "PR")
	_ = c.Close()
	send(t, dial(t, s), "GET ")
	got, side := first(t, s)
	if side != "http" {
		t.Errorf("goes to %s", side)
	}
	_ = got.Close()
}

func TestClosingASide(t *testing.T) {
	s := split(t, nil)
	if err := s.HTTP().Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := s.HTTP().Accept(); err == nil {
		t.Error("a closed side accepts")
	}
	c := dial(t, s)
	send(t, c, "GET ")
	if _, err := c.Read(make([]byte, 1)); err == nil || isTimeout(err) {
		t.Errorf("a connection of a closed side stays: %v", err)
	}
	send(t, dial(t, s), "PRI")
	got, side := first(t, s)
	if side != "grpc" {
		t.Errorf("goes to %s", side)
	}
	_ = got.Close()
	if err := s.GRPC().Close(); err != nil {
		t.Fatal(err)
	}
	if _, err := net.Dial("tcp", s.GRPC().Addr().String()); err == nil {
		t.Error("gRPC's side is closed, and the address still accepts")
	}
}

func TestPlainRequestOverTLS(t *testing.T) {
	s := split(t, &tls.Config{GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return nil, io.EOF }})
	c := dial(t, s)
	send(t, c, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
	text, _ := io.ReadAll(c)
	if !strings.Contains(string(text), "400 Bad Request") || !strings.Contains(string(text), "HTTPS server") {
		t.Errorf("got %q", text)
	}
}

// TestDrainClosesConnectionsWithoutFirstFrames: gRPC's server waits for the first frames of
// such a client before it sends a GOAWAY to any other.
func TestDrainClosesConnectionsWithoutFirstFrames(t *testing.T) {
	s := split(t, nil)
	g := grpc.NewServer()
	served := make(chan error, 1)
	go func() { served <- g.Serve(s.GRPC()) }()
	c, err := net.Dial("tcp", s.HTTP().Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := io.WriteString(c, "PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	if _, err := c.Read(make([]byte, 1)); err != nil { // the server has introduced itself
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	s.Drain(ctx)
	g.GracefulStop() // returns
	if err := <-served; err != nil {
		t.Error(err)
	}
}
