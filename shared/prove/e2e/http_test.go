package e2e

import (
	"bufio"
	"context"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"fmt"
	"io"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// ask sends one request on its own connection.
func ask(ctx context.Context, c *http.Client, method, url, body string) (int, string, error) {
	req, err := http.NewRequestWithContext(ctx, method, url, strings.NewReader(body))
	if err != nil {
		return 0, "", err
	}
	resp, err := c.Do(req)
	if err != nil {
		return 0, "", err
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	return resp.StatusCode, string(text), err
}

func b64(s string) string { return base64.StdEncoding.EncodeToString([]byte(s)) }

// watchHTTP watches a key through the gateway, from its first revision on.
func watchHTTP(t *testing.T, c *http.Client, base, key string) *bufio.Scanner {
	t.Helper()
	body := fmt.Sprintf(`{"create_request":{"key":%q,"start_revision":"1"}}`, b64(key))
	req, err := http.NewRequestWithContext(testContext(t), "POST", base+"/v3/watch", strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := c.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = resp.Body.Close() })
	return bufio.NewScanner(resp.Body)
}

var valueInEvent = regexp.MustCompile(`"value":"([^"]*)"`)

// next returns the values of the next n events.
func next(t *testing.T, lines *bufio.Scanner, n int) []string {
	t.Helper()
	var out []string
	for len(out) < n && lines.Scan() {
		for _, m := range valueInEvent.FindAllStringSubmatch(strings.ReplaceAll(lines.Text(), " ", ""), -1) {
			v, err := base64.StdEncoding.DecodeString(m[1])
			if err != nil {
				t.Fatal(err)
			}
			out = append(out, string(v))
		}
	}
	if len(out) < n {
		t.Fatalf("the watch ended after %v: %v", out, lines.Err())
	}
	return out
}

func TestHTTPAcrossATakeover(t *testing.T) {
	c := start(t)
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true}}
	base, ctx := "http://"+c.client, testContext(t)
	get := func(path, want string) {
		t.Helper()
		code, text, err := ask(ctx, web, "GET", base+path, "")
		if err != nil || code != 200 || !strings.Contains(text, want) {
			t.Errorf("get %s: status %d, %.200s, %v", path, code, text, err)
		}
	}
	put := func(value string) {
		t.Helper()
		code, text, err := ask(ctx, web, "POST", base+"/v3/kv/put", fmt.Sprintf(`{"key":%q,"value":%q}`, b64("web"), b64(value)))
		if err != nil || code != 200 {
			t.Fatalf("put: status %d, %s, %v", code, text, err)
		}
	}
	get("/health", `{"health":"true","reason":""}`)
	get("/livez", "ok")
	get("/readyz", "ok")
	get("/version", `"etcdserver":"3.`)
	get("/metrics", "etcd_mvcc_put_total")
	lines := watchHTTP(t, web, base, "web")
	put("1")
	put("2")
	if got := strings.Join(next(t, lines, 2), ","); got != "1,2" {
		t.Errorf("the watch returned the values %s", got)
	}

	old := leaderOf(c.full())
	c.signal(old, syscall.SIGKILL)
	began, refused := time.Now(), 0
	eventually(t, "/health succeeds after the leader died", func() bool {
		code, _, err := ask(ctx, web, "GET", base+"/health", "")
		if err != nil && strings.Contains(err.Error(), "refused") {
			refused++
		}
		return err == nil && code == 200
	})
	t.Logf("healthy %s after the kill", time.Since(began).Round(time.Millisecond))
	if refused > 0 {
		t.Errorf("%d requests were refused, because no process listened", refused)
	}
	put("3")
	if got := strings.Join(next(t, watchHTTP(t, web, base, "web"), 3), ","); got != "1,2,3" {
		t.Errorf("the watch returned the values %s", got)
	}
	c.full()
}

// writeCertificate replaces certificate and key by those of another authority.
func writeCertificate(t *testing.T, cert, key, name string) *x509.CertPool {
	t.Helper()
	a := testkit.NewAuthority(t)
	c := a.Leaf(t, name)
	testkit.WriteCertificate(t, cert, c.Leaf)
	testkit.WriteKey(t, key, c.PrivateKey)
	return a.Pool()
}

// TestTLSAcrossATakeover: a replaced certificate is used without a restart, and by the next
// leader.
func TestTLSAcrossATakeover(t *testing.T) {
	c := newCluster(t)
	cert, key := filepath.Join(t.TempDir(), "server.crt"), filepath.Join(t.TempDir(), "server.key")
	pool := writeCertificate(t, cert, key, "one")
	cmd := c.command("up", "--config", c.config, "--client-cert-file", cert, "--client-key-file", key)
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	go func() { _ = cmd.Wait() }()
	c.full()
	put := func(pool *x509.CertPool, value string) {
		t.Helper()
		cl, err := clientv3.New(clientv3.Config{Endpoints: []string{"https://" + c.client}, TLS: &tls.Config{RootCAs: pool}, Logger: zap.NewNop()})
		if err != nil {
			t.Fatal(err)
		}
		defer cl.Close()
		if _, err := cl.Put(testContext(t), "secure", value); err != nil {
			t.Fatal(err)
		}
	}
	put(pool, "1")
	pool = writeCertificate(t, cert, key, "two")
	web := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, TLSClientConfig: &tls.Config{RootCAs: pool}}}
	healthy := func() bool {
		code, _, err := ask(testContext(t), web, "GET", "https://"+c.client+"/health", "")
		return err == nil && code == 200
	}
	eventually(t, "the leader uses the new certificate", healthy)
	put(pool, "2")
	c.signal(leaderOf(c.full()), syscall.SIGKILL)
	eventually(t, "the next leader uses the new certificate", healthy)
	put(pool, "3")
	if code, text, err := ask(testContext(t), http.DefaultClient, "GET", "http://"+c.client+"/health", ""); err != nil || code != 400 {
		t.Errorf("a request without TLS: status %d, want 400: %s, %v", code, text, err)
	}
	http.DefaultClient.CloseIdleConnections()
}
