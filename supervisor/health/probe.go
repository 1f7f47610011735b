package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/config"
)

// Target is the program that a check asks.
type Target struct {
	// Env and Dir are those of the program. An exec check gets them too.
	Env []string
	Dir string
	// Credential is the user of the program, or nil.
	Credential *syscall.Credential
}

// maxBodyBytes is how much of a response is read. The content does not matter.
const maxBodyBytes = 64 << 10

// Probe makes one attempt of a check. A nil error is a success. The error says what happened, for
// an operator. The caller bounds the time with ctx.
func Probe(ctx context.Context, c config.Check, t Target) error {
	var err error
	switch c.Kind {
	case config.CheckHTTP:
		err = probeHTTP(ctx, c.Target)
	case config.CheckTCP:
		err = probeTCP(ctx, c.Target)
	case config.CheckGRPC:
		err = probeGRPC(ctx, c.Target)
	case config.CheckExec:
		err = probeExec(ctx, c.Command, t)
	default:
		return fmt.Errorf("a check of the kind %q makes no attempts", c.Kind)
	}
	if err != nil && errors.Is(ctx.Err(), context.DeadlineExceeded) {
		return fmt.Errorf("%s: no answer within %s", what(c), c.Timeout)
	}
	return err
}

func what(c config.Check) string {
	if c.Kind == config.CheckExec {
		return c.Command[0]
	}
	return string(c.Kind) + " " + c.Target
}

// client makes a new connection for each attempt, so that a check sees what a new client sees.
// A redirect is an answer.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, Proxy: nil},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func probeHTTP(ctx context.Context, url string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer resp.Body.Close()
	_, _ = io.Copy(io.Discard, io.LimitReader(resp.Body, maxBodyBytes))
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return fmt.Errorf("GET %s: %s", url, resp.Status)
	}
	return nil
}

func probeTCP(ctx context.Context, address string) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err != nil {
		return err
	}
	return c.Close()
}

// probeGRPC uses the health checking protocol of gRPC.
func probeGRPC(ctx context.Context, address string) error {
	cc, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		return err
	}
	defer cc.Close()
	resp, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{})
	if err != nil {
		return fmt.Errorf("grpc %s: %s", address, status.Convert(err).Message())
	}
	if resp.Status != healthpb.HealthCheckResponse_SERVING {
		return fmt.Errorf("grpc %s: %s", address, resp.Status)
	}
	return nil
}

// execGrace is how long the output of an exec check is awaited after the command has ended. A
// descendant may keep it open.
const execGrace = 100 * time.Millisecond

// probeExec runs a command in a process group of its own. At the timeout the group is killed.
func probeExec(ctx context.Context, argv []string, t Target) error {
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env, cmd.Dir = t.Env, t.Dir
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true, Credential: t.Credential}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = execGrace
	var out tail
	cmd.Stdout, cmd.Stderr = &out, &out
	err := cmd.Run()
	if errors.Is(err, exec.ErrWaitDelay) {
		err = nil // the command succeeded, and left a descendant behind
	}
	if err == nil {
		return nil
	}
	if errors.Is(err, os.ErrProcessDone) {
		err = ctx.Err()
	}
	if line := out.lastLine(); line != "" {
		return fmt.Errorf("%s: %w: %s", argv[0], err, line)
	}
	return fmt.Errorf("%s: %w", argv[0], err)
}

// tail keeps the end of an output.
type tail struct{ b []byte }

const tailBytes = 512

func (t *tail) Write(p []byte) (int, error) {
	t.b = append(t.b, p...)
	if len(t.b) > tailBytes {
		t.b = append([]byte{}, t.b[len(t.b)-tailBytes:]...)
	}
	return len(p), nil
}

func (t *tail) lastLine() string {
	text := strings.TrimSpace(string(t.b))
	if i := strings.LastIndexByte(text, '\n'); i >= 0 {
		text = text[i+1:]
	}
	return printable(text, 200)
}
