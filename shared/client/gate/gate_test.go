package gate

import (
	"errors"
	"io"
	"net"
	"net/http"
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"
	"google.golang.org/grpc/credentials/insecure"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// pair returns a connection as a listener gets it, and its other end.
func pair(t *testing.T) (accepted, other net.Conn) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	if other, err = net.Dial("tcp", l.Addr().String()); err != nil {
		t.Fatal(err)
	}
	if accepted, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = accepted.Close(); _ = other.Close() })
	return accepted, other
}

// ended waits until the other end of a connection sees that it is closed.
func ended(t *testing.T, other net.Conn) {
	t.Helper()
	_ = other.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := other.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection is not closed: %v", err)
	}
}

func counts(t *testing.T, g *Gate, total, unproven int) {
	t.Helper()
	if a, b := g.Open(); a != total || b != unproven {
		t.Errorf("%d connections, %d unproven; want %d, %d", a, b, total, unproven)
	}
}

// TestSilentConnectionsAreEndedFirst: one connection too many ends the one that has been silent
// for the longest time, not the oldest one.
func TestSilentConnectionsAreEndedFirst(t *testing.T) {
	g := New("test", Limits{Unproven: 3}, nil)
	var conns []*Conn
	var others []net.Conn
	admit := func() {
		c, other := pair(t)
		conns, others = append(conns, g.Admit(c)), append(others, other)
	}
	for range 3 {
		admit()
	}
	if _, err := others[0].Write([]byte("hello")); err != nil {
		t.Fatal(err)
	}
	if _, err := io.ReadFull(conns[0], make([]byte, 5)); err != nil {
		t.Fatal(err)
	}
	admit()
	ended(t, others[1])
	counts(t, g, 3, 3)
	conns[2].Proved()
	counts(t, g, 3, 2)
	admit()
	admit()
	ended(t, others[3]) // the second has proved itself: it stays
	counts(t, g, 4, 3)
	for _, c := range conns {
		_ = c.Close()
		_ = c.Close()
	}
	counts(t, g, 0, 0)
}

// TestProvenConnectionsAreNotEnded: a proven connection is not ended in favour of another.
func TestProvenConnectionsAreNotEnded(t *testing.T) {
	g := New("test", Limits{Total: 2}, nil)
	a, _ := pair(t)
	b, other := pair(t)
	c, _ := pair(t)
	first := g.Admit(a)
	first.Proved()
	second := g.Admit(b)
	third := g.Admit(c)
	if third == nil {
		t.Fatal("one that has not proved itself keeps another out")
	}
	ended(t, other)
	third.Proved()
	d, _ := pair(t)
	if g.Admit(d) != nil {
		t.Error("three are admitted where two may be")
	}
	_ = second.Close()
	counts(t, g, 2, 0)
	_ = first.Close()
	if g.Admit(d) == nil {
		t.Error("there is a place, and it is not given")
	}
}

func TestUnprovenConnectionsTimeOut(t *testing.T) {
	g := New("test", Limits{Patience: time.Millisecond}, nil)
	a, other := pair(t)
	g.Admit(a)
	ended(t, other)
	counts(t, g, 0, 0)
}

// TestAHandshakeIsProof: a completed handshake proves a connection, a failed one does not.
func TestAHandshakeIsProof(t *testing.T) {
	g := New("test", Limits{Patience: time.Hour}, nil)
	a, _ := pair(t)
	c := g.Admit(a)
	creds := Credentials(insecure.NewCredentials()).Clone()
	counts(t, g, 1, 1)
	if _, _, err := creds.ServerHandshake(c); err != nil {
		t.Fatal(err)
	}
	counts(t, g, 1, 0)
	_ = c.Close()
}

// TestARequestIsProof: a request proves a connection of an HTTP server.
func TestARequestIsProof(t *testing.T) {
	base, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := New("test", Limits{Patience: time.Hour}, nil)
	proved := make(chan int, 1)
	s := &http.Server{ConnState: RequestIsProof, Handler: http.HandlerFunc(func(http.ResponseWriter, *http.Request) {
		_, unproven := g.Open()
		proved <- unproven
	})}
	done := make(chan error)
	go func() { done <- s.Serve(g.Listener(base)) }()
	c, err := net.Dial("tcp", base.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	if _, err := c.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n")); err != nil {
		t.Fatal(err)
	}
	if n := <-proved; n != 0 {
		t.Errorf("%d connections are unproven during a request", n)
	}
	_ = c.Close()
	_ = s.Close()
	<-done
}

