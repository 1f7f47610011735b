package dashboard

import (
	"bufio"
	"context"
	"errors"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/observe/meter"
	"github.com/dynast-io/dynast/shared/prove/testkit"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const patience = 30 * time.Second

// still is a cluster that never changes.
type still struct{ err error }

func (s still) Tree() ([]byte, error)                           { return []byte("{\n \"epoch\": 1\n}"), s.err }
func (s still) Load() (meter.Load, *uint64, bool)               { return meter.Load{}, nil, s.err == nil }
func (s still) Epoch() uint64                                   { return 7 }
func (s still) Kill(context.Context, string) error              { return s.err }
func (s still) Promote(context.Context, string) (string, error) { return "127.0.0.1:7401", s.err }
func (s still) Scale(_ context.Context, by int) (int, error)    { return 2 + by, s.err }
func (s still) Services(context.Context) ([]byte, error) {
	return []byte("{\n \"services\": []\n}"), s.err
}
func (s still) Hosts(context.Context) ([]byte, error) {
	return []byte("{\n \"verdict\": \"Serving.\"\n}"), s.err
}
func (s still) Act(_ context.Context, action member.Action, name string) ([]string, error) {
	return []string{string(action) + " of " + name + "/1", name + "/2"}, s.err
}

// silent is a cluster that does not tell its services.
type silent struct{ still }

func (silent) Services(ctx context.Context) ([]byte, error) {
	<-ctx.Done()
	return nil, ctx.Err()
}

func serve(t *testing.T, c Config) string {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	if c.DataDir == "" {
		c.DataDir = t.TempDir()
	}
	c.Interval = 10 * time.Millisecond
	s := New(c)
	done := make(chan error, 1)
	go func() { done <- s.Serve(l) }()
	t.Cleanup(func() {
		s.Close()
		if err := <-done; err != nil {
			t.Error(err)
		}
		http.DefaultClient.CloseIdleConnections()
	})
	return "http://" + l.Addr().String()
}

func get(t *testing.T, url, host string) (*http.Response, string) {
	t.Helper()
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		t.Fatal(err)
	}
	if host != "" {
		req.Host = host
	}
	return testkit.Do(t, req)
}

// The page needs nothing that its own policy forbids, and nothing from other hosts.
func TestSelfContained(t *testing.T) {
	url := serve(t, Config{Cluster: still{}})
	for path, kind := range map[string]string{"/": "text/html", "/app.js": "text/javascript", "/view.js": "text/javascript",
		"/dom.js": "text/javascript", "/graph.js": "text/javascript", "/style.css": "text/css", "/favicon.svg": "image/svg+xml"} {
		resp, body := get(t, url+path, "")
		if resp.StatusCode != 200 || !strings.HasPrefix(resp.Header.Get("Content-Type"), kind) || body == "" {
			t.Errorf("%s: %d %s", path, resp.StatusCode, resp.Header.Get("Content-Type"))
		}
		csp := resp.Header.Get("Content-Security-Policy")
		if !strings.HasPrefix(csp, "default-src 'none';") || strings.Contains(csp, "unsafe") || strings.Contains(csp, "*") {
			t.Errorf("%s: policy %q", path, csp)
		}
		for _, forbidden := range []string{`https?://(?:[^w]|w[^w])`, ` on[a-z]+=`, ` style=`, `innerHTML`, `\beval\(`, `@import`} {
			if m := regexp.MustCompile(forbidden).FindString(body); m != "" {
				t.Errorf("%s has %q", path, m)
			}
		}
	}
	for _, path := range []string{"/index.html.bak", "/page/", "/../server.go", "/api/", "/api/kill"} {
		if resp, _ := get(t, url+path, ""); resp.StatusCode == 200 {
			t.Errorf("%s is answered", path)
		}
	}
}

