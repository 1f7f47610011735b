package worker

import (
	"context"
	"errors"
	"net"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"
)

// TestServiceTellsOnlyTheTruth: not ready before a read succeeds, and no word to the
// watchdog from a process that does not answer itself.
func TestServiceTellsOnlyTheTruth(t *testing.T) {
	path := filepath.Join(t.TempDir(), "n")
	c, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: path, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	t.Setenv("NOTIFY_SOCKET", path)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "")
	hear := func() string {
		t.Helper()
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		b := make([]byte, 4096)
		n, err := c.Read(b)
		if err != nil {
			t.Fatal(err)
		}
		return string(b[:n])
	}
	var reads, asked atomic.Int64
	var mayRead, healthy atomic.Bool
	warned := make(chan string, 100)
	ended, done := make(chan struct{}), make(chan struct{})
	s := &service{
		read: func(context.Context) error {
			reads.Add(1)
			if mayRead.Load() {
				return nil
			}
			return errors.New("not yet")
		},
		healthy: func(context.Context) bool { asked.Add(1); return healthy.Load() },
		status:  func() string { return "fine" }, warn: func(m string, _ ...any) {
			select {
			case warned <- m:
			default:
			}
		},
		ended: ended, changed: make(chan struct{}, 1), words: make(chan []string, 16), stopped: make(chan struct{}),
		readyFile: filepath.Join(t.TempDir(), "ready"), fileText: func() string { return "CLIENT=x\n" },
	}
	go func() { defer close(done); s.lead() }()
	if got := hear(); !strings.HasPrefix(got, "MAINPID=") {
		t.Errorf("first %q, want the process", got)
	}
	for reads.Load() < 3 || asked.Load() < 3 { // neither is told
		<-time.After(time.Millisecond)
	}
	if m := <-warned; !strings.Contains(m, "watchdog") {
		t.Errorf("warned of %q", m)
	}
	if _, err := os.Stat(s.readyFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ready file is there before a read succeeded: %v", err)
	}
	mayRead.Store(true)
	if got := hear(); !strings.HasPrefix(got, "READY=1\n") || !strings.Contains(got, "STATUS=fine") {
		t.Errorf("then %q, want ready; nothing may come in between", got)
	}
	healthy.Store(true)
	if got := hear(); got != "WATCHDOG=1" {
		t.Errorf("then %q", got)
	}
	healthy.Store(false)
	if raw, err := os.ReadFile(s.readyFile); err != nil || string(raw) != "CLIENT=x\n" {
		t.Errorf("ready file: %q, %v", raw, err)
	}
	s.stop()
	for got := hear(); !strings.HasPrefix(got, "STOPPING=1"); got = hear() {
		if got != "WATCHDOG=1" {
			t.Errorf("%q before the stop", got)
		}
	}
	<-done
	if _, err := os.Stat(s.readyFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ready file outlives the cluster: %v", err)
	}
}
