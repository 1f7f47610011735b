package proc

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// helperSlack prints the slacks of its threads, its pid, its arguments and the slack of a
// child.
func helperSlack(string) error {
	SlackTimers()
	child := exec.Command(Executable())
	child.Env = append(os.Environ(), helperEnv+"=slackof")
	out, err := child.Output()
	if err != nil {
		return err
	}
	fmt.Println(os.Getpid(), len(os.Args), os.Getenv(slackEnv) == "", slacks(), strings.TrimSpace(string(out)))
	return untilEOF("ready")
}

// helperChosen has a slack that an operator chose before it asks for its own.
func helperChosen(string) error {
	runtime.LockOSThread()
	const chosen = 200 * time.Microsecond
	if err := unix.Prctl(unix.PR_SET_TIMERSLACK, uintptr(chosen), 0, 0, 0); err != nil {
		return err
	}
	SlackTimers()
	fmt.Println(os.Getenv(slackEnv) == "", slack())
	return untilEOF("ready")
}

// slacks returns the slacks of all threads, each value once.
func slacks() string {
	threads, err := filepath.Glob("/proc/self/task/*")
	if err != nil {
		return err.Error()
	}
	seen := map[string]bool{}
	for _, path := range threads {
		ns, err := os.ReadFile("/proc/" + filepath.Base(path) + "/timerslack_ns")
		if errors.Is(err, os.ErrPermission) {
			continue // without CAP_SYS_NICE a process sees the asking thread's only
		}
		if err != nil {
			return err.Error()
		}
		d, err := time.ParseDuration(strings.TrimSpace(string(ns)) + "ns")
		if err != nil {
			return err.Error()
		}
		seen[d.String()] = true
	}
	var all []string
	for s := range seen {
		all = append(all, s)
	}
	return strings.Join(all, "+")
}

// After SlackTimers it is the same process, and all of its threads and children have the slack.
func TestSlackTimers(t *testing.T) {
	if slack() != defaultTimerSlack {
		t.Skipf("this process has a timer slack of %v", slack())
	}
	h := startHelper(t, "slack")
	if got, want := h.line(t), fmt.Sprintf("%d 1 true 1ms 1ms", h.Process.Pid); got != want {
		t.Errorf("the process says %q, want %q", got, want)
	}
}

// A slack that an operator chose is kept.
func TestSlackTimersLeavesAnotherSlackAlone(t *testing.T) {
	if slack() != defaultTimerSlack {
		t.Skipf("this process has a timer slack of %v", slack())
	}
	h := startHelper(t, "chosen")
	if got, want := h.line(t), "true 200µs"; got != want {
		t.Errorf("the process says %q, want %q", got, want)
	}
}
