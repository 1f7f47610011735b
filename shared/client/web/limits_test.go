package web

import (
	"context"
	"errors"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/client/gate"
)

// full serves a split with one place, and takes that place.
func full(t *testing.T) *Split {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	s := NewSplit(l, nil, gate.New("test", gate.Limits{Total: 1}, nil))
	done := make(chan error, 1)
	go func() { done <- s.Serve() }()
	t.Cleanup(func() {
		_ = s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	send(t, dial(t, s), "GET / HTTP/1.1\r\n\r\n")
	c, _ := first(t, s)
	t.Cleanup(func() { _ = c.Close() })
	return s
}

// TestRefusedClientIsToldWhy: a refused client is told the reason in its own protocol.
func TestRefusedClientIsToldWhy(t *testing.T) {
	s := full(t)
	web := dial(t, s)
	send(t, web, "GET /health HTTP/1.1\r\nHost: x\r\n\r\n")
	if answer, err := io.ReadAll(web); err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 503") || !strings.Contains(string(answer), "client.max_connections") {
		t.Errorf("HTTP: %q, %v", answer, err)
	}
	conn, err := grpc.NewClient("passthrough:///"+s.GRPC().Addr().String(), grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer conn.Close()
	ctx, done := context.WithTimeout(context.Background(), patience)
	defer done()
	_, err = healthpb.NewHealthClient(conn).Check(ctx, &healthpb.HealthCheckRequest{}, grpc.WaitForReady(true))
	if status.Code(err) != codes.Unavailable || !strings.Contains(err.Error(), "client.max_connections") {
		t.Errorf("gRPC: %v", err)
	}
}

// TestConnectionEndsBeforeItsProtocolIsKnown: such a connection is closed at once.
func TestConnectionEndsBeforeItsProtocolIsKnown(t *testing.T) {
	s := split(t, nil)
	c := dial(t, s)
	send(t, c, "PR")
	if err := c.(*net.TCPConn).CloseWrite(); err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	if _, err := io.ReadAll(c); errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	if time.Since(began) > firstBytesTimeout/2 {
		t.Error("it was waited for")
	}
}

// TestSlowBodies: a body that comes byte by byte is not waited for, and one that is too long is
// not read. Both clients are told.
func TestSlowBodies(t *testing.T) {
	reached := make(chan string, 1)
	h := timely(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		b, _ := io.ReadAll(r.Body)
		reached <- string(b)
		_, _ = io.WriteString(w, "done")
	}), 10, 200*time.Millisecond)
	server := httptest.NewServer(h)
	defer server.Close()
	for name, tc := range map[string]struct {
		head, body string
		want       string
	}{
		"slow":  {"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 8\r\n\r\n", "{", "408"},
		"large": {"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 80\r\n\r\n", strings.Repeat("x", 80), "413"},
		"good":  {"POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nContent-Length: 2\r\n\r\n", "{}", "200"},
	} {
		c, err := net.Dial("tcp", server.Listener.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		_ = c.SetDeadline(time.Now().Add(patience))
		send(t, c, tc.head+tc.body)
		answer := make([]byte, 12)
		if _, err := io.ReadFull(c, answer); err != nil || string(answer) != "HTTP/1.1 "+tc.want {
			t.Errorf("%s: %q, %v", name, answer, err)
		}
		_ = c.Close()
	}
	if got := <-reached; got != "{}" {
		t.Errorf("the handler got %q", got)
	}
	select {
	case got := <-reached:
		t.Errorf("the handler got %q too", got)
	default:
	}
}
