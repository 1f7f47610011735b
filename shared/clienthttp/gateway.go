package clienthttp

import (
	"context"
	"errors"
	"fmt"
	"math"
	"net"
	"net/http"

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
	// pipeBytes is the buffer between the gateway and the gRPC server.
	pipeBytes = 256 << 10
	// maxBodyBytes bounds what one request may make us hold in memory; the
	// largest request over gRPC is 1.5 MiB, a third more in base64. A stream's
	// messages are bounded each by gRPC.
	maxBodyBytes = 8 << 20
	// maxMessageBytes bounds one answer in memory for a WebSocket; etcd's.
	maxMessageBytes = math.MaxInt32
)

// gateway translates JSON to gRPC and back.
type gateway struct {
	http.Handler
	conn   *grpc.ClientConn
	pipe   *bufconn.Listener
	cancel context.CancelFunc
}

// newGateway connects the gateway to the gRPC server by a pipe in memory.
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
		grpc.WithTransportCredentials(insecure.NewCredentials()), // it never leaves this process
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
	g.Handler = wsproxy.WebsocketProxy(bounded(mux),
		wsproxy.WithRequestMutator(func(_, out *http.Request) *http.Request {
			out.Method = http.MethodPost // a WebSocket begins with GET
			return out
		}),
		wsproxy.WithMaxRespBodyBufferSize(maxMessageBytes),
		wsproxy.WithLogger(wsLogger{c.Logger}),
	)
	return g, nil
}

func (g *gateway) close() {
	g.cancel()
	if g.conn != nil {
		_ = g.conn.Close()
	}
	_ = g.pipe.Close()
}

// bounded limits the bodies of requests that are read as a whole.
func bounded(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/v3/watch", "/v3/lease/keepalive":
		default:
			r.Body = http.MaxBytesReader(w, r.Body, maxBodyBytes)
		}
		h.ServeHTTP(w, r)
	})
}

// wsLogger is what the WebSocket proxy wants of a logger.
type wsLogger struct{ hclog.Logger }

func (l wsLogger) Warnln(v ...any)  { l.Warn(fmt.Sprint(v...)) }
func (l wsLogger) Debugln(v ...any) { l.Debug(fmt.Sprint(v...)) }
