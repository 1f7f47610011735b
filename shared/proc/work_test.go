package proc

import (
	"errors"
	"os"
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
		if now > before+20*time.Millisecond {
			break
		}
		if time.Now().After(deadline) {
			t.Fatalf("nothing but work, and %s is told", now-before)
		}
	}
	if _, err := Work(1 << 30); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("of nobody: %v", err)
	}
}
