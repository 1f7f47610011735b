package web

import (
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/client/gate"
)

const (
	// firstBytesTimeout is how long a connection may be silent. Clients of both protocols speak
	// first.
	firstBytesTimeout = 20 * time.Second
	handshakeTimeout  = 20 * time.Second
	// unackedTimeout is how long a client may leave sent data unacknowledged. It ends
	// connections to clients that vanished.
	unackedTimeout = 20 * time.Second

	acceptRetryMin = 5 * time.Millisecond
	acceptRetryMax = time.Second
)

// preface is the beginning of every HTTP/2 connection. HTTP/1 has no such method.
var preface = []byte("PRI")

// Split shares a listener between gRPC and HTTP.
type Split struct {
	base net.Listener
	tls  *tls.Config // nil means no TLS
	gate *gate.Gate
	grpc *side
	http *side

	refusing chan struct{} // bounds the connections that are being refused

	ctx    context.Context // ends with Close
	cancel context.CancelFunc

	draining atomic.Bool
	stopped  chan struct{}  // closed when no more connections are to be accepted
	stop     func()         // closes stopped
	served   chan struct{}  // closed when Serve has returned
	sorting  sync.WaitGroup // counts connections that no server serves yet

	mu       sync.Mutex
	unsorted map[net.Conn]bool // the same connections
}

// NewSplit takes over a listener. It accepts nothing before Serve. With a TLS configuration it
// accepts only TLS; the configuration must negotiate "h2" for gRPC. The gate bounds the
// connections; nil means no bound.
func NewSplit(l net.Listener, t *tls.Config, g *gate.Gate) *Split {
	if g == nil {
		g = gate.New("clients", gate.Limits{}, nil)
	}
	s := &Split{base: l, tls: t, gate: g, refusing: make(chan struct{}, maxRefusing), served: make(chan struct{}), unsorted: map[net.Conn]bool{}}
	s.stopped = make(chan struct{})
	s.stop = sync.OnceFunc(func() { close(s.stopped) })
	s.ctx, s.cancel = context.WithCancel(context.Background())
	s.grpc, s.http = newSide(s), newSide(s)
	return s
}

// GRPC returns the listener for the gRPC server. Closing it closes the split.
func (s *Split) GRPC() net.Listener { return s.grpc }

// HTTP returns the listener for the HTTP server. Closing it does not affect gRPC; further HTTP
// connections are then closed.
func (s *Split) HTTP() net.Listener { return s.http }

// Close stops accepting. Connections that a server has accepted stay open.
func (s *Split) Close() error {
	if s.ctx.Err() != nil {
		return nil
	}
	s.cancel()
	s.stop()
	return s.base.Close()
}

// Drain stops accepting, and waits until the accepted connections are with their servers, or
// ctx ends. A client whose connection is closed before its request was read would see a
// failure. Connections that are not with a server when ctx ends are closed, because gRPC's
// server sends no GOAWAY while it waits for one client's first frames. The servers go on
// accepting. Serve must have been called.
func (s *Split) Drain(ctx context.Context) {
	s.draining.Store(true)
	s.stop()
	_ = s.base.Close()
	sorted := make(chan struct{})
	go func() {
		<-s.served
		s.sorting.Wait()
		close(sorted)
	}()
	select {
	case <-sorted:
	case <-ctx.Done():
		s.mu.Lock()
		defer s.mu.Unlock()
		for c := range s.unsorted {
			_ = c.Close()
		}
	}
}

// accepted counts a connection as unsorted until the returned function is called.
func (s *Split) accepted(c net.Conn) (sorted func()) {
	s.sorting.Add(1)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.unsorted[c] = true
	return sync.OnceFunc(func() {
		s.mu.Lock()
		delete(s.unsorted, c)
		s.mu.Unlock()
		s.sorting.Done()
	})
}

// greeting is a connection whose client has not sent its first frames to gRPC's server yet.
// That server sets a deadline for them, and removes it afterwards.
type greeting struct {
	net.Conn
	over func()
}

// Unwrap returns the connection itself, because its type says how secure it is.
func (g *greeting) Unwrap() net.Conn { return g.Conn }

func (g *greeting) SetDeadline(t time.Time) error {
	err := g.Conn.SetDeadline(t)
	if t.IsZero() {
		g.over()
	}
	return err
}

func (g *greeting) Close() error {
	g.over()
	return g.Conn.Close()
}

// Serve accepts connections until Close or Drain, and then returns nil.
func (s *Split) Serve() error {
	defer close(s.served)
	var pause time.Duration
	for {
		if !s.gate.Await(s.stopped) {
			return nil
		}
		c, err := s.base.Accept()
		switch {
		case err == nil:
			pause = 0
			admitted := s.gate.Enter(c, s.stopped)
			if admitted == nil {
				s.refuse(c)
				continue
			}
			go s.sort(admitted, s.accepted(admitted))
			continue
		case s.ctx.Err() != nil || s.draining.Load():
			return nil
		case !temporary(err):
			return fmt.Errorf("accept: %w", err)
		}
		// The cause is most likely a lack of descriptors. Connections that end give some back.
		pause = min(max(2*pause, acceptRetryMin), acceptRetryMax)
		select {
		case <-time.After(pause):
		case <-s.ctx.Done():
		}
	}
}

