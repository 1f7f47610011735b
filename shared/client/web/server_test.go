package web

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"runtime"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/gorilla/websocket"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/mvccpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/metadata"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// node is healthy unless the test changes it.
type node struct {
	alarm atomic.Int32
	sick  atomic.Bool
}

func (n *node) Alarms() []*pb.AlarmMember {
	if a := n.alarm.Load(); a != 0 {
		return []*pb.AlarmMember{{Alarm: pb.AlarmType(a)}}
	}
	return nil
}

func (n *node) Read(context.Context) error {
	if n.sick.Load() {
		return errors.New("cannot read")
	}
	return nil
}

func (n *node) AuthEnabled() bool { return true }

// services answers like etcd, without a store.
type services struct {
	pb.UnimplementedKVServer
	pb.UnimplementedWatchServer
}

func (services) Put(_ context.Context, r *pb.PutRequest) (*pb.PutResponse, error) {
	if len(r.Key) == 0 {
		return nil, rpctypes.ErrGRPCEmptyKey
	}
	return &pb.PutResponse{Header: &pb.ResponseHeader{Revision: 2}}, nil
}

func (services) Range(ctx context.Context, r *pb.RangeRequest) (*pb.RangeResponse, error) {
	token := strings.Join(metadata.ValueFromIncomingContext(ctx, "authorization"), ",")
	return &pb.RangeResponse{Kvs: []*mvccpb.KeyValue{{Key: r.Key, Value: []byte(token)}}}, nil
}

func (services) Watch(s grpc.BidiStreamingServer[pb.WatchRequest, pb.WatchResponse]) error {
	r, err := s.Recv()
	if err != nil {
		return err
	}
	key := r.GetCreateRequest().GetKey()
	if err := s.Send(&pb.WatchResponse{Created: true}); err != nil {
		return err
	}
	for range 2 {
		event := &mvccpb.Event{Kv: &mvccpb.KeyValue{Key: key, ModRevision: 3}}
		if err := s.Send(&pb.WatchResponse{Events: []*mvccpb.Event{event}}); err != nil {
			return err
		}
	}
	<-s.Context().Done()
	return rpctypes.ErrGRPCStopped
}

// serveBoth serves gRPC and HTTP on one address, and returns the address.
func serveBoth(t *testing.T) (*node, string) {
	t.Helper()
	s := split(t, nil)
	g := grpc.NewServer()
	pb.RegisterKVServer(g, services{})
	pb.RegisterWatchServer(g, services{})
	n := &node{}
	web := New(Config{Node: n, AuthEnabled: n.AuthEnabled, GRPC: g})
	done := make(chan error, 2)
	go func() { done <- g.Serve(s.GRPC()) }()
	go func() { done <- web.Serve(s.HTTP()) }()
	t.Cleanup(func() {
		ctx, cancel := context.WithCancel(context.Background())
		cancel() // at once
		http.DefaultClient.CloseIdleConnections()
		web.Shutdown(ctx)
		g.Stop()
		for range 2 {
			if err := <-done; err != nil && !errors.Is(err, grpc.ErrServerStopped) {
				t.Error(err)
			}
		}
	})
	return n, s.HTTP().Addr().String()
}

func ask(t *testing.T, method, url, body string, header ...string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	for i := 0; i+1 < len(header); i += 2 {
		req.Header.Set(header[i], header[i+1])
	}
	resp, text := testkit.Do(t, req)
	return resp.StatusCode, text
}

func TestBothProtocolsOnOneAddress(t *testing.T) {
	_, address := serveBoth(t)
	c, err := grpc.NewClient("passthrough:///"+address, grpc.WithTransportCredentials(insecure.NewCredentials()))
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	if _, err := pb.NewKVClient(c).Put(context.Background(), &pb.PutRequest{Key: []byte("a")}); err != nil {
		t.Fatal(err)
	}
	if code, text := ask(t, "GET", "http://"+address+"/version", ""); code != 200 || !strings.HasPrefix(text, `{"etcdserver":"3.`) {
		t.Errorf("got %d %s", code, text)
	}
	if code, text := ask(t, "GET", "http://"+address+"/metrics", ""); code != 200 || !strings.Contains(text, "go_goroutines") {
		t.Errorf("got %d %.200s", code, text)
	}
}

