package logging

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hashicorp/go-hclog"
	"go.uber.org/goleak"
	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		child()
	}
	// lumberjack never ends the goroutine that removes old files.
	goleak.VerifyTestMain(m, goleak.IgnoreTopFunction("gopkg.in/natefinch/lumberjack%2ev2.(*Logger).millRun"))
}

// patience bounds the wait for something that must happen.
const patience = 20 * time.Second

// buffer is an output that a test can read at any time.
type buffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (b *buffer) Write(p []byte) (int, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.Write(p)
}

func (b *buffer) String() string {
	b.mu.Lock()
	defer b.mu.Unlock()
	return b.b.String()
}

func newLogs(t *testing.T, o Options) *Logs {
	t.Helper()
	if o.Level == "" {
		o.Level = "info"
	}
	if o.Format == "" {
		o.Format = "text"
	}
	l, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close(patience) })
	return l
}

func flush(t *testing.T, l *Logs) {
	t.Helper()
	if !l.Flush(patience) {
		t.Fatal("not flushed in time")
	}
}

func TestLinesCarryNameAddressAndEpoch(t *testing.T) {
	var out buffer
	l := newLogs(t, Options{Stderr: &out})
	worker := l.Logger("worker").Named("writer")
	worker.Info("first", "n", 1)
	l.SetEpoch(7)
	if err := l.SetAddress("127.0.0.1:7401"); err != nil {
		t.Fatal(err)
	}
	worker.With("slot", 3).Warn("second")
	flush(t, l)
	for _, want := range []string{
		"[INFO]  worker.writer: first: address=- epoch=0 n=1\n",
		"[WARN]  worker.writer: second: address=127.0.0.1:7401 epoch=7 slot=3\n",
	} {
		if !strings.Contains(out.String(), want) {
			t.Errorf("%q is missing in\n%s", want, out.String())
		}
	}
}

func TestLevel(t *testing.T) {
	var out buffer
	l := newLogs(t, Options{Stderr: &out, Level: "warn"})
	logger := l.Logger("a")
	logger.Info("too low")
	logger.Warn("high enough")
	if err := l.SetLevel("debug"); err != nil {
		t.Fatal(err)
	}
	logger.Debug("now high enough")
	flush(t, l)
	if s := out.String(); strings.Contains(s, "too low") || strings.Count(s, "high enough") != 2 {
		t.Errorf("got\n%s", s)
	}
}

func TestBadOptions(t *testing.T) {
	for _, o := range []Options{{Level: "loud", Format: "text"}, {Level: "", Format: "text"}, {Level: "info", Format: "xml"}, {Level: "off", Format: "json"}} {
		if _, err := New(o); !errors.Is(err, ErrOption) {
			t.Errorf("%+v: got %v", o, err)
		}
	}
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := New(Options{Level: "info", Format: "text", Directory: file, Address: "127.0.0.1:1"}); err == nil {
		t.Error("a file was taken for the log directory")
	}
}

// hostile panics in all of its methods.
type hostile struct{}

func (*hostile) Error() string                { panic("Error") }
func (*hostile) MarshalJSON() ([]byte, error) { panic("MarshalJSON") }

type hostileJSON struct{ N chan int }

func TestValues(t *testing.T) {
	var nilError *hostile
	for _, format := range []string{"text", "json"} {
		var out buffer
		l := newLogs(t, Options{Stderr: &out, Format: format})
		log := l.Logger("c")
		log.Error("message\nof two lines", "err", nilError, "@message", 5, "f", []float64{1}, "nan", zeroDivided(),
			"chan", hostileJSON{}, "bad", map[string]any{"x": &hostile{}}, "d", 1500*time.Millisecond, "odd")
		log.With("implied", &hostile{}).Info(strings.Repeat("x", 2*maxTextBytes))
		log.Info("format", "v", hclog.Format{5, 6}, "n", nil, "bytes", []byte("a\xff"))
		log.Info("last")
		flush(t, l)
		lines := strings.Split(strings.TrimSpace(out.String()), "\n")
		if last := lines[len(lines)-1]; !strings.Contains(last, "last") || strings.Contains(last, "format") {
			t.Errorf("%s: the last line is %q", format, last)
		}
		if !strings.Contains(out.String(), "d=1.5s") && !strings.Contains(out.String(), `"d":"1.5s"`) {
			t.Errorf("%s: got\n%.2000s", format, out.String())
		}
		if format == "text" {
			continue
		}
		if len(lines) != 4 {
			t.Errorf("%d lines, want 4", len(lines))
		}
		for _, line := range lines {
			var m map[string]any
			if err := json.Unmarshal([]byte(line), &m); err != nil {
				t.Errorf("%v in %.500s", err, line)
			}
			if _, ok := m["@message"].(string); !ok || m["@module"] != "c" || m["address"] != "-" || m["epoch"] != 0.0 {
				t.Errorf("got %v", m)
			}
		}
	}
}

