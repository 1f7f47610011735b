package health

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"syscall"

	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
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

// maxResponseBytes bounds the header of an HTTP response, the part of its body that is read, and
// a gRPC response. The content does not matter.
const maxResponseBytes = 64 << 10

// Probe makes one attempt of a check, which takes at most the timeout of the check. A nil error
// is a success. The error tells an operator what happened.
func Probe(ctx context.Context, c config.Check, t Target) error {
	ctx, cancel := context.WithTimeout(ctx, c.Timeout)
	defer cancel()
	var name string
	var err error
	switch c.Kind {
	case config.CheckHTTP:
		name, err = "GET "+redacted(c.Target), probeHTTP(ctx, c.Target)
	case config.CheckTCP:
		name, err = "tcp "+c.Target, probeTCP(ctx, c.Target)
	case config.CheckGRPC:
		name, err = "grpc "+c.Target, probeGRPC(ctx, c.Target)
	case config.CheckExec:
		if len(c.Command) == 0 {
			return errors.New("the command of the check is empty")
		}
		name, err = c.Command[0], probeExec(ctx, c.Command, t)
	default:
		return fmt.Errorf("a check of the kind %q makes no attempts", c.Kind)
	}
	switch {
	case err == nil:
		return nil
	case timedOut(err):
		return fmt.Errorf("%s: no answer within %s", name, c.Timeout)
	}
	return fmt.Errorf("%s: %w", name, err)
}

// timedOut recognizes the end of the attempt. The network packages can report it a moment before
// the context does.
func timedOut(err error) bool {
	return errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)
}

// redacted returns a URL without its password.
func redacted(target string) string {
	u, err := url.Parse(target)
	if err != nil {
		return "(unreadable URL)"
	}
	return u.Redacted()
}

// client makes a new connection for each attempt, so that a check sees what a new client sees.
// A redirect is an answer, and is not followed.
var client = &http.Client{
	Transport:     &http.Transport{DisableKeepAlives: true, MaxResponseHeaderBytes: maxResponseBytes},
	CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
}

func probeHTTP(ctx context.Context, target string) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, target, nil)
	if err != nil {
		return withoutURL(err)
	}
	req.Header.Set("User-Agent", "dynast-check")
	resp, err := client.Do(req)
	if err != nil {
		return withoutURL(err)
	}
	defer resp.Body.Close()
	if resp.StatusCode < 200 || resp.StatusCode >= 400 {
		return errors.New(printable(resp.Status, maxLineRunes))
	}
	// A program that hangs in the middle of its answer is not well.
	if _, err := io.Copy(io.Discard, io.LimitReader(resp.Body, maxResponseBytes)); err != nil {
		return fmt.Errorf("cannot read the response: %w", err)
	}
	return nil
}

// withoutURL takes the URL out of an error of package net/http, because Probe names it.
func withoutURL(err error) error {
	if e, ok := errors.AsType[*url.Error](err); ok {
		return e.Err
	}
	return err
}

func probeTCP(ctx context.Context, address string) error {
	c, err := new(net.Dialer).DialContext(ctx, "tcp", address)
	if err == nil {
		return c.Close()
	}
	if e, ok := errors.AsType[*net.OpError](err); ok {
		return e.Err // without the address, because Probe names it
	}
	return err
}

// probeGRPC uses the health checking protocol of gRPC.
func probeGRPC(ctx context.Context, address string) error {
	cc, err := grpc.NewClient("passthrough:///"+address, grpc.WithNoProxy(),
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(maxResponseBytes)))
	if err != nil {
		return err
	}
	defer cc.Close()
	resp, err := healthpb.NewHealthClient(cc).Check(ctx, &healthpb.HealthCheckRequest{})
	switch s := status.Convert(err); s.Code() {
	case codes.OK:
	case codes.DeadlineExceeded:
		return context.DeadlineExceeded
	default:
		return fmt.Errorf("%s: %s", s.Code(), printable(s.Message(), maxLineRunes))
	}
	if resp.Status != healthpb.HealthCheckResponse_SERVING {
		return errors.New(resp.Status.String())
	}
	return nil
}
