package process

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
)

// helperEnv tells a process that a test started what to do: to exit with a status, or to
// wait until its standard input ends.
const helperEnv = "DYNAST_PROCESS_TEST"

func TestMain(m *testing.M) {
	if mode := os.Getenv(helperEnv); mode != "" {
		if code, err := strconv.Atoi(mode); err == nil {
			os.Exit(code)
		}
		if role, arg, _ := strings.Cut(mode, " "); roles[role] != nil {
			roles[role](arg)
			os.Exit(0)
		}
		_, _ = os.Stdout.WriteString("ready")
		_, _ = io.Copy(io.Discard, os.Stdin)
		os.Exit(0)
	}
	// Stands for a descriptor that this process inherited from a shell. No program may get it.
	if _, err := unix.Dup(int(os.Stdin.Fd())); err != nil {
		panic(err)
	}
	goleak.VerifyTestMain(m)
}

// child returns a Child that acts as mode says, and the write end of its standard input.
func child(t *testing.T, mode string) *Child {
	t.Helper()
	in, keep, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	c := NewChild(Command{Path: proc.Executable(), Argv: []string{"helper"}, Env: append(Environment(helperEnv), helperEnv+"="+mode), Stdin: in, Stderr: os.Stderr})
	t.Cleanup(func() { keep.Close(); c.End(); in.Close() })
	return c
}

func start(t *testing.T, mode string) *Child {
	t.Helper()
	c := child(t, mode)
	if err := c.Start(); err != nil {
		t.Fatal(err)
	}
	return c
}

func TestExitStatusOfAChild(t *testing.T) {
	for mode, want := range map[string]bool{"0": true, "3": false} {
		c := start(t, mode)
		if err := c.Wait(); (err == nil) != want {
			t.Errorf("exit status %s: %v", mode, err)
		}
		if code := c.End(); strconv.Itoa(code) != mode {
			t.Errorf("exit status %s: End returned %d", mode, code)
		}
	}
	if code := start(t, "wait").End(); code != -1 {
		t.Errorf("a killed process ended with status %d", code)
	}
}

func TestKilledChildDoesNotStart(t *testing.T) {
	c := child(t, "wait")
	if err := c.Kill(); err != nil {
		t.Fatal(err)
	}
	if err := c.Start(); !errors.Is(err, errKilled) || c.PID() != 0 {
		t.Errorf("started anyway, pid %d: %v", c.PID(), err)
	}
	if code := c.End(); code != -1 {
		t.Errorf("a process that never ran: End returned %d", code)
	}
	c = child(t, "wait")
	c.Command.Path = "/nonexistent/program"
	if err := c.Start(); err == nil || !strings.Contains(err.Error(), c.Command.Path) {
		t.Errorf("started a program that does not exist: %v", err)
	}
}

func TestAdopt(t *testing.T) {
	c := start(t, "wait")
	if _, err := io.ReadFull(c.Stdout(), make([]byte, len("ready"))); err != nil {
		t.Fatal(err)
	}
	id, err := proc.Identify(c.PID())
	if err != nil {
		t.Fatal(err)
	}
	a, err := Adopt(id)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	if err := a.Wait(ctx); !errors.Is(err, context.Canceled) {
		t.Errorf("a living process: %v", err)
	}
	if err := a.Kill(); err != nil {
		t.Fatal(err)
	}
	ctx, cancel = context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	go c.Wait()
	if err := a.Wait(ctx); err != nil {
		t.Errorf("wait: %v", err)
	}
	if _, err := Adopt(id); !errors.Is(err, proc.ErrGone) {
		t.Errorf("adopted a dead process: %v", err)
	}
}

func TestEnvironment(t *testing.T) {
	t.Setenv("DYNAST_A", "1")
	t.Setenv("DYNAST_AB", "2")
	env := Environment("DYNAST_A")
	if slices.Contains(env, "DYNAST_A=1") || !slices.Contains(env, "DYNAST_AB=2") {
		t.Errorf("without DYNAST_A: %q", env)
	}
}