func zeroDivided() float64 {
	var zero float64
	return zero / zero
}

func TestFiles(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	var out buffer
	l := newLogs(t, Options{Stderr: &out, Directory: dir, MaxSizeBytes: 1 << 20, MaxBackups: 2})
	log := l.Logger("a")
	log.Info("before the address is known")
	if err := l.SetAddress("127.0.0.1:7401"); err != nil {
		t.Fatal(err)
	}
	flush(t, l)
	name := filepath.Join(dir, "127.0.0.1_7401.log")
	got, err := os.ReadFile(name)
	if err != nil || !strings.Contains(string(got), "before the address is known") {
		t.Fatalf("got %q, %v", got, err)
	}
	for range 10 { // 5 MiB: more than the file and its backups may hold
		log.Info(strings.Repeat("x", 30<<10))
		for range 16 {
			log.Info(strings.Repeat("y", 30<<10))
		}
		flush(t, l)
	}
	log.Info("the newest")
	flush(t, l)
	testkit.Eventually(t, "what was logged is written", func() bool {
		files, err := filepath.Glob(filepath.Join(dir, "*"))
		return err == nil && len(files) == 3
	})
	got, err = os.ReadFile(name)
	if err != nil || len(got) > 1<<20 || !strings.Contains(string(got), "the newest") {
		t.Errorf("%d bytes, %v", len(got), err)
	}
	if l.Dropped() != 0 {
		t.Errorf("%d lines were dropped", l.Dropped())
	}
}

func TestFileName(t *testing.T) {
	for in, want := range map[string]string{"127.0.0.1:7401": "127.0.0.1_7401.log", "[::1]:7401": "__1_7401.log", "[fe80::1%a/b]:1": "fe80__1%a_b_1.log"} {
		if got := FileName(in); got != want {
			t.Errorf("%s: got %s, want %s", in, got, want)
		}
	}
}

func TestWithoutColour(t *testing.T) {
	for in, want := range map[string]string{
		"plain": "plain", "a\x1b[91m[ERROR]\x1b[0m b": "a[ERROR] b", "x\x1b[1;2m": "x", "y\x1b[": "y\x1b[", "z\x1b[2Jq": "z\x1b[2Jq",
	} {
		if got := string(withoutColour([]byte(in))); got != want {
			t.Errorf("%q: got %q, want %q", in, got, want)
		}
	}
}

func TestZap(t *testing.T) {
	var out buffer
	l := newLogs(t, Options{Stderr: &out, Level: "debug"})
	z := l.Zap("replica").Named("log")
	z.Debug("trace now")
	z.Info("debug now", zap.Int("n", 1), zap.Error(errors.New("broken")), zap.Strings("s", []string{"a"}))
	z.With(zap.String("dir", "/d"), zap.Namespace("ns")).Warn("warned", zap.Duration("took", time.Second))
	z.Error("failed")
	if err := z.Sync(); err != nil {
		t.Error(err)
	}
	flush(t, l)
	s := out.String()
	for _, want := range []string{
		"[DEBUG] replica.log: debug now: address=- epoch=0 n=1 error=broken s=[a]\n",
		"[WARN]  replica.log: warned: address=- dir=/d epoch=0 ns.took=1s\n",
		"[ERROR] replica.log: failed: address=- epoch=0\n",
	} {
		if !strings.Contains(s, want) {
			t.Errorf("%q is missing in\n%s", want, s)
		}
	}
	if strings.Contains(s, "trace now") {
		t.Errorf("zap's Debug is not Trace:\n%s", s)
	}
}

// A line that precedes a panic or a fatal error of etcd's packages is written before the
// process ends.
func TestZapPanicIsFlushed(t *testing.T) {
	var out buffer
	l := newLogs(t, Options{Stderr: &out, Level: "error"})
	func() {
		defer func() {
			if recover() == nil {
				t.Error("no panic")
			}
		}()
		l.Zap("store").Panic("failed to commit tx")
	}()
	if !strings.Contains(out.String(), "[ERROR] store: failed to commit tx") {
		t.Errorf("got %q", out.String())
	}
}

func TestConcurrentUse(t *testing.T) {
	var out buffer
	l := newLogs(t, Options{Stderr: &out, Directory: t.TempDir(), Level: "debug"})
	var wg sync.WaitGroup
	for g := range 8 {
		wg.Go(func() {
			log := l.Logger(fmt.Sprint("g", g)).With("g", g)
			for i := range 200 {
				log.Info("line", "i", i)
				l.SetEpoch(uint64(i))
			}
		})
	}
	if err := l.SetAddress("127.0.0.1:7402"); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	flush(t, l)
	if n := strings.Count(out.String(), "\n"); n != 1600 || l.Dropped() != 0 {
		t.Errorf("%d lines, %d dropped", n, l.Dropped())
	}
}
