package cli

import (
	"bytes"
	"context"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/prove/testkit"
)

func TestMain(m *testing.M) {
	if len(os.Args) > 1 && os.Args[1] == "worker" { // see pretend
		os.Stdout.Close()
		_, _ = io.Copy(io.Discard, os.Stdin)
		return
	}
	goleak.VerifyTestMain(m)
}

// pretend starts a process with the arguments of a worker that never owns a slot. The process ends
// with the test.
func pretend(t *testing.T, dir string) *exec.Cmd {
	t.Helper()
	cmd := exec.Command("/proc/self/exe")
	cmd.Args = []string{"dynast", "worker", "--address", "127.0.0.1:1", "--slot", "2", "--data-dir", dir}
	in, out := testkit.StartPiped(t, cmd)
	_, _ = io.Copy(io.Discard, out) // it has its arguments now
	t.Cleanup(func() { in.Close(); _ = cmd.Wait() })
	return cmd
}

func TestStopEndsAWorkerWithoutASlot(t *testing.T) {
	base := t.TempDir()
	real, link, other := filepath.Join(base, "data"), filepath.Join(base, "link"), filepath.Join(base, "other")
	for _, path := range []string{real, other} {
		if _, err := datadir.Open(path, true); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(real, link); err != nil {
		t.Fatal(err)
	}
	mine, through, stranger := pretend(t, real), pretend(t, link), pretend(t, other)
	var out bytes.Buffer
	if err := Stop(context.Background(), real, 10*time.Millisecond, &out); err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(out.String(), "killed, 2 processes are gone") {
		t.Errorf("stop printed: %s", out.String())
	}
	for _, cmd := range []*exec.Cmd{mine, through} {
		if err := cmd.Wait(); err == nil || err.Error() != "signal: killed" {
			t.Errorf("the worker: %v", err)
		}
	}
	if got := proc.Workers(mustOpen(t, other).Path()); len(got) != 1 || got[0].PID != stranger.Process.Pid {
		t.Errorf("workers of another directory: %v, want pid %d", got, stranger.Process.Pid)
	}
}

func mustOpen(t *testing.T, path string) *datadir.Dir {
	t.Helper()
	d, err := datadir.OpenForReading(path)
	if err != nil {
		t.Fatal(err)
	}
	return d
}

func TestStartedFor(t *testing.T) {
	for line, want := range map[string]bool{
		"dynast worker --address 127.0.0.1:1 --slot 2 --data-dir /d": true,
		"dynast worker --data-dir /d --slot 2":                       true,
		"dynast worker --data-dir /e":                                false,
		"dynast worker --data-dir":                                   false,
		"dynast worker":                                              false,
		"dynast tree --data-dir /d":                                  false,
		"vi worker --data-dir /d":                                    false,
		"":                                                           false,
	} {
		raw := strings.ReplaceAll(line, " ", "\x00") + "\x00"
		if got := proc.IsWorker("/d", []byte(raw)); got != want {
			t.Errorf("%q: %t", line, got)
		}
	}
}
