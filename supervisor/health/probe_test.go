package health

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"google.golang.org/grpc"
	grpchealth "google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/prove/testkit"
)

const (
	// long is the timeout of a check that must not reach it, and short that of one that must.
	long  = time.Minute
	short = 50 * time.Millisecond
)

// refuses fails the test unless an attempt fails with a text. The text may contain * for a part
// that differs.
func refuses(t *testing.T, c config.Check, target Target, want string) {
	t.Helper()
	err := Probe(t.Context(), c, target)
	if err == nil {
		t.Errorf("%v: succeeded, want %q", c, want)
		return
	}
	if ok, _ := filepath.Match(strings.ReplaceAll(want, "/", "|"), strings.ReplaceAll(err.Error(), "/", "|")); !ok {
		t.Errorf("%v:\n got %q\nwant %q", c, err, want)
	}
}

func accepts(t *testing.T, c config.Check, target Target) {
	t.Helper()
	if err := Probe(t.Context(), c, target); err != nil {
		t.Errorf("%v: %v", c, err)
	}
}

// closedPort returns an address where nobody listens.
func closedPort(t *testing.T) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().String()
}

// silent returns the address of a listener that accepts and never answers.
func silent(t *testing.T) string {
	t.Helper()
	l, _ := testkit.TCPFile(t)
	return l.Addr().String()
}

func TestHTTP(t *testing.T) {
	unlimited := make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/status/{code}", func(w http.ResponseWriter, r *http.Request) {
		code, _ := strconv.Atoi(r.PathValue("code"))
		w.WriteHeader(code)
	})
	mux.HandleFunc("/redirect", func(w http.ResponseWriter, r *http.Request) {
		http.Redirect(w, r, "http://"+closedPort(t)+"/", http.StatusFound)
	})
	mux.HandleFunc("/endless", func(w http.ResponseWriter, _ *http.Request) {
		defer close(unlimited)
		for {
			if _, err := w.Write(make([]byte, 4096)); err != nil {
				return
			}
		}
	})
	mux.HandleFunc("/hangs", func(w http.ResponseWriter, r *http.Request) {
		fmt.Fprint(w, "o")
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	})
	s := httptest.NewServer(mux)
	defer s.Close()
	get := func(path string, timeout time.Duration) config.Check {
		return config.Check{Kind: config.CheckHTTP, Target: s.URL + path, Timeout: timeout}
	}
	for _, path := range []string{"/status/200", "/status/204", "/status/304", "/redirect", "/endless"} {
		accepts(t, get(path, long), Target{})
	}
	<-unlimited // the body was not read to its end
	refuses(t, get("/status/503", long), Target{}, "GET "+s.URL+"/status/503: 503 Service Unavailable")
	refuses(t, get("/status/404", long), Target{}, "GET "+s.URL+"/status/404: 404 Not Found")
	refuses(t, get("/hangs", short), Target{}, "GET "+s.URL+"/hangs: no answer within 50ms")

	closed := closedPort(t)
	refuses(t, config.Check{Kind: config.CheckHTTP, Target: "http://me:secret@" + closed + "/", Timeout: long}, Target{},
		"GET http://me:xxxxx@"+closed+"/: dial tcp "+closed+": connect: connection refused")
	refuses(t, config.Check{Kind: config.CheckHTTP, Target: "http://" + silent(t), Timeout: short}, Target{}, "GET http://*: no answer within 50ms")
	refuses(t, config.Check{Kind: config.CheckHTTP, Target: "http://%zz", Timeout: long}, Target{}, "GET (unreadable URL): invalid URL escape \"%zz\"")
}

// A certificate that cannot be verified is a failure with a reason.
func TestHTTPSVerifiesTheCertificate(t *testing.T) {
	s := httptest.NewUnstartedServer(http.NotFoundHandler())
	s.TLS = &tls.Config{MinVersion: tls.VersionTLS13}
	s.Config.ErrorLog = nil
	s.StartTLS()
	defer s.Close()
	refuses(t, config.Check{Kind: config.CheckHTTP, Target: s.URL, Timeout: long}, Target{}, "GET https://*: tls: failed to verify certificate: *")
}

func TestTCP(t *testing.T) {
	accepts(t, config.Check{Kind: config.CheckTCP, Target: silent(t), Timeout: long}, Target{})
	closed := closedPort(t)
	refuses(t, config.Check{Kind: config.CheckTCP, Target: closed, Timeout: long}, Target{}, "tcp "+closed+": connect: connection refused")
}

func TestGRPC(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	h := grpchealth.NewServer()
	s := grpc.NewServer()
	healthpb.RegisterHealthServer(s, h)
	served := make(chan struct{})
	go func() { defer close(served); _ = s.Serve(l) }()
	defer func() { s.Stop(); <-served }()
	check := config.Check{Kind: config.CheckGRPC, Target: l.Addr().String(), Timeout: long}
	accepts(t, check, Target{})
	h.SetServingStatus("", healthpb.HealthCheckResponse_NOT_SERVING)
	refuses(t, check, Target{}, "grpc "+check.Target+": NOT_SERVING")
	check.Target = closedPort(t)
	refuses(t, check, Target{}, "grpc "+check.Target+": Unavailable: *connection refused*")
	check.Target, check.Timeout = silent(t), short
	refuses(t, check, Target{}, "grpc "+check.Target+": no answer within 50ms")
}

