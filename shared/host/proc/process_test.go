package proc

import (
	"errors"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// patience bounds waits for events that happen within a millisecond.
const patience = 10 * time.Second

func waitDone(t testing.TB, p *Process) {
	t.Helper()
	select {
	case <-p.Done():
	case <-time.After(patience):
		t.Fatalf("the death of %v was not told", p.Identity())
	}
}

func isDone(p *Process) bool {
	select {
	case <-p.Done():
		return true
	default:
		return false
	}
}

// waitState waits until /proc shows one of the states.
func waitState(t testing.TB, pid int, states string) {
	t.Helper()
	for deadline := time.Now().Add(patience); ; {
		st, err := readStat(pid)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range []byte(states) {
			if st.state == s {
				return
			}
		}
		if time.Now().After(deadline) {
			t.Fatalf("pid %d is in state %c, want one of %s", pid, st.state, states)
		}
	}
}

func TestSelf(t *testing.T) {
	id, err := Identify(os.Getpid())
	if err != nil || id != Self() || id.PID != os.Getpid() || id.StartTime == 0 {
		t.Fatalf("Identify(own pid) = %v, %v; Self() = %v", id, err, Self())
	}
}

func TestDeathIsReportedBeforeReaping(t *testing.T) {
	h := ready(t, "wait")
	p := openPID(t, h.Process.Pid)
	if isDone(p) {
		t.Fatal("done before it was killed")
	}
	if s, ok := p.ExitStatus(); ok {
		t.Fatalf("a living process has exit status %q", s)
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	waitDone(t, p)
	// Nobody has reaped it. A zombie is dead nevertheless.
	waitState(t, h.Process.Pid, "Z")
	if err := p.Signal(unix.SIGTERM); !errors.Is(err, ErrGone) {
		t.Errorf("signal to a zombie: %v, want ErrGone", err)
	}
	if _, err := Open(p.Identity()); !errors.Is(err, ErrGone) {
		t.Errorf("open a zombie: %v, want ErrGone", err)
	}
	if _, err := Identify(h.Process.Pid); !errors.Is(err, ErrGone) {
		t.Errorf("identify a zombie: %v, want ErrGone", err)
	}
	if s, ok := p.ExitStatus(); !ok || s != "signal: killed" {
		t.Errorf("exit status of a zombie: %q, %v", s, ok)
	}
	h.Wait()
	if err := p.Kill(); !errors.Is(err, ErrGone) {
		t.Errorf("kill of a reaped process: %v, want ErrGone", err)
	}
	if _, err := Open(p.Identity()); !errors.Is(err, ErrGone) {
		t.Errorf("open a reaped process: %v, want ErrGone", err)
	}
	if s, ok := p.ExitStatus(); pidfdInfo(t) && (!ok || s != "signal: killed") {
		t.Errorf("exit status after reaping: %q, %v", s, ok)
	}
}

// pidfdInfo reports whether the kernel keeps exit statuses for pidfds.
func pidfdInfo(t *testing.T) bool {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	info := unix.PidfdInfo{Mask: unix.PIDFD_INFO_EXIT}
	return unix.IoctlPidfdInfo(fd, &info) == nil
}

func TestExitStatus(t *testing.T) {
	if !pidfdInfo(t) {
		t.Skip("the kernel is older than 6.15")
	}
	for _, code := range []int{0, 4} {
		h := startHelper(t, "orphan")
		pid, err := strconv.Atoi(h.line(t))
		if err != nil {
			t.Fatal(err)
		}
		p := openPID(t, pid)
		h.line(t) // "ready", of the child
		if code == 0 {
			h.in.Close()
		} else if err := p.Signal(unix.SIGTERM); err != nil {
			t.Fatal(err)
		}
		waitDone(t, p)
		h.Wait()
		s, ok := p.ExitStatus()
		if code == 0 {
			// A zombie that its parent has not reaped yet has an uncertain status.
			if ok && s != "exit status 0" {
				t.Errorf("exit status %q, %v", s, ok)
			}
		} else if !ok || s != "signal: terminated" {
			t.Errorf("exit status %q, %v", s, ok)
		}
	}
}

func TestExitCodeOfChild(t *testing.T) {
	h := startHelper(t, "exit 4")
	waitState(t, h.Process.Pid, "Z") // not identifiable any more: build the identity by hand
	st, err := readStat(h.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	if got := describe(st.waitStatus); got != "exit status 4" {
		t.Errorf("exit status %q", got)
	}
}

func TestStoppedIsAlive(t *testing.T) {
	h := ready(t, "wait")
	p := openPID(t, h.Process.Pid)
	if err := p.Signal(unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waitState(t, h.Process.Pid, "T")
	if isDone(p) {
		t.Fatal("a stopped process was told dead")
	}
	q, err := Open(p.Identity())
	if err != nil {
		t.Fatalf("open a stopped process: %v", err)
	}
	defer q.Close()
	if isDone(q) {
		t.Fatal("a stopped process was told dead")
	}
	// It can be killed without being continued.
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	waitDone(t, p)
	waitDone(t, q)
}

func TestOpenRefusesAnotherProcess(t *testing.T) {
	h := ready(t, "wait")
	id, err := Identify(h.Process.Pid)
	if err != nil {
		t.Fatal(err)
	}
	id.StartTime-- // as if the pid had been used before
	if _, err := Open(id); !errors.Is(err, ErrGone) {
		t.Errorf("open with another start time: %v, want ErrGone", err)
	}
	for _, pid := range []int{0, -1, math.MaxInt32} {
		if _, err := Open(Identity{PID: pid}); !errors.Is(err, ErrGone) {
			t.Errorf("open pid %d: %v, want ErrGone", pid, err)
		}
	}
}

func TestCloseEndsTheWatch(t *testing.T) {
	h := ready(t, "wait")
	before := countFDs(os.Getpid())
	for range 50 {
		p := openPID(t, h.Process.Pid)
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if err := p.Close(); err != nil {
			t.Fatal(err)
		}
		if err := p.Kill(); !errors.Is(err, os.ErrClosed) {
			t.Fatalf("kill after close: %v, want os.ErrClosed", err)
		}
		if isDone(p) {
			t.Fatal("close told a death")
		}
	}
	if after := countFDs(os.Getpid()); after > before+5 {
		t.Errorf("%d descriptors before, %d after", before, after)
	}
	if err := h.Process.Signal(syscall.Signal(0)); err != nil {
		t.Errorf("the process was harmed: %v", err)
	}
}

// BenchmarkDone measures the time from SIGKILL to the closed channel, idle and
// with every processor of this program busy.
func BenchmarkDone(b *testing.B) {
	for _, bc := range []struct {
		name string
		busy int
	}{{"idle", 0}, {"busy", 4}} {
		b.Run(bc.name, func(b *testing.B) {
			var stop atomic.Bool
			defer stop.Store(true)
			for range bc.busy {
				go func() {
					for !stop.Load() {
					}
				}()
			}
			var total, worst time.Duration
			for b.Loop() {
				h := ready(b, "wait")
				p := openPID(b, h.Process.Pid)
				began := time.Now()
				h.Process.Kill()
				<-p.Done()
				took := time.Since(began)
				total, worst = total+took, max(worst, took)
				h.Wait()
				p.Close()
			}
			b.ReportMetric(float64(total.Microseconds())/float64(b.N), "us/death")
			b.ReportMetric(float64(worst.Microseconds()), "us/worst")
		})
	}
}

func FuzzParseStat(f *testing.F) {
	raw, err := os.ReadFile("/proc/self/stat")
	if err != nil {
		f.Fatal(err)
	}
	f.Add(raw)
	f.Add([]byte("1 (a) b) S 1"))
	f.Add([]byte(")("))
	f.Fuzz(func(t *testing.T, raw []byte) {
		if s, err := parseStat(raw); err == nil && s.state == 0 {
			t.Error("no state")
		}
	})
}

func TestStopped(t *testing.T) {
	h := ready(t, "wait")
	id := openPID(t, h.Process.Pid).Identity()
	if Stopped(id) {
		t.Error("stopped before it was")
	}
	if err := unix.Kill(id.PID, unix.SIGSTOP); err != nil {
		t.Fatal(err)
	}
	waitState(t, id.PID, "T")
	if !Stopped(id) {
		t.Error("not stopped")
	}
	if Stopped(Identity{PID: id.PID, StartTime: id.StartTime + 1}) {
		t.Error("another process with the same pid counts as stopped")
	}
	if err := unix.Kill(id.PID, unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitState(t, id.PID, "RS")
	if Stopped(id) {
		t.Error("stopped after it went on")
	}
}

func TestReadSmall(t *testing.T) {
	path := filepath.Join(t.TempDir(), "file")
	for _, text := range []string{"", "a line\n", strings.Repeat("x", 1023) + "\n", strings.Repeat("x", 1024), strings.Repeat("long line\n", 1000), "no end"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if raw, err := readSmall(path); err != nil || string(raw) != text {
			t.Errorf("%d bytes became %d: %v", len(text), len(raw), err)
		}
	}
	if _, err := readSmall(path + "x"); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("a file that is not there: %v", err)
	}
	if _, err := readSmall(filepath.Dir(path)); !errors.Is(err, unix.EISDIR) {
		t.Errorf("a directory: %v", err)
	}
}
