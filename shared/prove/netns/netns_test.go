package netns

import (
	"errors"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

func network(t *testing.T, hosts int) *Network {
	t.Helper()
	if err := Available(); err != nil {
		t.Skip(err)
	}
	n, err := New(hosts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		bridge := n.bridge
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		out, err := exec.Command("ip", "netns", "list").Output()
		if err != nil || strings.Contains(string(out), bridge) || exists(bridge) {
			t.Errorf("the network left something: %v\n%s", err, out)
		}
	})
	return n
}

// udp returns a socket of a host.
func udp(t *testing.T, h *Host) *net.UDPConn {
	t.Helper()
	var c *net.UDPConn
	if err := h.Do(func() (err error) {
		c, err = net.ListenUDP("udp4", &net.UDPAddr{IP: h.IP.AsSlice(), Port: 4000})
		return err
	}); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = c.Close() })
	return c
}

// arrives reports whether a packet of one socket arrives at another one within some time.
func arrives(t *testing.T, from, to *net.UDPConn, within time.Duration) bool {
	t.Helper()
	if _, err := from.WriteTo([]byte("x"), to.LocalAddr()); err != nil {
		t.Fatal(err)
	}
	if err := to.SetReadDeadline(time.Now().Add(within)); err != nil {
		t.Fatal(err)
	}
	_, err := to.Read(make([]byte, 8))
	if err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatal(err)
	}
	return err == nil
}

func TestCutsHaveADirection(t *testing.T) {
	n := network(t, 3)
	a, b, c, out := udp(t, n.Hosts[0]), udp(t, n.Hosts[1]), udp(t, n.Hosts[2]), udp(t, n.Outside)
	all := []*net.UDPConn{a, b, c, out}
	check := func(when string, lost func(from, to *net.UDPConn) bool) {
		t.Helper()
		for _, from := range all {
			for _, to := range all {
				within := 10 * time.Second // a packet that is not lost arrives at once
				if lost(from, to) {
					within = 200 * time.Millisecond
				}
				if from != to && arrives(t, from, to, within) == lost(from, to) {
					t.Errorf("%s: from %s to %s: lost must be %v", when, from.LocalAddr(), to.LocalAddr(), lost(from, to))
				}
			}
		}
	}
	nothing := func(_, _ *net.UDPConn) bool { return false }
	check("at first", nothing)
	if err := n.Cut(n.Hosts[0], n.Hosts[1]); err != nil {
		t.Fatal(err)
	}
	check("with one direction cut", func(from, to *net.UDPConn) bool { return from == a && to == b })
	if err := n.Heal(); err != nil {
		t.Fatal(err)
	}
	check("after the first heal", nothing)
	if err := n.Part(n.Hosts[2:], []*Host{n.Hosts[0], n.Hosts[1], n.Outside}); err != nil {
		t.Fatal(err)
	}
	check("with a host cut off", func(from, to *net.UDPConn) bool { return from == c || to == c })
	if err := n.Heal(); err != nil {
		t.Fatal(err)
	}
	check("after the second heal", nothing)
}

// TestSlowLinks sends what a slow line needs about a second for.
func TestSlowLinks(t *testing.T) {
	n := network(t, 2)
	t.Logf("the kernel can delay packets: %v", n.Delays())
	took := func() time.Duration {
		a, b := n.Hosts[0], n.Hosts[1]
		var l net.Listener
		if err := b.Do(func() (err error) { l, err = net.Listen("tcp4", b.IP.String()+":4001"); return err }); err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		began := time.Now()
		var c net.Conn
		if err := a.Do(func() (err error) { c, err = net.Dial("tcp4", l.Addr().String()); return err }); err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		go func() { _, _ = c.Write(make([]byte, 60_000)) }()
		in, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		defer in.Close()
		for got := 0; got < 60_000; {
			k, err := in.Read(make([]byte, 60_000))
			if err != nil {
				t.Fatal(err)
			}
			got += k
		}
		return time.Since(began)
	}
	fast := took()
	if err := n.Slow(n.Hosts[0], 300*time.Millisecond, 100_000); err != nil {
		t.Fatal(err)
	}
	if slow := took(); slow < 300*time.Millisecond {
		t.Errorf("the slow line took %s, and the fast one %s", slow, fast)
	}
	if err := n.Fast(); err != nil {
		t.Fatal(err)
	}
}

func TestCommandsRunInTheirHost(t *testing.T) {
	n := network(t, 1)
	cmd := exec.Command("ip", "-o", "addr")
	var out strings.Builder
	cmd.Stdout = &out
	if err := n.Hosts[0].Start(cmd); err != nil {
		t.Fatal(err)
	}
	if err := cmd.Wait(); err != nil || !strings.Contains(out.String(), n.Hosts[0].IP.String()) || strings.Contains(out.String(), n.Outside.IP.String()) {
		t.Errorf("ip addr in the host: %v\n%s", err, out.String())
	}
}
