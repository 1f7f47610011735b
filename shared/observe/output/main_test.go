package output

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
	"golang.org/x/sys/unix"
)

// keeperVariable makes the test binary a Keeper of the file that it names, to be killed.
const keeperVariable = "OUTPUT_TEST_KEEPER"

func TestMain(m *testing.M) {
	if path := os.Getenv(keeperVariable); path != "" {
		fmt.Fprintln(os.Stderr, keep(path))
		os.Exit(1)
	}
	goleak.VerifyTestMain(m)
}

// testLimits make every few calls of Tend rotate, and keep everything.
var testLimits = Limits{MaxBytes: 16 << 10, MaxBackups: 1 << 20}

func keep(path string) error {
	k, err := NewKeeper(path, testLimits)
	if err != nil {
		return err
	}
	fmt.Println("keeping")
	for {
		if _, err := k.Tend(time.Now()); err != nil {
			return err
		}
	}
}

// startKeeper starts another process as the Keeper.
func startKeeper(t *testing.T, path string) (kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), keeperVariable+"="+path)
	cmd.Stderr = os.Stderr
	out, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	if line, err := bufio.NewReader(out).ReadString('\n'); err != nil {
		t.Fatalf("the keeper said %q: %v", line, err)
	}
	return func() {
		if err := cmd.Process.Kill(); err != nil {
			t.Error(err)
		}
		_ = cmd.Wait() // it was killed
	}
}

// writer appends numbered lines of different lengths, as a program does.
type writer struct {
	t *testing.T
	f *os.File
	n int
}

func newWriter(t *testing.T, path string) *writer {
	t.Helper()
	f, err := Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	return &writer{t: t, f: f}
}

func numbered(n int) string { return fmt.Sprintf("line %d %s", n, strings.Repeat("x", n%97)) }

func (w *writer) write(lines int) {
	for range lines {
		if _, err := w.f.WriteString(numbered(w.n) + "\n"); err != nil {
			w.t.Error(err)
			return
		}
		w.n++
	}
}

// checker takes lines and fails if they are not numbered without a gap.
type checker struct{ n int }

func (c *checker) take(l Line) error {
	if want := numbered(c.n); l.Text != want || l.Gap || l.Partial {
		return fmt.Errorf("read %q (position %d, gap %v, partial %v) instead of %q", l.Text, l.Position, l.Gap, l.Partial, want)
	}
	c.n++
	return nil
}

// check reads everything and compares it with what was written.
func check(t *testing.T, path string, lines int) {
	t.Helper()
	r := NewReader(path)
	defer r.Close()
	var c checker
	if err := r.Read(t.Context(), c.take); err != nil {
		t.Fatalf("after %d of %d lines: %v", c.n, lines, err)
	}
	if c.n != lines {
		t.Fatalf("read %d lines instead of %d", c.n, lines)
	}
}

func newTestKeeper(t *testing.T, path string, limits Limits) *Keeper {
	t.Helper()
	k, err := NewKeeper(path, limits)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func tend(t *testing.T, k *Keeper) Tended {
	t.Helper()
	got, err := k.Tend(time.Now())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

// random prints its seed, which OUTPUT_TEST_SEED repeats.
func random(t *testing.T) *rand.Rand {
	t.Helper()
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv("OUTPUT_TEST_SEED"); s != "" {
		var err error
		if seed, err = strconv.ParseUint(s, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	t.Logf("OUTPUT_TEST_SEED=%d", seed)
	return rand.New(rand.NewPCG(seed, 0))
}

// onEach runs a test on the file system of the temporary directory and on a tmpfs.
func onEach(t *testing.T, test func(t *testing.T, path string)) {
	t.Run("temporary directory", func(t *testing.T) { test(t, filepath.Join(t.TempDir(), "output.log")) })
	t.Run("tmpfs", func(t *testing.T) { test(t, filepath.Join(mountTmpfs(t, "256m"), "output.log")) })
}

func mountTmpfs(t *testing.T, size string) string {
	t.Helper()
	dir := t.TempDir()
	if err := unix.Mount("tmpfs", dir, "tmpfs", 0, "size="+size); err != nil {
		t.Skipf("a tmpfs cannot be mounted here: %v", err)
	}
	t.Cleanup(func() {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err != nil {
			t.Error(err)
		}
	})
	return dir
}

// followAll follows the output in a goroutine until the returned function is called with
// the number of lines to wait for.
func followAll(t *testing.T, path string) (wait func(lines int)) {
	t.Helper()
	ctx, cancel := context.WithCancel(context.Background())
	t.Cleanup(cancel)
	var c checker
	want := make(chan int, 1)
	done := make(chan error, 1)
	go func() {
		r := NewReader(path)
		defer r.Close()
		goal := -1
		for {
			select {
			case goal = <-want:
			default:
			}
			if c.n == goal {
				done <- nil
				return
			}
			l, err := r.Next(ctx)
			if errors.Is(err, io.EOF) || errors.Is(err, os.ErrNotExist) {
				pause(ctx)
				continue
			}
			if err == nil {
				err = c.take(l)
			}
			if err != nil {
				done <- fmt.Errorf("following, after %d lines: %w", c.n, err)
				return
			}
		}
	}()
	return func(lines int) {
		t.Helper()
		want <- lines
		select {
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
		case <-time.After(time.Minute):
			t.Fatal("the follower has not got all lines after a minute")
		}
	}
}

func pause(ctx context.Context) { wait(ctx, time.Millisecond) }
