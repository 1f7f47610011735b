package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// A connection to a host that was cut off must not outlive the cut. TCP sends again after pauses that
// double, so after a cut of a minute, a connection can stay silent for another one. Raft's messages
// would wait for it.
//
// etcd means to give each read and write of a stream a deadline, but its transport ignores the dialer
// that sets them (go.etcd.io/etcd/client/pkg/v3/transport.NewTimeoutTransport sets Dial, and
// http.Transport prefers DialContext, which NewTransport has set). Nothing there takes a dialer of
// ours. So the kernel gets the limits. Those of accepted connections are set when they are accepted,
// and those of connections that etcd opens are set soon afterwards.
const (
	// acceptedSilence is how long another host may leave data unacknowledged that this one has sent
	// on a connection that it accepted. These carry Raft's streams. It is etcd's own limit for a write.
	acceptedSilence = 5 * time.Second
	// openedSilence is the same for the connections that this host opens. It is longer, because they
	// carry snapshots, and the disk of the receiver may pause.
	openedSilence = 20 * time.Second
	// probeAfter is after how much silence the kernel asks whether the other end still knows the
	// connection, and probeEvery is the pause between two such probes.
	probeAfter = 2 * time.Second
	probeEvery = time.Second
	// boundEvery is how often the connections that this host has opened are looked at.
	boundEvery = time.Second
)

// bound limits the silence on a TCP connection. See TCP_USER_TIMEOUT and TCP_KEEPIDLE in tcp(7).
func bound(fd int, silence time.Duration) error {
	for _, o := range []struct{ level, name, value int }{
		{unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT, int(silence.Milliseconds())},
		{unix.IPPROTO_TCP, unix.TCP_KEEPIDLE, int(probeAfter / time.Second)},
		{unix.IPPROTO_TCP, unix.TCP_KEEPINTVL, int(probeEvery / time.Second)},
		{unix.SOL_SOCKET, unix.SO_KEEPALIVE, 1},
	} {
		if err := unix.SetsockoptInt(fd, o.level, o.name, o.value); err != nil {
			return fmt.Errorf("limit the silence of a connection: %w", os.NewSyscallError("setsockopt", err))
		}
	}
	return nil
}

// boundListener limits the silence on the connections that it accepts.
type boundListener struct {
	net.Listener
	log hclog.Logger
}

// Accept implements net.Listener.
func (l boundListener) Accept() (net.Conn, error) {
	c, err := l.Listener.Accept()
	if err != nil {
		return nil, err
	}
	if tcp, ok := c.(*net.TCPConn); ok {
		raw, err := tcp.SyscallConn()
		if err == nil {
			var failed error
			if err = raw.Control(func(fd uintptr) { failed = bound(int(fd), acceptedSilence) }); err == nil {
				err = failed
			}
		}
		if err != nil {
			l.log.Debug("a connection of another host has no limit", "from", c.RemoteAddr(), "error", err)
		}
	}
	return c, nil
}

// opened limits the silence on the connections that this process has opened to other hosts.
type opened struct {
	seen map[string]bool // the sockets that were looked at, by their name in /proc
}

// bound limits all connections to addresses that were not there at its last call.
func (o *opened) bound(addresses map[netip.AddrPort]bool) error {
	paths, err := filepath.Glob("/proc/self/fd/*")
	if err != nil {
		return err
	}
	seen := make(map[string]bool, len(paths))
	for _, path := range paths {
		// A descriptor that is closed meanwhile has no target, and one that is used again is another socket.
		socket, err := os.Readlink(path)
		if err != nil {
			continue
		}
		fd, err := strconv.Atoi(filepath.Base(path))
		if err != nil {
			continue
		}
		if seen[socket] = true; o.seen[socket] {
			continue
		}
		switch peer, err := unix.Getpeername(fd); {
		case errors.Is(err, unix.ENOTCONN):
			delete(seen, socket) // not yet
		case err == nil && addresses[addrPort(peer)]:
			if err := bound(fd, openedSilence); err != nil {
				return err
			}
		}
	}
	o.seen = seen
	return nil
}

// addrPort converts the address of a TCP socket. It returns the zero value for other sockets.
func addrPort(a unix.Sockaddr) netip.AddrPort {
	switch a := a.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(a.Addr), uint16(a.Port))
	case *unix.SockaddrInet6:
		return netip.AddrPortFrom(netip.AddrFrom16(a.Addr).Unmap(), uint16(a.Port))
	}
	return netip.AddrPort{}
}

// boundOpened limits the silence on the connections to other hosts until ctx ends.
func (e *Engine) boundOpened(ctx context.Context) {
	o := &opened{}
	every(ctx, boundEvery, func() {
		addresses := map[netip.AddrPort]bool{}
		for _, m := range e.server.Cluster().Members() {
			if a, err := netip.ParseAddrPort(address(m)); err == nil {
				addresses[a] = true
			}
		}
		if err := o.bound(addresses); err != nil {
			e.log.Debug("a connection to another host has no limit", "error", err)
		}
	})
}
