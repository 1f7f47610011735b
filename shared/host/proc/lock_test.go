package proc

import (
	"errors"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"
)

func TestLockExcludesAndUnlocks(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	l, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TryLock(path); !errors.Is(err, ErrLocked) {
		t.Fatalf("second lock: %v, want ErrLocked", err)
	} else if !strings.Contains(err.Error(), "pid "+strconv.Itoa(os.Getpid())) {
		t.Errorf("error does not name the owner: %v", err)
	}
	if err := l.Check(); err != nil {
		t.Error(err)
	}
	o, err := ReadOwner(path)
	if err != nil || o.Identity != Self() {
		t.Errorf("owner %v, %v; want %v", o, err, Self())
	}
	if err := errors.Join(l.Unlock(), l.Unlock()); err != nil {
		t.Fatal(err)
	}
	if _, err := os.Stat(path); err != nil {
		t.Errorf("unlock removed the file: %v", err)
	}
	l, err = TryLock(path)
	if err != nil {
		t.Fatalf("lock after unlock: %v", err)
	}
	l.Unlock()
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", info.Mode(), err)
	}
}

func TestLockIsFreedByTheKernel(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	h := ready(t, "lock "+path)
	p := openPID(t, h.Process.Pid)
	_, err := TryLock(path)
	if !errors.Is(err, ErrLocked) || !strings.Contains(err.Error(), strconv.Itoa(h.Process.Pid)) {
		t.Fatalf("lock held by pid %d: %v", h.Process.Pid, err)
	}
	if o, err := ReadOwner(path); err != nil || o.Identity != p.Identity() {
		t.Fatalf("owner %v, %v; want %v", o, err, p.Identity())
	}
	if err := p.Kill(); err != nil {
		t.Fatal(err)
	}
	waitDone(t, p)
	// The process is not reaped, but its lock is free, at once because it forks nothing.
	l, err := TryLock(path)
	if err != nil {
		t.Fatalf("lock of a dead owner: %v", err)
	}
	l.Unlock()
}

func TestLockSurvivesTheGarbageCollector(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	if _, err := TryLock(path); err != nil {
		t.Fatal(err)
	}
	for range 3 {
		runtime.GC()
	}
	if _, err := TryLock(path); !errors.Is(err, ErrLocked) {
		t.Fatalf("a dropped lock: %v, want ErrLocked", err)
	}
}

func TestLockOfAReplacedFile(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	l, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	defer l.Unlock()
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	if err := l.Check(); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("check of a removed file: %v", err)
	}
	m, err := TryLock(path)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Unlock()
	if err := l.Check(); err == nil {
		t.Error("check of a replaced file: no error")
	}
}

func TestReadOwnerOfNonsense(t *testing.T) {
	path := filepath.Join(t.TempDir(), "l")
	if _, err := ReadOwner(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("missing file: %v", err)
	}
	for _, raw := range []string{"", "x", "1\n\n\n", "a b\nc\nd\n"} {
		if err := os.WriteFile(path, []byte(raw), 0o600); err != nil {
			t.Fatal(err)
		}
		if o, err := ReadOwner(path); err == nil {
			t.Errorf("%q: owner %v", raw, o)
		}
	}
}

func BenchmarkTryLock(b *testing.B) {
	path := filepath.Join(b.TempDir(), "l")
	var spent time.Duration
	for b.Loop() {
		began := time.Now()
		l, err := TryLock(path)
		spent += time.Since(began)
		if err != nil {
			b.Fatal(err)
		}
		l.Unlock()
	}
	b.ReportMetric(float64(spent.Nanoseconds())/float64(b.N), "ns/lock")
}
