package systemd

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

func TestNotify(t *testing.T) {
	hear := testkit.NotifySocket(t)
	if err := Notify(MainPID(), Ready, Status("two\nlines")); err != nil {
		t.Fatal(err)
	}
	if got, want := hear(), fmt.Sprintf("MAINPID=%d\nREADY=1\nSTATUS=two lines", os.Getpid()); got != want {
		t.Errorf("heard %q, want %q", got, want)
	}
	r, err := Reloading()
	if err != nil {
		t.Fatal(err)
	}
	if err := Notify(r); err != nil {
		t.Fatal(err)
	}
	var usec int64
	if _, err := fmt.Sscanf(hear(), "RELOADING=1\nMONOTONIC_USEC=%d", &usec); err != nil || usec <= 0 {
		t.Errorf("%q: %v", r, err)
	}
}

func TestNobodyToNotify(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "")
	if err := Notify(Ready); err != nil || Managed() {
		t.Errorf("without a manager: %v, managed %t", err, Managed())
	}
	t.Setenv("NOTIFY_SOCKET", filepath.Join(t.TempDir(), "gone"))
	if err := Notify(Ready); err == nil || !strings.Contains(err.Error(), "gone") {
		t.Errorf("a socket that is gone: %v", err)
	}
}

func TestWatchdogPassesToLaterLeaders(t *testing.T) {
	t.Setenv("NOTIFY_SOCKET", "/x")
	t.Setenv("WATCHDOG_USEC", "3000000")
	for pid, want := range map[string]time.Duration{
		fmt.Sprint(os.Getpid()):     1500 * time.Millisecond,
		"":                          1500 * time.Millisecond,
		fmt.Sprint(os.Getpid() + 1): 0, // a wrapper answers it
	} {
		t.Setenv("WATCHDOG_USEC", "3000000")
		t.Setenv("WATCHDOG_PID", pid)
		if _, _, err := Begin(); err != nil {
			t.Fatal(err)
		}
		if os.Getenv("WATCHDOG_PID") != "" {
			t.Error("WATCHDOG_PID is left: a later leader would not feel meant")
		}
		if d, err := WatchdogInterval(); err != nil || d != want {
			t.Errorf("for pid %q: every %v, %v; want %v", pid, d, err, want)
		}
	}
	t.Setenv("WATCHDOG_USEC", "soon")
	if _, err := WatchdogInterval(); err == nil {
		t.Error("a limit that is no number is taken")
	}
}

func TestSocketsOfAnotherProcessAreLeftAlone(t *testing.T) {
	t.Setenv("LISTEN_PID", fmt.Sprint(os.Getpid()+1))
	t.Setenv("LISTEN_FDS", "1")
	f, address, err := Begin()
	if f != nil || address != "" || err != nil {
		t.Errorf("%v, %q, %v", f, address, err)
	}
	if os.Getenv("LISTEN_FDS") != "" || os.Getenv("LISTEN_PID") != "" {
		t.Error("the variables are left for the followers")
	}
}

func TestListening(t *testing.T) {
	l, f := testkit.TCPFile(t)
	if a, err := listening(f); err != nil || a != l.Addr().String() {
		t.Errorf("%q, %v", a, err)
	}
	u, err := net.Listen("unix", filepath.Join(t.TempDir(), "u"))
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	uf, err := u.(*net.UnixListener).File()
	if err != nil {
		t.Fatal(err)
	}
	defer uf.Close()
	d, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer d.Close()
	df, err := d.(*net.UDPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer df.Close()
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for what, f := range map[string]*os.File{"a Unix socket": uf, "UDP": df, "no socket": null} {
		if a, err := listening(f); err == nil || errors.Is(err, ErrActivation) {
			t.Errorf("%s is taken for %q: %v", what, a, err)
		}
	}
}
