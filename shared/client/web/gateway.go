package web

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"net/http"
	"os"
	"time"

	"github.com/grpc-ecosystem/grpc-gateway/v2/runtime"
	"github.com/hashicorp/go-hclog"
	wsproxy "github.com/tmc/grpc-websocket-proxy/wsproxy"
	etcdgw "go.etcd.io/etcd/api/v3/etcdserverpb/gw"
	electiongw "go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb/gw"
	lockgw "go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb/gw"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials/insecure"
	"google.golang.org/grpc/test/bufconn"
	"google.golang.org/protobuf/encoding/protojson"
)

const (
	// pipeBytes is the size of the buffer between the gateway and the gRPC server.
	pipeBytes = 256 << 10
	// maxMessageBytes bounds one answer to a WebSocket in memory. The value is etcd's.
	maxMessageBytes = math.MaxInt32
)

// gateway translates between JSON and gRPC.
type gateway struct {
	http.Handler
	conn   *grpc.ClientConn
	pipe   *bufconn.Listener
	cancel context.CancelFunc
}

// newGateway connects the gateway to the gRPC server through a pipe in memory.
func newGateway(c Config) (*gateway, error) {
	g := &gateway{pipe: bufconn.Listen(pipeBytes)}
	var ctx context.Context
	ctx, g.cancel = context.WithCancel(context.Background())
	go func() {
		if err := c.GRPC.Serve(g.pipe); err != nil && !errors.Is(err, grpc.ErrServerStopped) {
			c.Logger.Debug("the gateway's pipe ended", "error", err)
		}
	}()
	var err error
	g.conn, err = grpc.NewClient("passthrough:///gateway",
		grpc.WithContextDialer(func(ctx context.Context, _ string) (net.Conn, error) { return g.pipe.DialContext(ctx) }),
		grpc.WithTransportCredentials(insecure.NewCredentials()), // the connection does not leave this process
		grpc.WithDefaultCallOptions(grpc.MaxCallRecvMsgSize(math.MaxInt32), grpc.MaxCallSendMsgSize(math.MaxInt32)),
	)
	if err != nil {
		g.close()
		return nil, fmt.Errorf("connect the gateway: %w", err)
	}
	mux := runtime.NewServeMux(runtime.WithMarshalerOption(runtime.MIMEWildcard, &runtime.HTTPBodyMarshaler{
		Marshaler: &runtime.JSONPb{
			MarshalOptions:   protojson.MarshalOptions{UseProtoNames: true},
			UnmarshalOptions: protojson.UnmarshalOptions{DiscardUnknown: true},
		},
	}))
	for _, register := range []func(context.Context, *runtime.ServeMux, *grpc.ClientConn) error{
		etcdgw.RegisterKVHandler, etcdgw.RegisterWatchHandler, etcdgw.RegisterLeaseHandler,
		etcdgw.RegisterClusterHandler, etcdgw.RegisterMaintenanceHandler, etcdgw.RegisterAuthHandler,
		lockgw.RegisterLockHandler, electiongw.RegisterElectionHandler,
	} {
		if err := register(ctx, mux, g.conn); err != nil {
			g.close()
			return nil, fmt.Errorf("register the gateway: %w", err)
		}
	}
	most := maxBodyBytes(c.MaxRequestBytes)
	g.Handler = timely(wsproxy.WebsocketProxy(bounded(mux, most),
		wsproxy.WithRequestMutator(func(_, out *http.Request) *http.Request {
			out.Method = http.MethodPost // a WebSocket begins with GET
			return out
		}),
		wsproxy.WithMaxRespBodyBufferSize(maxMessageBytes),
		wsproxy.WithLogger(wsLogger{c.Logger}),
	), most, bodyTimeout)
	return g, nil
}

func (g *gateway) close() {
	g.cancel()
	if g.conn != nil {
		_ = g.conn.Close()
	}
	_ = g.pipe.Close()
}

// maxBodyBytes bounds how much memory one request can use. In base64 a request is a third
// larger than over gRPC, and JSON comes on top. gRPC bounds each message of a stream.
func maxBodyBytes(maxRequestBytes int) int64 {
	const least = 8 << 20
	return max(least, 2*int64(maxRequestBytes))
}

// bounded limits the size of bodies that are read as a whole.
func bounded(h http.Handler, most int64) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if !streams(r) {
			r.Body = http.MaxBytesReader(w, r.Body, most)
		}
		h.ServeHTTP(w, r)
	})
}

// streams reports whether a request's body continues while it is answered.
func streams(r *http.Request) bool {
	return r.URL.Path == "/v3/watch" || r.URL.Path == "/v3/lease/keepalive" || r.Header.Get("Upgrade") != ""
}

// timely reads a body completely before the request is answered, within a time limit. Otherwise
// a body that comes byte by byte could hold a request for as long as it likes.
func timely(h http.Handler, most int64, within time.Duration) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if streams(r) || r.Body == nil || r.Body == http.NoBody {
			h.ServeHTTP(w, r)
			return
		}
		control := http.NewResponseController(w)
		_ = control.SetReadDeadline(time.Now().Add(within))
		body, err := io.ReadAll(http.MaxBytesReader(w, r.Body, most))
		_ = control.SetReadDeadline(time.Time{})
		var large *http.MaxBytesError
		switch {
		case errors.As(err, &large):
			http.Error(w, fmt.Sprintf("the body has more than %d bytes", most), http.StatusRequestEntityTooLarge)
			return
		case errors.Is(err, os.ErrDeadlineExceeded):
			w.Header().Set("Connection", "close")
			http.Error(w, fmt.Sprintf("the body did not arrive within %s", within), http.StatusRequestTimeout)
			return
		case err != nil:
			http.Error(w, "cannot read the body:  "+err.Error(), http.StatusBadRequest)
			return
		}
		r.Body = io.NopCloser(bytes.NewReader(body))
		h.ServeHTTP(w, r)
	})
}

// wsLogger has the methods that the WebSocket proxy needs of a logger.
type wsLogger struct{ hclog.Logger }

func (l wsLogger) Warnln(v ...any)  { l.Warn(fmt.Sprint(v...)) }
func (l wsLogger) Debugln(v ...any) { l.Debug(fmt.Sprint(v...)) }