func TestGateway(t *testing.T) {
	_, address := serveBoth(t)
	for _, tc := range []struct{ path, body, want string }{
		{"/v3/kv/put", `{"key":"YQ==","value":"MQ==","unknown":1}`, `200 {"header":{"revision":"2"}}`},
		{"/v3beta/kv/put", `{"key":"YQ=="}`, `200 {"header":{"revision":"2"}}`},
		{"/v3/kv/put", `{}`, `400 {"code":3,"message":"etcdserver: key is not provided"}`},
		{"/v3/kv/range", `{"key":"YQ=="}`, `200 {"kvs":[{"key":"YQ==","value":"c2VjcmV0"}]}`}, // "secret"
		{"/v3/auth/user/list", `{}`, `501 {"code":12,"message":"unknown service etcdserverpb.Auth"}`},
	} {
		code, text := ask(t, "POST", "http://"+address+tc.path, tc.body, "Authorization", "secret")
		if got := fmt.Sprintf("%d %s", code, compact(text)); got != tc.want {
			t.Errorf("%s %s: got %s, want %s", tc.path, tc.body, got, tc.want)
		}
	}
	huge := `{"key":"` + strings.Repeat("A", int(maxBodyBytes(0))) + `"}`
	if code, _ := ask(t, "POST", "http://"+address+"/v3/kv/put", huge); code != http.StatusRequestEntityTooLarge {
		t.Errorf("a body of %d bytes: %d", len(huge), code)
	}
}

// compact removes the spaces that protojson inserts at random.
func compact(text string) string {
	var b bytes.Buffer
	if json.Compact(&b, []byte(text)) != nil {
		return text
	}
	return b.String()
}

const watchRequest = `{"create_request":{"key":"YQ=="}}`

// Each event arrives when it happens, not when the watch ends.
func TestGatewayWatch(t *testing.T) {
	_, address := serveBoth(t)
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, "POST", "http://"+address+"/v3/watch", strings.NewReader(watchRequest))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	lines := bufio.NewScanner(resp.Body)
	const event = `{"result":{"events":[{"kv":{"key":"YQ==","mod_revision":"3"}}]}}`
	for _, want := range []string{`{"result":{"created":true}}`, event, event} {
		if !lines.Scan() || compact(lines.Text()) != want {
			t.Fatalf("got %s, want %s (%v)", lines.Text(), want, lines.Err())
		}
	}
}

func TestGatewayWatchOverWebSocket(t *testing.T) {
	_, address := serveBoth(t)
	c, resp, err := websocket.DefaultDialer.Dial("ws://"+address+"/v3/watch", nil)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	defer resp.Body.Close()
	if err := c.WriteMessage(websocket.TextMessage, []byte(watchRequest)); err != nil {
		t.Fatal(err)
	}
	_, text, err := c.ReadMessage()
	if err != nil || compact(string(text)) != `{"result":{"created":true}}` {
		t.Errorf("got %s, %v", text, err)
	}
	if _, resp, err := websocket.DefaultDialer.Dial("ws://"+address+"/v3/watch", http.Header{"Origin": {"http://elsewhere"}}); err == nil {
		t.Error("another site's page is let in")
	} else {
		_ = resp.Body.Close()
	}
}

func TestPagesOfOtherSites(t *testing.T) {
	_, address := serveBoth(t)
	for origin, want := range map[string]int{"http://" + address: 200, "http://elsewhere": 403, "null": 403} {
		if code, _ := ask(t, "POST", "http://"+address+"/v3/kv/put", `{"key":"YQ=="}`, "Origin", origin); code != want {
			t.Errorf("%s: got %d", origin, code)
		}
	}
}