func TestKindWithoutAttempts(t *testing.T) {
	refuses(t, config.Check{Kind: config.CheckNotify, Timeout: long}, Target{}, `a check of the kind "notify" makes no attempts`)
	refuses(t, config.Check{Kind: config.CheckExec, Timeout: long}, Target{}, "the command of the check is empty")
}

func shell(script string, timeout time.Duration) config.Check {
	return config.Check{Kind: config.CheckExec, Command: []string{"sh", "-c", script}, Timeout: timeout}
}

func TestExec(t *testing.T) {
	dir := t.TempDir()
	target := Target{Env: []string{"PATH=" + os.Getenv("PATH"), "COLOR=red"}, Dir: dir}
	accepts(t, shell(`test "$COLOR" = red && test "$PWD" = "`+dir+`" && test -z "$HOME"`, long), target)
	refuses(t, shell("exit 3", long), target, "sh: exit status 3")
	refuses(t, shell("echo one; echo 'disk is full' >&2; echo; exit 1", long), target, "sh: exit status 1: disk is full")
	refuses(t, shell("kill -9 $$", long), target, "sh: signal: killed")
	refuses(t, shell("i=0; while [ $i -lt 3000 ]; do echo 0123456789012345678901234567890123456789; i=$((i+1)); done; printf '\\033[1mend'; exit 1", long), target,
		"sh: exit status 1: [[]1mend")

	// The command is found in the program's PATH, not in that of dynast, and in its directory.
	script := filepath.Join(dir, "ask")
	if err := os.WriteFile(script, []byte("#!/bin/sh\nexit 7\n"), 0o755); err != nil {
		t.Fatal(err)
	}
	ask := config.Check{Kind: config.CheckExec, Command: []string{"ask"}, Timeout: long}
	refuses(t, ask, Target{Env: []string{"PATH=" + dir}}, "ask: exit status 7")
	refuses(t, ask, Target{Env: []string{"PATH=."}, Dir: dir}, "ask: exit status 7")
	refuses(t, ask, target, "ask: not found in PATH (*): file does not exist")
	ask.Command[0] = "./ask"
	refuses(t, ask, target, "./ask: exit status 7")
	refuses(t, ask, Target{Dir: dir + "/none"}, "./ask: working directory: stat *none: no such file or directory")
	ask.Command[0] = dir
	refuses(t, ask, target, dir+": cannot start: permission denied")
}

// gone waits until the processes whose pids stand in a file have ended. A killed orphan stays a
// zombie as long as nobody reaps it.
func gone(t *testing.T, path string) {
	t.Helper()
	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	pids := strings.Fields(string(raw))
	if len(pids) != 2 {
		t.Fatalf("pids %q", pids)
	}
	for _, pid := range pids {
		testkit.Eventually(t, "the end of process "+pid, func() bool {
			stat, err := os.ReadFile("/proc/" + pid + "/stat")
			return errors.Is(err, os.ErrNotExist) || errors.Is(err, syscall.ESRCH) || strings.Contains(string(stat), ") Z ")
		})
	}
}

func TestExecIsKilledWithItsGroup(t *testing.T) {
	target := Target{Env: os.Environ(), Dir: t.TempDir()}
	file := filepath.Join(target.Dir, "pids")
	const script = "sleep 1000 & echo $! $$ >part; mv part pids; echo 'still asking'; wait"
	t.Run("timeout", func(t *testing.T) {
		// The command may need longer than one timeout until it has written its pids.
		for timeout := short; ; timeout *= 2 {
			refuses(t, shell(script, timeout), target, "sh: killed at the timeout*")
			if _, err := os.Stat(file); err == nil {
				break
			}
		}
		gone(t, file)
	})
	t.Run("cancelled", func(t *testing.T) {
		if err := os.Remove(file); err != nil {
			t.Fatal(err)
		}
		ctx, cancel := context.WithCancel(t.Context())
		result := make(chan error)
		go func() { result <- Probe(ctx, shell(script, long), target) }()
		testkit.Eventually(t, "the command to run", func() bool { _, err := os.Stat(file); return err == nil })
		cancel()
		if err := <-result; !errors.Is(err, context.Canceled) {
			t.Error(err)
		}
		gone(t, file)
	})
}

// A process that the command leaves behind keeps the output open. It delays nothing.
func TestExecDoesNotWaitForInheritedOutput(t *testing.T) {
	target := Target{Env: os.Environ(), Dir: t.TempDir()}
	// The child lives until the test writes to the fifo, so an attempt that waits for it never ends.
	fifo := filepath.Join(target.Dir, "fifo")
	if err := syscall.Mkfifo(fifo, 0o600); err != nil {
		t.Fatal(err)
	}
	hold, err := os.OpenFile(fifo, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer hold.Close()
	defer func() { _, _ = io.WriteString(hold, "end\n") }()
	accepts(t, shell("read x <fifo & exit 0", long), target)
}