func temporary(err error) bool {
	var t interface{ Temporary() bool }
	return errors.As(err, &t) && t.Temporary()
}

// sort finds out which protocol a connection speaks, and passes it to that side.
func (s *Split) sort(c *gate.Conn, sorted func()) {
	boundUnacked(c)
	stop := context.AfterFunc(s.ctx, func() { _ = c.Close() })
	to, conn, err := s.classify(c)
	if !stop() || err != nil {
		_ = c.Close()
		sorted()
		return
	}
	c.Proved()
	if to == s.grpc {
		conn = &greeting{Conn: conn, over: sorted}
	} else {
		defer sorted()
	}
	select {
	case to.conns <- conn:
	case <-s.ctx.Done():
		_ = conn.Close()
	case <-to.done:
		_ = conn.Close()
	}
}

func (s *Split) classify(c net.Conn) (*side, net.Conn, error) {
	if s.tls != nil {
		return s.handshake(c)
	}
	if err := c.SetReadDeadline(time.Now().Add(firstBytesTimeout)); err != nil {
		return nil, nil, err
	}
	is2, err := beginsWith(c, preface)
	if err != nil {
		return nil, nil, err
	}
	if err := c.SetReadDeadline(time.Time{}); err != nil {
		return nil, nil, err
	}
	if is2 {
		return s.grpc, c, nil
	}
	return s.http, c, nil
}

func (s *Split) handshake(c net.Conn) (*side, net.Conn, error) {
	t := tls.Server(c, s.tls)
	ctx, cancel := context.WithTimeout(s.ctx, handshakeTimeout)
	defer cancel()
	if err := t.HandshakeContext(ctx); err != nil {
		answerPlain(err)
		return nil, nil, err
	}
	if t.ConnectionState().NegotiatedProtocol == "h2" {
		return s.grpc, t, nil
	}
	return s.http, t, nil
}

// answerPlain tells a client that used http instead of https what is wrong.
func answerPlain(err error) {
	var e tls.RecordHeaderError
	if !errors.As(err, &e) || e.Conn == nil {
		return
	}
	switch string(e.RecordHeader[:]) {
	case "GET /", "HEAD ", "POST ", "PUT /", "OPTIO":
		_ = e.Conn.SetWriteDeadline(time.Now().Add(time.Second))
		_, _ = io.WriteString(e.Conn, "HTTP/1.0 400 Bad Request\r\n\r\nClient sent an HTTP request to an HTTPS server.\n")
	}
}

// beginsWith waits until it is clear whether a connection begins with certain bytes. It does
// not read them, so the server still gets them.
func beginsWith(c net.Conn, want []byte) (bool, error) {
	sc, ok := c.(syscall.Conn)
	if !ok {
		return false, fmt.Errorf("%T has no descriptor", c)
	}
	raw, err := sc.SyscallConn()
	if err != nil {
		return false, err
	}
	var (
		is      bool
		peekErr error
		buf     = make([]byte, len(want))
	)
	err = raw.Read(func(fd uintptr) bool {
		n, _, err := unix.Recvfrom(int(fd), buf, unix.MSG_PEEK|unix.MSG_DONTWAIT)
		switch {
		case err == unix.EAGAIN || err == unix.EINTR:
			return false
		case err != nil:
			peekErr = fmt.Errorf("look at the first bytes: %w", err)
		case n == 0:
			peekErr = io.EOF
		case !bytes.Equal(buf[:n], want[:n]):
		case n < len(want) && hungUp(int(fd)):
			peekErr = io.EOF
		case n < len(want):
			return false // undecided; the kernel wakes us at more data or the end
		default:
			is = true
		}
		return true
	})
	return is, errors.Join(err, peekErr)
}

// boundUnacked makes the kernel end a connection whose other end does not answer.
func boundUnacked(c *gate.Conn) {
	raw, err := c.SyscallConn()
	if err != nil {
		return
	}
	_ = raw.Control(func(fd uintptr) {
		_ = unix.SetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(unackedTimeout.Milliseconds()))
	})
}

// hungUp reports whether the other end has closed, although not everything is read yet.
func hungUp(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n > 0 && p[0].Revents&(unix.POLLRDHUP|unix.POLLHUP|unix.POLLERR) != 0
}

// side is one half of a split, as a listener.
type side struct {
	split *Split
	conns chan net.Conn
	done  chan struct{}
	close func()
}

func newSide(s *Split) *side {
	l := &side{split: s, conns: make(chan net.Conn), done: make(chan struct{})}
	l.close = sync.OnceFunc(func() { close(l.done) })
	return l
}

// Accept returns the next connection with this side's protocol.
func (l *side) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.split.ctx.Done():
	case <-l.done:
	}
	return nil, net.ErrClosed
}

// Addr returns the shared address.
func (l *side) Addr() net.Addr { return l.split.base.Addr() }

// Close closes the side. For gRPC's side it closes the whole split.
func (l *side) Close() error {
	l.close()
	if l == l.split.grpc {
		return l.split.Close()
	}
	return nil
}