// Requests with a foreign host name are refused for all paths.
func TestForeignHosts(t *testing.T) {
	url := serve(t, Config{Cluster: still{}})
	for host, want := range map[string]int{
		"": 200, "localhost": 200, "localhost:2381": 200, "127.0.0.1": 200, "[::1]:2381": 200, "10.0.0.5:2381": 200,
		"evil.example": 421, "evil.example:2381": 421, "127.0.0.1.evil.example": 421, "localhost.evil.example": 421,
	} {
		for _, path := range []string{"/", "/api/tree"} {
			if resp, _ := get(t, url+path, host); resp.StatusCode != want {
				t.Errorf("%s as %q: %d, want %d", path, host, resp.StatusCode, want)
			}
		}
	}
}

// The stream starts with the past events, continues with new ones, and ends with the server.
func TestStream(t *testing.T) {
	dir := t.TempDir()
	r := events.NewRecorder(dir, "127.0.0.1:7400")
	defer r.Close(patience)
	r.Record(events.Event{Kind: "started", Detail: "first\nsecond"})
	testkit.Eventually(t, "the event is in the file", func() bool { es, err := events.Read(dir); return err == nil && len(es) == 1 })
	url := serve(t, Config{Cluster: still{}, DataDir: dir, TokenFile: "x"})
	resp, err := http.Get(url + "/api/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := make(chan string, 100000)
	go func() {
		defer close(lines)
		for in := bufio.NewScanner(resp.Body); in.Scan(); {
			lines <- in.Text()
		}
	}()
	next := func(prefix, want string) {
		t.Helper()
		for l := range lines {
			if strings.HasPrefix(l, prefix) {
				if !strings.Contains(l, want) {
					t.Fatalf("got %q, want %q", l, want)
				}
				return
			}
		}
		t.Fatalf("the stream ended before %q", want)
	}
	next("retry:", "100")
	next("event:", "hello")
	next("data:", `"actions":true`)
	next("event:", "past")
	next("data:", `"level":"info","recovery":true`)
	next("event: tree", "")
	next("data:", `{"epoch":1}`)
	next("event:", "services")
	next("data:", `{"services":[]}`)
	next("event:", "hosts")
	next("data:", `{"verdict":"Serving."}`)
	next("event: samples", "")
	r.Record(events.Event{Kind: "member_died"})
	next("event: events", "")
	next("data:", `"kind":"member_died","by":"127.0.0.1:7400","level":"warning"`)
}

// The trees go on when the services are not known.
func TestStreamWithoutServices(t *testing.T) {
	url := serve(t, Config{Cluster: silent{}})
	resp, err := http.Get(url + "/api/stream")
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	trees := 0
	for in := bufio.NewScanner(resp.Body); trees < 3 && in.Scan(); {
		switch in.Text() {
		case "event: tree":
			trees++
		case "event: services":
			t.Error("services from nowhere")
		}
	}
	if trees < 3 {
		t.Errorf("the stream ended after %d trees", trees)
	}
}

func TestStreamsAreBounded(t *testing.T) {
	url := serve(t, Config{Cluster: still{}})
	var open []*http.Response
	defer func() {
		for _, r := range open {
			_ = r.Body.Close()
		}
	}()
	for range maxStreams {
		resp, err := http.Get(url + "/api/stream")
		if err != nil || resp.StatusCode != 200 {
			t.Fatalf("%v %v", resp, err)
		}
		open = append(open, resp)
	}
	if resp, _ := get(t, url+"/api/stream", ""); resp.StatusCode != 503 {
		t.Errorf("one more: %d", resp.StatusCode)
	}
	_ = open[0].Body.Close()
	testkit.Eventually(t, "a place for another stream", func() bool {
		resp, err := http.Get(url + "/api/stream")
		if err != nil {
			t.Fatal(err)
		}
		open = append(open, resp)
		return resp.StatusCode == 200
	})
}

func TestTokenFiles(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	write := func(text string, mode os.FileMode) {
		if err := errors.Join(os.WriteFile(path, []byte(text), 0o600), os.Chmod(path, mode)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := ReadToken(path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("no file: %v", err)
	}
	for _, mode := range []os.FileMode{0o640, 0o604, 0o660} {
		write("0123456789abcdef", mode)
		if _, err := ReadToken(path); err == nil || !strings.Contains(err.Error(), "chmod 600") || strings.Contains(err.Error(), "0123") {
			t.Errorf("mode %o: %v", mode, err)
		}
	}
	write("0123456789abcde\n", 0o600)
	if _, err := ReadToken(path); err == nil || strings.Contains(err.Error(), "0123") {
		t.Errorf("a short token: %v", err)
	}
	write(" 0123456789abcdef\n", 0o600)
	if token, err := ReadToken(path); err != nil || token != "0123456789abcdef" {
		t.Errorf("%q, %v", token, err)
	}
}

// The answer to a refused action says why, and nothing more.
func TestActions(t *testing.T) {
	path := filepath.Join(t.TempDir(), "token")
	if err := os.WriteFile(path, []byte("0123456789abcdef"), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		cluster    Cluster
		path, body string
		code       int
		want       string
	}{
		{still{}, "/api/kill", `{"address":"a","epoch":7}`, 200, "killed a"},
		{still{}, "/api/check", `{}`, 200, "token accepted"},
		{still{}, "/api/kill", `{"address":"a","epoch":6}`, 409, "epoch 7"},
		{still{}, "/api/promote", `{}`, 409, "epoch 0"},
		{still{}, "/api/promote", `{"epoch":7}`, 200, "127.0.0.1:7401"},
		{still{}, "/api/scale", `{"by":1,"epoch":7}`, 200, "3 followers"},
		{still{}, "/api/scale", `{"by":2,"epoch":7}`, 409, "1 or -1"},
		{still{errors.New("not now")}, "/api/kill", `{"epoch":7}`, 409, "not now"},
		{still{}, "/api/services/start", `{"name":"web","epoch":7}`, 200, "start start of web/1, web/2: accepted"},
		{still{}, "/api/services/stop", `{"name":"web","epoch":7}`, 200, "stop stop of web/1, web/2: accepted"},
		{still{}, "/api/services/restart", `{"name":"web","epoch":7}`, 200, "restart restart of web/1, web/2: accepted"},
		{still{}, "/api/services/restart", `{"name":"web","epoch":6}`, 409, "epoch 7"},
		{still{}, "/api/services/restart", `{"names":["web"],"epoch":7}`, 400, "JSON"},
		{still{}, "/api/services/run", `{"name":"web","epoch":7}`, 404, "not found"},
		{still{errors.New("there is no service")}, "/api/services/stop", `{"name":"x","epoch":7}`, 409, "there is no service"},
		{still{}, "/api/kill", strings.Repeat("[", 10000), 400, "JSON"},
	} {
		s := New(Config{Cluster: c.cluster, TokenFile: path, DataDir: t.TempDir()})
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1"+c.path, strings.NewReader(c.body))
		r.Header.Set("Authorization", "Bearer 0123456789abcdef")
		s.http.Handler.ServeHTTP(w, r)
		if w.Code != c.code || !strings.Contains(w.Body.String(), c.want) {
			t.Errorf("%s %.20s: %d %s", c.path, c.body, w.Code, w.Body)
		}
		s.Close()
	}
	// No action is carried out without the token.
	for _, name := range []string{"check", "kill", "promote", "scale", "services/start", "services/stop", "services/restart"} {
		for file, want := range map[string]int{path: http.StatusUnauthorized, "": http.StatusForbidden} {
			s := New(Config{Cluster: still{}, TokenFile: file, DataDir: t.TempDir()})
			w := httptest.NewRecorder()
			r := httptest.NewRequest(http.MethodPost, "http://127.0.0.1/api/"+name, strings.NewReader(`{"name":"web","by":1,"epoch":7}`))
			r.Header.Set("Authorization", "Bearer 0123456789abcdee")
			s.http.Handler.ServeHTTP(w, r)
			if w.Code != want {
				t.Errorf("%s with token file %q: %d %s", name, file, w.Code, w.Body)
			}
			s.Close()
		}
	}
}