func TestHealth(t *testing.T) {
	n, address := serveBoth(t)
	check := func(method, path string, wantCode int, want string) {
		t.Helper()
		code, text := ask(t, method, "http://"+address+path, "")
		if code != wantCode || text != want {
			t.Errorf("%s %s: got %d %q, want %d %q", method, path, code, text, wantCode, want)
		}
	}
	const well = `{"health":"true","reason":""}`
	check("GET", "/health", 200, well)
	check("GET", "/livez", 200, "ok\n")
	check("GET", "/livez?verbose", 200, "[+]serializable_read ok\nok\n")
	check("GET", "/readyz/linearizable_read", 200, "ok\n")
	check("GET", "/readyz?verbose&exclude=data_corruption&exclude=linearizable_read&exclude=unknown", 200,
		"[+]serializable_read ok\n[+]non_learner ok\nok\n")
	check("POST", "/health", 405, "Method Not Allowed\n")
	check("DELETE", "/version", 405, "Method Not Allowed\n")
	check("GET", "/v2/keys", 404, "404 page not found\n")

	n.alarm.Store(int32(pb.AlarmType_NOSPACE))
	check("GET", "/health", 503, `{"health":"false","reason":"ALARM NOSPACE"}`+"\n")
	check("GET", "/health?exclude=NOSPACE", 200, well)
	check("GET", "/readyz", 200, "ok\n")
	n.alarm.Store(int32(pb.AlarmType_CORRUPT))
	check("GET", "/readyz/data_corruption", 503, "[-]data_corruption failed: alarm activated: CORRUPT\n\n")
	check("GET", "/livez", 200, "ok\n")
	n.alarm.Store(0)
	n.sick.Store(true)
	check("GET", "/health", 503, `{"health":"false","reason":"RANGE ERROR:cannot read"}`+"\n")
	check("GET", "/livez", 503, "[-]serializable_read failed: cannot read\n\n")
}

// A server that was stopped before it began ends at once.
func TestShutdownBeforeServe(t *testing.T) {
	s := split(t, nil)
	web := New(Config{Node: &node{}, AuthEnabled: (&node{}).AuthEnabled, GRPC: grpc.NewServer()})
	web.Shutdown(context.Background())
	if err := web.Serve(s.HTTP()); err != nil {
		t.Error(err)
	}
}

// serveWeb serves the HTTP side only. end, to be called after a shutdown, checks that it ended
// without an error.
func serveWeb(t *testing.T) (web *Server, address string, end func()) {
	t.Helper()
	s := split(t, nil)
	g := grpc.NewServer()
	pb.RegisterKVServer(g, services{})
	web = New(Config{Node: &node{}, AuthEnabled: (&node{}).AuthEnabled, GRPC: g})
	done := make(chan error, 1)
	go func() { done <- web.Serve(s.HTTP()) }()
	return web, s.HTTP().Addr().String(), func() {
		g.Stop()
		if err := <-done; err != nil {
			t.Error(err)
		}
	}
}

// TestSettle: requests that are under way when serving ends are answered.
func TestSettle(t *testing.T) {
	web, address, end := serveWeb(t)
	c, err := net.Dial("tcp", address)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	const body = `{"key":"YQ=="}`
	request := fmt.Sprintf("POST /v3/kv/put HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: %d\r\n\r\n%s", len(body), body)
	if _, err := io.WriteString(c, request[:20]); err != nil {
		t.Fatal(err)
	}
	for _, busy := web.connections(); busy == 0; _, busy = web.connections() {
		runtime.Gosched()
	}
	settled := make(chan struct{})
	go func() {
		web.Settle(t.Context())
		web.Shutdown(t.Context())
		close(settled)
	}()
	select {
	case <-settled:
		t.Error("it did not wait for the request")
	case <-time.After(20 * time.Millisecond): // it would have been wrong by now
	}
	if _, err := io.WriteString(c, request[20:]); err != nil {
		t.Fatal(err)
	}
	answer, err := io.ReadAll(c)
	if err != nil || !strings.HasPrefix(string(answer), "HTTP/1.1 200") {
		t.Errorf("%v %s", err, answer)
	}
	<-settled
	end()
}

// TestFarewell: requests are still answered, each as the last one on its connection. Idle
// clients are not waited for longer than the context allows.
func TestFarewell(t *testing.T) {
	web, address, end := serveWeb(t)
	client := &http.Client{Transport: &http.Transport{}}
	put := func() *http.Response {
		resp, err := client.Post("http://"+address+"/v3/kv/put", "application/json", strings.NewReader(`{"key":"YQ=="}`))
		if err != nil {
			t.Fatal(err)
		}
		_, _ = io.Copy(io.Discard, resp.Body)
		_ = resp.Body.Close()
		if resp.StatusCode != http.StatusOK {
			t.Fatal(resp.Status)
		}
		return resp
	}
	if put().Close {
		t.Error("a connection is closed for no reason")
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	web.Farewell(over) // the one that is kept does not come
	if !put().Close {
		t.Error("the connection is kept")
	}
	web.Farewell(t.Context()) // nobody is left
	if n := web.InFlight(); n != 0 {
		t.Errorf("%d requests under way", n)
	}
	web.Shutdown(t.Context())
	end()
}
