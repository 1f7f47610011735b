package proc

import (
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// The lock is held by whoever has the descriptor, and closing one copy does not free it.
func TestInstanceLockIsPassedOn(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	f, err := TakeInstanceLock(path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := TakeInstanceLock(path); !errors.Is(err, ErrLocked) {
		t.Fatalf("taken twice: %v", err)
	}
	if holders, err := LockHolders(path); err != nil || len(holders) != 0 {
		t.Errorf("holders other than this process: %v, %v", holders, err)
	}
	h := startHelper(t, "wait", f)
	h.line(t)
	f.Close()
	if _, err := TakeInstanceLock(path); !errors.Is(err, ErrLocked) {
		t.Errorf("while a child holds it: %v", err)
	}
	holders, err := LockHolders(path)
	if err != nil || len(holders) != 1 || holders[0].PID != h.Process.Pid || holders[0].CloseOnExec {
		t.Errorf("holders: %v, %v; want only %d", holders, err, h.Process.Pid)
	}
	h.Process.Kill()
	h.Wait()
	if f, err = TakeInstanceLock(path); err != nil {
		t.Fatalf("after the child's death: %v", err)
	}
	f.Close()
	if info, err := os.Stat(path); err != nil || info.Mode() != 0o600 {
		t.Errorf("%v, %v", info, err)
	}
}

func TestInstanceLockIsNoLink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "lock")
	if err := os.Symlink("elsewhere", path); err != nil {
		t.Fatal(err)
	}
	if f, err := TakeInstanceLock(path); err == nil {
		f.Close()
		t.Error("followed a symbolic link")
	}
	if _, err := LockHolders(path); err == nil {
		t.Error("holders of a file that does not exist")
	}
}

// A file of the same name in another directory is another file.
func TestLockHoldersComparesFiles(t *testing.T) {
	a, b := filepath.Join(t.TempDir(), "lock"), filepath.Join(t.TempDir(), "lock")
	f, err := TakeInstanceLock(a)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := os.WriteFile(b, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	h := startHelper(t, "wait", f)
	h.line(t)
	if holders, err := LockHolders(b); err != nil || len(holders) != 0 {
		t.Errorf("holders: %v, %v", holders, err)
	}
	// A process that only reads the file, such as a backup, holds no lock.
	ready(t, "open "+b)
	if holders, err := LockHolders(b); err != nil || len(holders) != 0 {
		t.Errorf("holders: %v, %v", holders, err)
	}
	h = ready(t, "lock "+b) // with the close-on-exec flag
	holders, err := LockHolders(b)
	if err != nil || len(holders) != 1 || holders[0].PID != h.Process.Pid || !holders[0].CloseOnExec {
		t.Errorf("holders: %v, %v; want only %d", holders, err, h.Process.Pid)
	}
}

func TestWithEnvironment(t *testing.T) {
	token := filepath.Base(t.TempDir()) + t.Name()
	long := strings.Repeat("x\n", 40<<10) // several reads, with newlines at their ends
	t.Setenv("A_LONG_VARIABLE", long)
	t.Setenv("Z_TOKEN", token)
	h := ready(t, "wait")
	found, err := WithEnvironment("Z_TOKEN", token)
	if err != nil || len(found) != 1 || found[0].PID != h.Process.Pid {
		t.Errorf("found %v, %v; want only %d", found, err, h.Process.Pid)
	}
	for _, other := range []string{token[1:], token[:len(token)-1], token + "x"} {
		if found, err := WithEnvironment("Z_TOKEN", other); err != nil || len(found) != 0 {
			t.Errorf("%q: found %v, %v", other, found, err)
		}
	}
	if found, err := WithEnvironment("TOKEN", token); err != nil || len(found) != 0 {
		t.Errorf("the end of a name: found %v, %v", found, err)
	}
}

func TestList(t *testing.T) {
	h := ready(t, "wait")
	entries, err := List()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(entries, func(e Entry) bool { return e.PID == h.Process.Pid })
	if i < 0 {
		t.Fatal("the child is not listed")
	}
	session, err := unix.Getsid(0)
	if err != nil {
		t.Fatal(err)
	}
	want := Entry{Identity: openPID(t, h.Process.Pid).Identity(), PPID: os.Getpid(), Group: unix.Getpgrp(), Session: session}
	if entries[i] != want {
		t.Errorf("got %+v, want %+v", entries[i], want)
	}
	if !Exists(want.Identity) || Exists(Identity{PID: want.PID, StartTime: want.StartTime + 1}) {
		t.Error("Exists is wrong about a living process")
	}
	h.Process.Kill()
	want.Dead = true
	testkit.Eventually(t, "the child is dead", func() bool {
		entries, err := List()
		return err == nil && slices.Contains(entries, want)
	})
	if !Exists(want.Identity) {
		t.Error("a process that nobody has reaped does not exist")
	}
	h.Wait()
	if Exists(want.Identity) {
		t.Error("a reaped process exists")
	}
}

func BenchmarkLockHolders(b *testing.B) { benchmarkScan(b, LockHolders) }

func BenchmarkWithEnvironment(b *testing.B) {
	benchmarkScan(b, func(path string) ([]Holder, error) {
		_, err := WithEnvironment("DYNAST_INSTANCE_TOKEN", path)
		return nil, err
	})
}

func BenchmarkList(b *testing.B) {
	benchmarkScan(b, func(string) ([]Holder, error) { _, err := List(); return nil, err })
}

// benchmarkScan measures a search among 100 processes more than the host has.
func benchmarkScan(b *testing.B, scan func(string) ([]Holder, error)) {
	path := filepath.Join(b.TempDir(), "lock")
	f, err := TakeInstanceLock(path)
	if err != nil {
		b.Fatal(err)
	}
	defer f.Close()
	for range 100 {
		startHelper(b, "wait").line(b)
	}
	pids, err := listPIDs()
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if _, err := scan(path); err != nil {
			b.Fatal(err)
		}
	}
	b.ReportMetric(float64(len(pids)), "processes")
}