func TestListenerClosesConnectionsBeyondTheLimit(t *testing.T) {
	base, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := New("test", Limits{Total: 1}, nil)
	l := g.Listener(base)
	defer l.Close()
	var others []net.Conn
	for range 2 {
		c, err := net.Dial("tcp", base.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		others = append(others, c)
	}
	first, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	first.(*Conn).Proved()
	done := make(chan net.Conn)
	go func() {
		c, _ := l.Accept()
		done <- c
	}()
	ended(t, others[1])
	_ = first.Close()
	third, err := net.Dial("tcp", base.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer third.Close()
	if c := <-done; c == nil {
		t.Error("the place that became free is not given")
	} else {
		_ = c.Close()
	}
}

// proven fills a gate that waits with proven connections.
func proven(t *testing.T, g *Gate, n int) (conns []*Conn, others []net.Conn) {
	for range n {
		c, other := pair(t)
		conns, others = append(conns, g.Admit(c)), append(others, other)
		conns[len(conns)-1].Proved()
	}
	return conns, others
}

// isOpen reports whether the other end sees that the connection is open.
func isOpen(t *testing.T, other net.Conn) {
	t.Helper()
	_ = other.SetReadDeadline(time.Now().Add(50 * time.Millisecond))
	if _, err := other.Read(make([]byte, 1)); !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("the connection has ended: %v", err)
	}
}

// TestConnectionsBeyondTheLimitWait: with Wait a connection beyond the limit is neither
// accepted nor closed. It is accepted when there is a place.
func TestConnectionsBeyondTheLimitWait(t *testing.T) {
	base, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	g := New("test", Limits{Total: 2, Wait: true}, nil)
	l := g.Listener(base)
	accepted := make(chan net.Conn, 3)
	done := make(chan error, 1)
	go func() {
		for {
			c, err := l.Accept()
			if err != nil {
				done <- err
				return
			}
			c.(*Conn).Proved()
			accepted <- c
		}
	}()
	var others []net.Conn
	for range 3 {
		c, err := net.Dial("tcp", base.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		others = append(others, c)
	}
	first, second := <-accepted, <-accepted
	isOpen(t, others[2])
	counts(t, g, 2, 0)
	if !g.Full() {
		t.Error("two are admitted where two may be, and the gate is not full")
	}
	_ = first.Close()
	third := <-accepted
	if third.RemoteAddr().String() != others[2].LocalAddr().String() {
		t.Error("another connection than the one that waits is admitted")
	}
	_ = l.Close()
	if err := <-done; !errors.Is(err, net.ErrClosed) {
		t.Errorf("a closed listener that waits for a place: %v", err)
	}
	_, _ = second.Close(), third.Close()
}

// TestWaitingConnectionsGetTimeToProveThemselves: a connection from the queue does not end
// another one before that was looked at.
func TestWaitingConnectionsGetTimeToProveThemselves(t *testing.T) {
	g := New("test", Limits{Total: 1, Wait: true}, nil)
	a, other := pair(t)
	first := g.Admit(a)
	b, _ := pair(t)
	if g.Admit(b) != nil {
		t.Fatal("a connection is ended that was just admitted")
	}
	isOpen(t, other)
	if second := g.Enter(b, make(chan struct{})); second == nil { // after waitGrace
		t.Error("one that says nothing keeps another out")
	}
	ended(t, other)
	if since := time.Since(first.since); since < waitGrace {
		t.Errorf("it had only %v", since)
	}
}

// TestLoweringTheLimit: when the limit is lowered, unproven connections are ended first, then
// the latest ones. When it is raised, waiting connections are accepted.
func TestLoweringTheLimit(t *testing.T) {
	g := New("test", Limits{Total: 4, Wait: true}, nil)
	_, others := proven(t, g, 3)
	u, unproven := pair(t)
	g.Admit(u)
	g.SetLimits(Limits{Total: 2, Wait: true})
	ended(t, unproven)
	ended(t, others[2])
	isOpen(t, others[0])
	isOpen(t, others[1])
	counts(t, g, 2, 0)
	entered := make(chan bool)
	c, _ := pair(t)
	go func() { entered <- g.Enter(c, make(chan struct{})) != nil }()
	g.SetLimits(Limits{Total: 3, Wait: true})
	if !<-entered {
		t.Error("there is a place, and it is not given")
	}
	// A server that stops serving still gets what was accepted.
	stop := make(chan struct{})
	d, _ := pair(t)
	go func() { entered <- g.Enter(d, stop) != nil }()
	close(stop)
	if !<-entered {
		t.Error("a connection that was accepted is lost at the end")
	}
}
