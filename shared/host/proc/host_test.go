package proc

import (
	"bytes"
	"errors"
	"io"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

func TestSetTitle(t *testing.T) {
	for role, want := range map[string]string{
		"leader":               "dynast:leader",
		"follower":             "dynast:follower",
		"a role that is wordy": "dynast:a role t",
		"odd) (R":              "dynast:odd) (R",
	} {
		h := ready(t, "title "+role)
		u, err := ReadUsage(h.Process.Pid)
		if err != nil || u.Comm != want {
			t.Errorf("comm %q, %v; want %q", u.Comm, err, want)
		}
	}
}

func TestBootID(t *testing.T) {
	id, err := BootID()
	if err != nil || !regexp.MustCompile(`^[0-9a-f-]{36}$`).MatchString(id) {
		t.Errorf("boot id %q, %v", id, err)
	}
}

func TestFreeBytes(t *testing.T) {
	n, err := FreeBytes(t.TempDir())
	if err != nil || n < 1<<20 {
		t.Errorf("free bytes %d, %v", n, err)
	}
	if _, err := FreeBytes(filepath.Join(t.TempDir(), "missing")); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing path: %v", err)
	}
}

// A program that was deleted and replaced by another still starts itself.
func TestExecutableOfADeletedProgram(t *testing.T) {
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	program := filepath.Join(t.TempDir(), "program")
	copyProgram(t, exe, program)
	h := startProgram(t, program, "respawn")
	h.line(t)
	if err := os.Remove(program); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(program, []byte("#!/bin/sh\necho impostor\n"), 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(h.in, "go\n"); err != nil {
		t.Fatal(err)
	}
	if got := h.line(t); got != `child said "ready\n"` {
		t.Errorf("helper said %q", got)
	}
}

func copyProgram(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.ReadFile(from)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(to, in, 0o700); err != nil {
		t.Fatal(err)
	}
}

func TestReadUsage(t *testing.T) {
	before := time.Now()
	h := ready(t, "wait")
	u, err := ReadUsage(h.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if u.PPID != os.Getpid() || u.RSSBytes < 1<<20 || u.FDs < 3 || u.State == 'Z' {
		t.Errorf("usage %+v", u)
	}
	if u.StartedAt.Before(before.Add(-time.Second)) || u.StartedAt.After(time.Now().Add(time.Second)) {
		t.Errorf("started at %v, now %v", u.StartedAt, time.Now())
	}
	h.Process.Signal(unix.SIGSTOP)
	waitState(t, h.Process.Pid, "T")
	h.Process.Kill()
	waitState(t, h.Process.Pid, "Z")
	if u, err := ReadUsage(h.Process.Pid); err != nil || u.State != 'Z' {
		t.Errorf("usage of a zombie %+v, %v", u, err)
	}
	h.Wait()
	if _, err := ReadUsage(h.Process.Pid); !errors.Is(err, ErrGone) {
		t.Errorf("usage of a dead process: %v", err)
	}
}

func TestUsageCountsCPU(t *testing.T) {
	first, err := ReadUsage(os.Getpid())
	if err != nil {
		t.Fatal(err)
	}
	for deadline := time.Now().Add(patience); ; {
		u, err := ReadUsage(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if u.CPU >= first.CPU+2*userTick {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("the CPU time does not grow")
		}
	}
}

func TestWhoListens(t *testing.T) {
	for _, bind := range []string{"127.0.0.1:0", "127.0.0.3:0", "[::1]:0", ":0"} {
		l, err := net.Listen("tcp", bind)
		if err != nil {
			t.Logf("skipped: %v", err)
			continue
		}
		addr := l.Addr().(*net.TCPAddr).AddrPort()
		asked := []string{addr.String()}
		if addr.Addr().IsUnspecified() {
			asked = append(asked, netip.AddrPortFrom(netip.MustParseAddr("127.0.0.1"), addr.Port()).String())
		}
		if bind == "127.0.0.1:0" {
			asked = append(asked, netip.AddrPortFrom(netip.IPv4Unspecified(), addr.Port()).String())
		}
		comm, _ := os.ReadFile("/proc/self/comm")
		for _, a := range asked {
			pid, name, ok := WhoListens(a)
			if !ok || pid != os.Getpid() || name != string(bytes.TrimSpace(comm)) {
				t.Errorf("bound %s, WhoListens(%s) = %d, %q, %v", bind, a, pid, name, ok)
			}
		}
		l.Close()
		if pid, _, ok := WhoListens(addr.String()); ok {
			t.Errorf("WhoListens(%s) = %d after close", addr, pid)
		}
	}
	for _, nonsense := range []string{"", "x", "127.0.0.1", "127.0.0.1:0", "127.0.0.1:99999"} {
		if pid, _, ok := WhoListens(nonsense); ok {
			t.Errorf("WhoListens(%q) = %d", nonsense, pid)
		}
	}
}

func FuzzParseHexAddress(f *testing.F) {
	f.Add("0100007F:094B")
	f.Add("00000000000000000000000001000000:1F90")
	f.Add(":")
	f.Fuzz(func(t *testing.T, s string) {
		if a, err := parseHexAddress(s); err == nil && !a.IsValid() {
			t.Errorf("%q: %v", s, a)
		}
	})
}
