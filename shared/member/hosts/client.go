package hosts

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"time"

	"github.com/dynast-io/dynast/shared/host/datadir"
)

// maxAnswerBytes bounds an answer. The largest one has the trees of all hosts.
const maxAnswerBytes = 16 << 20

// Client asks an engine. It is safe for concurrent use.
type Client struct {
	http *http.Client
	base string
	name string // of the other side, for errors
}

// URL returns the URL of the host at an address.
func URL(address string) string { return "https://" + address }

// Dial returns a client of the host at an address. No connection is made before the first request.
func Dial(address string, t *tls.Config) *Client {
	return &Client{base: URL(address), name: address,
		http: &http.Client{Transport: &http.Transport{TLSClientConfig: t, MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute}}}
}

// DialLocal returns a client of the engine of this host.
func DialLocal(dir *datadir.Dir) *Client {
	t := &http.Transport{MaxIdleConnsPerHost: 1, IdleConnTimeout: time.Minute,
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return dir.DialEngine(ctx) }}
	return &Client{base: "http://engine", name: "the engine of this host", http: &http.Client{Transport: t}}
}

// Close closes idle connections.
func (c *Client) Close() { c.http.CloseIdleConnections() }

// ErrUnreachable means that the other side did not answer.
var ErrUnreachable = errors.New("no answer")

// Ask sends a request and reads the answer. in may be nil; then the request is a GET. out may be nil.
// An error that wraps ErrUnreachable means that the request may or may not have been carried out;
// every other error comes from the other side.
func (c *Client) Ask(ctx context.Context, path string, in, out any) error {
	method, body := http.MethodGet, io.Reader(nil)
	if in != nil {
		raw, err := json.Marshal(in)
		if err != nil {
			return err
		}
		method, body = http.MethodPost, bytes.NewReader(raw)
	}
	req, err := http.NewRequestWithContext(ctx, method, c.base+path, body)
	if err != nil {
		return err
	}
	req.Header.Set("Content-Type", "application/json")
	resp, err := c.http.Do(req)
	if err != nil {
		return fmt.Errorf("%w from %s: %w", ErrUnreachable, c.name, err)
	}
	defer resp.Body.Close()
	raw, err := io.ReadAll(io.LimitReader(resp.Body, maxAnswerBytes))
	if err != nil {
		return fmt.Errorf("%w from %s: %w", ErrUnreachable, c.name, err)
	}
	if resp.StatusCode == http.StatusNotFound {
		return fmt.Errorf("%s does not know this command, because it runs an older build: upgrade it first ('dynast stop' and 'dynast up' on that host)", c.name)
	}
	if resp.StatusCode != http.StatusOK {
		var r Refusal
		if json.Unmarshal(raw, &r) != nil || r.Error == "" {
			return fmt.Errorf("%s answers %s", c.name, resp.Status)
		}
		return errors.New(r.Error)
	}
	if out == nil {
		return nil
	}
	if err := json.Unmarshal(raw, out); err != nil {
		return fmt.Errorf("the answer of %s: %w", c.name, err)
	}
	return nil
}
