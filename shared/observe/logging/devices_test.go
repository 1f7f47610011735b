package logging

import (
	"bufio"
	"fmt"
	"io"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

func pipe(t *testing.T) (r, w *os.File) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close(); w.Close() })
	return r, w
}

// blocking makes a pipe like an inherited standard error.
func blocking(t *testing.T, f *os.File) *os.File {
	t.Helper()
	raw, err := f.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	raw.Control(func(fd uintptr) { err = unix.SetNonblock(int(fd), false) })
	if err != nil {
		t.Fatal(err)
	}
	return f
}

// fill writes to a pipe until it takes no more.
func fill(t *testing.T, w *os.File) {
	t.Helper()
	raw, err := w.SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	full := false
	err = raw.Write(func(fd uintptr) bool {
		for !full {
			_, err := unix.Write(int(fd), make([]byte, 4096))
			full = err == unix.EAGAIN
			if err != nil && !full {
				t.Fatal(err)
			}
		}
		return true
	})
	if err != nil {
		t.Fatal(err)
	}
}

var lostCount = regexp.MustCompile(`log lines were lost here.* lines=(\d+) `)

// Nothing waits for a pipe without a reader. The newest lines survive, and the gap is reported
// with its size when somebody reads.
func TestStuckPipe(t *testing.T) {
	for _, mode := range []string{"blocking", "non-blocking"} {
		t.Run(mode, func(t *testing.T) {
			r, w := pipe(t)
			if mode == "blocking" {
				blocking(t, w)
			}
			l := newLogs(t, Options{Stderr: w, QueueBytes: 64 << 10})
			const total = 20000
			log := l.Logger("a")
			for i := range total { // 2 MB: more than the pipe and the queue hold
				log.Info("line", "i", i)
			}
			if l.Flush(time.Millisecond) {
				t.Fatal("flushed into a pipe that nobody reads")
			}
			dropped := l.Dropped()
			if dropped == 0 {
				t.Fatal("nothing was dropped")
			}
			log.Info("the end")
			got, lost, last := readUntil(t, r, "the end")
			flush(t, l)
			if lost != int(l.Dropped()) || lost < int(dropped) {
				t.Errorf("%d lines are reported as lost, %d were", lost, l.Dropped())
			}
			if got+lost != total+1 {
				t.Errorf("%d lines came and %d were lost, of %d", got, lost, total+1)
			}
			if want := fmt.Sprintf("i=%d", total-1); !strings.HasSuffix(last, want) {
				t.Errorf("the line before the last is %q, want %s", last, want)
			}
		})
	}
}

// readUntil reads lines up to one with a certain word. It returns how many lines there were,
// how many were reported lost, and the line before the last.
func readUntil(t *testing.T, r io.Reader, word string) (got, lost int, last string) {
	t.Helper()
	for s := bufio.NewScanner(r); s.Scan(); last = s.Text() {
		if m := lostCount.FindStringSubmatch(s.Text()); m != nil {
			n, err := strconv.Atoi(m[1])
			if err != nil {
				t.Fatal(err)
			}
			lost += n
			continue
		}
		got++
		if strings.Contains(s.Text(), word) {
			return got, lost, last
		}
	}
	t.Fatalf("the end came before %q", word)
	return
}

// A stuck output does not hold up the other one.
func TestStuckPipeBesideAFile(t *testing.T) {
	_, w := pipe(t)
	fill(t, w)
	dir := t.TempDir()
	l := newLogs(t, Options{Stderr: blocking(t, w), Directory: dir, Address: "127.0.0.1:7400", QueueBytes: 32 << 10})
	for i := range 2000 {
		l.Logger("a").Info("line", "i", i)
	}
	l.Logger("a").Info("the end")
	testkit.Eventually(t, "what was logged is written", func() bool {
		b, err := os.ReadFile(dir + "/127.0.0.1_7400.log")
		return err == nil && strings.Contains(string(b), "the end")
	})
	if err := l.Close(time.Millisecond); err == nil {
		t.Error("a stuck output closed without an error")
	}
}

func TestClosedPipe(t *testing.T) {
	r, w := pipe(t)
	l := newLogs(t, Options{Stderr: w})
	log := l.Logger("a")
	log.Info("heard")
	flush(t, l)
	r.Close()
	for range 10 {
		log.Info("unheard")
	}
	flush(t, l)
	if l.Dropped() != 10 {
		t.Errorf("%d lines dropped, want 10", l.Dropped())
	}
}

// A writer fails for a while. A report precedes the lines after it.
func TestLossIsReportedAfterAnError(t *testing.T) {
	out := &fickle{broken: true}
	l := newLogs(t, Options{Stderr: out})
	log := l.Logger("a")
	log.Info("one")
	log.Info("two")
	flush(t, l)
	out.set(false)
	log.Info("three")
	flush(t, l)
	s := out.String()
	if !strings.Contains(s, "lines=2") || !strings.Contains(s, `reason="no space left on device"`) || !strings.Contains(s, "three") || strings.Contains(s, "two") {
		t.Errorf("got\n%s", s)
	}
	out.set(true)
	log.Info("four")
	flush(t, l)
	if l.Dropped() != 3 {
		t.Errorf("%d lines dropped, want 3", l.Dropped())
	}
}

