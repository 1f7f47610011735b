package proc

import (
	"errors"
	"os"
	"os/exec"
	"runtime"
	"testing"
	"time"
)

func TestWork(t *testing.T) {
	before, err := Work(os.Getpid())
	if errors.Is(err, os.ErrNotExist) {
		t.Skipf("this kernel does not tell: %v", err)
	}
	if err != nil {
		t.Fatal(err)
	}
	runtime.LockOSThread() // which does not end meanwhile
	defer runtime.UnlockOSThread()
	for deadline := time.Now().Add(time.Minute); ; {
		now, err := Work(os.Getpid())
		if err != nil {
			t.Fatal(err)
		}
		if now.Time > before.Time+20*time.Millisecond {
			break
		}
		if !now.Runnable {
			t.Error("it is not told that this process runs")
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing but work, and %s is told", now.Time-before.Time)
		}
	}
	child := exec.Command("sleep", "600")
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	waitState(t, child.Process.Pid, "S")
	if e, err := Work(child.Process.Pid); err != nil || e.Runnable {
		t.Errorf("one that sleeps: %+v, %v", e, err)
	}
	if _, err := Work(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of nobody: %v", err)
	}
}
