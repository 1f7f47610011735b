package engine

import (
	"net"
	"time"
)

// writeDeadlines bounds each write to the connections of a listener. etcd's own listener does the same,
// and its streams rely on it: while a write to a host that was cut off waits, the stream does not take
// the new connection of that host. Without the bound, that lasts until TCP sends again, which can be
// a minute after the network is back.
type writeDeadlines struct {
	net.Listener
	timeout time.Duration // for one write
}

// Accept implements net.Listener.
func (l writeDeadlines) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	return &writeDeadlineConn{c, l.timeout}, nil
}

type writeDeadlineConn struct {
	net.Conn
	timeout time.Duration
}

// Write implements net.Conn.
func (c *writeDeadlineConn) Write(b []byte) (int, error) {
	if err := c.SetWriteDeadline(time.Now().Add(c.timeout)); err != nil {
		return 0, err
	}
	return c.Conn.Write(b)
}