type fickle struct {
	buffer
	broken bool
}

func (f *fickle) set(broken bool) { f.mu.Lock(); f.broken = broken; f.mu.Unlock() }

func (f *fickle) Write(p []byte) (int, error) {
	f.mu.Lock()
	broken := f.broken
	f.mu.Unlock()
	if broken {
		return 0, unix.ENOSPC
	}
	return f.buffer.Write(p)
}

func TestFullDevice(t *testing.T) {
	full, err := os.OpenFile("/dev/full", os.O_WRONLY, 0)
	if err != nil {
		t.Skip(err)
	}
	defer full.Close()
	l := newLogs(t, Options{Stderr: full})
	l.Logger("a").Info("nowhere to go")
	flush(t, l)
	if l.Dropped() != 1 {
		t.Errorf("%d lines dropped, want 1", l.Dropped())
	}
}

// terminal opens a pseudo terminal. What is written to slave can be read from master.
func terminal(t *testing.T) (master, slave *os.File) {
	t.Helper()
	master, err := os.OpenFile("/dev/ptmx", os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { master.Close() })
	fd := int(master.Fd())
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		t.Skip(err)
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		t.Skip(err)
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { slave.Close() })
	return master, slave
}

func TestTerminal(t *testing.T) {
	for name, tc := range map[string]struct {
		env        map[string]string
		format     string
		wantColour bool
	}{
		"colour":   {nil, "text", true},
		"NO_COLOR": {map[string]string{"NO_COLOR": "1"}, "text", false},
		"dumb":     {map[string]string{"TERM": "dumb"}, "text", false},
		"json":     {nil, "json", false},
	} {
		t.Run(name, func(t *testing.T) {
			master, slave := terminal(t)
			dir := t.TempDir()
			l := newLogs(t, Options{Stderr: slave, Format: tc.format, Directory: dir, Address: "127.0.0.1:1",
				Getenv: func(k string) string { return tc.env[k] }})
			l.Logger("a").Error("hello")
			flush(t, l)
			line, err := bufio.NewReader(master).ReadString('\n')
			if err != nil {
				t.Fatal(err)
			}
			if got := strings.Contains(line, "\x1b["); got != tc.wantColour {
				t.Errorf("got %q", line)
			}
			file, err := os.ReadFile(dir + "/127.0.0.1_1.log")
			if err != nil || strings.Contains(string(file), "\x1b[") || !strings.Contains(string(file), "hello") {
				t.Errorf("the file has %q, %v", file, err)
			}
			// The terminal closes: writes fail with EIO from now on.
			master.Close()
			l.Logger("a").Error("unseen")
			flush(t, l)
			if l.Dropped() != 1 {
				t.Errorf("%d lines dropped, want 1", l.Dropped())
			}
		})
	}
}

func TestNoColourIntoAPipe(t *testing.T) {
	r, w := pipe(t)
	l := newLogs(t, Options{Stderr: w, Getenv: func(string) string { return "" }})
	l.Logger("a").Error("hello")
	flush(t, l)
	if line, err := bufio.NewReader(r).ReadString('\n'); err != nil || strings.Contains(line, "\x1b[") {
		t.Errorf("got %q, %v", line, err)
	}
}

const childEnv = "LOGGING_TEST_CHILD"

// child runs a process whose standard error is a pipe without a reader.
func child() {
	l, err := New(Options{Level: "info", Format: "text", Stderr: os.Stderr})
	if err != nil {
		os.Exit(3)
	}
	l.Logger("a").Info("into the void")
	if !l.Flush(patience) || l.Dropped() != 1 {
		os.Exit(4)
	}
	os.Exit(0)
}

// Go ends a process that gets EPIPE on descriptor 2. That must not happen through this package.
func TestBrokenStandardErrorDoesNotEndTheProcess(t *testing.T) {
	r, w := pipe(t)
	r.Close()
	cmd := exec.Command(os.Args[0])
	cmd.Env = append(os.Environ(), childEnv+"=1")
	cmd.Stderr = w
	if err := cmd.Run(); err != nil {
		t.Error(err)
	}
}

// Lines of up to 4096 bytes of several processes do not tear each other.
func TestLongLinesArriveWhole(t *testing.T) {
	r, w := pipe(t)
	l := newLogs(t, Options{Stderr: blocking(t, w)})
	text := strings.Repeat("x", 3*chunkBytes)
	l.Logger("a").Info(text)
	line, err := bufio.NewReader(r).ReadString('\n')
	if err != nil || !strings.Contains(line, text) {
		t.Errorf("%d bytes, %v", len(line), err)
	}
}

func BenchmarkInfo(b *testing.B) {
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		b.Fatal(err)
	}
	defer null.Close()
	l, err := New(Options{Level: "info", Format: "text", Stderr: null})
	if err != nil {
		b.Fatal(err)
	}
	defer l.Close(patience)
	log := l.Logger("a")
	b.ReportAllocs()
	for i := 0; b.Loop(); i++ {
		log.Info("line", "i", i)
	}
}
