package engine

import (
	"net"
	"net/netip"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// The kernel has limits for the connections that were accepted and for those that were opened to
// another host, and none for others.
func TestSilenceIsLimited(t *testing.T) {
	plain, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer plain.Close()
	l := boundListener{plain, hclog.NewNullLogger()}
	dialed, err := net.Dial("tcp", plain.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer dialed.Close()
	accepted, err := l.Accept()
	if err != nil {
		t.Fatal(err)
	}
	defer accepted.Close()
	if limit, idle := limits(t, accepted); limit != acceptedSilence || idle != probeAfter {
		t.Errorf("accepted: %s, probes after %s", limit, idle)
	}
	o := &opened{}
	if err := o.bound(map[netip.AddrPort]bool{netip.MustParseAddrPort("127.0.0.9:1"): true}); err != nil {
		t.Fatal(err)
	}
	if limit, _ := limits(t, dialed); limit != 0 {
		t.Errorf("a connection to somebody else: %s", limit)
	}
	address := map[netip.AddrPort]bool{netip.MustParseAddrPort(plain.Addr().String()): true}
	if err := o.bound(address); err != nil {
		t.Fatal(err)
	}
	if limit, _ := limits(t, dialed); limit != 0 {
		t.Error("a connection was looked at twice")
	}
	if err := (&opened{}).bound(address); err != nil {
		t.Fatal(err)
	}
	if limit, idle := limits(t, dialed); limit != openedSilence || idle != probeAfter {
		t.Errorf("opened: %s, probes after %s", limit, idle)
	}
}

func limits(t *testing.T, c net.Conn) (limit, idle time.Duration) {
	t.Helper()
	raw, err := c.(*net.TCPConn).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var failed error
	if err := raw.Control(func(fd uintptr) {
		var ms, s int
		if ms, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_USER_TIMEOUT); failed == nil {
			s, failed = unix.GetsockoptInt(int(fd), unix.IPPROTO_TCP, unix.TCP_KEEPIDLE)
		}
		limit, idle = time.Duration(ms)*time.Millisecond, time.Duration(s)*time.Second
	}); err != nil || failed != nil {
		t.Fatal(err, failed)
	}
	return limit, idle
}
