package proc

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

const reapedBytes = 64 << 20

// helperReaped has memory, a lock and a reaper, and prints the reaper's pid.
func helperReaped(path string) error {
	memory, err := unix.Mmap(-1, 0, reapedBytes, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_POPULATE)
	if err != nil {
		return err
	}
	defer func() { _ = unix.Munmap(memory) }()
	if _, err := TryLock(path); err != nil {
		return err
	}
	p, err := StartReaper()
	if errors.Is(err, ErrNoReaper) {
		return untilEOF("none")
	}
	if err != nil {
		return err
	}
	return untilEOF(strconv.Itoa(p.Identity().PID))
}

func startReaped(t *testing.T, lock string) (*helper, *Process) {
	t.Helper()
	h := startHelper(t, "reaped "+lock)
	said := h.line(t)
	if said == "none" {
		t.Skip(ErrNoReaper)
	}
	pid, err := strconv.Atoi(said)
	if err != nil {
		t.Fatalf("the helper said %q", said)
	}
	return h, openPID(t, pid)
}

func status(t *testing.T, pid int, field string) string {
	t.Helper()
	raw, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err != nil {
		t.Fatal(err)
	}
	m := regexp.MustCompile(`(?m)^` + field + `:\s+(\S+)`).FindSubmatch(raw)
	if m == nil {
		t.Fatalf("no %s in %s", field, raw)
	}
	return string(m[1])
}

// TestDeathDoesNotWaitForMemory: a process with a reaper is dead and its lock is free while its
// memory still exists.
func TestDeathDoesNotWaitForMemory(t *testing.T) {
	lock := filepath.Join(t.TempDir(), "lock")
	h, reaper := startReaped(t, lock)
	pid := reaper.Identity().PID
	if err := reaper.Signal(unix.SIGSTOP); err != nil { // its part has to wait
		t.Fatal(err)
	}
	waitState(t, pid, "T")
	died := openPID(t, h.Process.Pid)
	if err := died.Kill(); err != nil {
		t.Fatal(err)
	}
	waitDone(t, died)
	l, err := TryLock(lock)
	if err != nil {
		t.Fatalf("the lock of a dead process: %v", err)
	}
	defer l.Unlock()
	if kib, err := strconv.Atoi(status(t, pid, "VmRSS")); err != nil || kib < reapedBytes>>10 {
		t.Errorf("the memory of the dead process is %d KiB (error %v), want its %d", kib, err, reapedBytes>>10)
	}
	if err := reaper.Signal(unix.SIGCONT); err != nil {
		t.Fatal(err)
	}
	waitDone(t, reaper)
}

// TestReaperHoldsNothing: the reaper has no file except its pidfd, and ignores signals.
func TestReaperHoldsNothing(t *testing.T) {
	h, reaper := startReaped(t, filepath.Join(t.TempDir(), "lock"))
	pid := reaper.Identity().PID
	if !IsReaper(pid) || IsReaper(h.Process.Pid) {
		t.Errorf("IsReaper: %v for the reaper, %v for its process", IsReaper(pid), IsReaper(h.Process.Pid))
	}
	files, err := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", pid))
	if err != nil || len(files) != 1 {
		t.Fatalf("its files: %v, error %v", files, err)
	}
	if what, err := os.Readlink(files[0]); err != nil || what != "anon_inode:[pidfd]" {
		t.Errorf("its file is %q, error %v", what, err)
	}
	for _, sig := range []unix.Signal{unix.SIGINT, unix.SIGTERM, unix.SIGHUP, unix.SIGUSR1} {
		if err := reaper.Signal(sig); err != nil {
			t.Fatal(err)
		}
	}
	const all = 1<<(unix.SIGINT-1) | 1<<(unix.SIGTERM-1) | 1<<(unix.SIGHUP-1) | 1<<(unix.SIGUSR1-1)
	if pending, err := strconv.ParseUint(status(t, pid, "ShdPnd"), 16, 64); err != nil || pending&all != all {
		t.Errorf("signals that wait: %x (error %v), want all of %x", pending, err, uint64(all))
	}
	h.in.Close() // an orderly end
	waitDone(t, reaper)
}

// TestAnotherReaper: a process whose reaper was ended goes on, and can start another one.
func TestAnotherReaper(t *testing.T) {
	for range 3 {
		p, err := StartReaper()
		if errors.Is(err, ErrNoReaper) {
			t.Skip(err)
		}
		if err != nil {
			t.Fatal(err)
		}
		if got := status(t, p.Identity().PID, "PPid"); got != strconv.Itoa(os.Getpid()) {
			t.Errorf("it is a child of %s", got)
		}
		if err := p.Kill(); err != nil {
			t.Fatal(err)
		}
		waitDone(t, p)
		if err := Bury(p); err != nil {
			t.Fatal(err)
		}
		if _, err := os.Stat(fmt.Sprintf("/proc/%d", p.Identity().PID)); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("the reaper that was ended is still there: %v", err)
		}
	}
}
