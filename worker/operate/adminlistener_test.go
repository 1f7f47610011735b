package operate

import (
	"errors"
	"net"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dynast-io/dynast/worker/files"
)

// Callers of this user get in until all places are taken. When one leaves, the next gets in.
func TestAdminListenerLimits(t *testing.T) {
	base, err := net.ListenUnix("unix", &net.UnixAddr{Net: "unix", Name: filepath.Join(t.TempDir(), "s")})
	if err != nil {
		t.Fatal(err)
	}
	d := newAdminListener(base, files.Most, hclog.NewNullLogger())
	if d.own == d.others {
		t.Fatal("other users use the owner's places")
	}
	accepted := make(chan net.Conn)
	go func() {
		defer close(accepted)
		for {
			c, err := d.Accept()
			if err != nil {
				return
			}
			accepted <- c
		}
	}()
	var inside []net.Conn
	dial := func() net.Conn {
		c, err := net.Dial("unix", base.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = c.Close() })
		return c
	}
	proof := peerCredentials{}
	for range files.Most.Commands {
		dial()
		c := <-accepted
		if _, info, err := proof.ServerHandshake(c); err != nil || info.(callerInfo).uid != os.Getuid() {
			t.Fatal(info, err)
		}
		c.(interface{ Proved() }).Proved()
		inside = append(inside, c)
	}
	refused := dial()
	_ = refused.SetReadDeadline(time.Now().Add(30 * time.Second))
	if _, err := refused.Read(make([]byte, 1)); err == nil || errors.Is(err, os.ErrDeadlineExceeded) {
		t.Errorf("one connection too many is not refused: %v", err)
	}
	_ = inside[0].Close()
	dial()
	c, ok := <-accepted
	if !ok {
		t.Fatal("no connection is accepted after one left")
	}
	_ = c.Close()
	_ = base.Close()
	for range accepted {
	}
	for _, c := range inside[1:] {
		_ = c.Close()
	}
}
