package operate

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// The service manager hears "ready" only after a read has succeeded. The watchdog hears nothing
// from a process that does not answer.
func TestServiceReportsOnlyWhatIsTrue(t *testing.T) {
	hear := testkit.NotifySocket(t)
	t.Setenv("WATCHDOG_USEC", "20000")
	t.Setenv("WATCHDOG_PID", "")
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
		t.Errorf("first %q, want MAINPID", got)
	}
	for reads.Load() < 3 || asked.Load() < 3 { // neither result is reported
		<-time.After(time.Millisecond)
	}
	if m := <-warned; !strings.Contains(m, "watchdog") {
		t.Errorf("warned of %q", m)
	}
	if _, err := os.Stat(s.readyFile); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("the ready file exists before a read succeeded: %v", err)
	}
	mayRead.Store(true)
	if got := hear(); !strings.HasPrefix(got, "READY=1\n") || !strings.Contains(got, "STATUS=fine") {
		t.Errorf("then %q, want READY=1 next", got)
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
		t.Errorf("the ready file is still there after the stop: %v", err)
	}
}
