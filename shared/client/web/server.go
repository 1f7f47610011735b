package web

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"
	"google.golang.org/grpc"
)

const (
	readHeaderTimeout = 20 * time.Second
	idleTimeout       = 5 * time.Minute
	// maxHeaderBytes bounds the headers of a request. Larger ones are answered with 431.
	maxHeaderBytes = 64 << 10
	// bodyTimeout bounds the time for reading a body that is read as a whole.
	bodyTimeout = 30 * time.Second
)

// Config is everything that a Server needs. The logger is optional.
type Config struct {
	// Node is asked for the health.
	Node Node
	// Health adds the paths of health checks and of the version. nil means those of this package,
	// which ask Node.
	Health func(*http.ServeMux)
	// AuthEnabled says whether there are users.
	AuthEnabled func() bool
	// GRPC answers the gateway's requests.
	GRPC *grpc.Server
	// Metrics is what /metrics serves. nil means the libraries' own metrics.
	Metrics prometheus.Gatherer
	Logger  hclog.Logger
	// MaxRequestBytes is the size of the largest request over gRPC; 0 means etcd's default.
	MaxRequestBytes int
}

// Server answers HTTP.
type Server struct {
	cfg  Config
	http *http.Server

	inFlight atomic.Int64 // requests
	farewell atomic.Bool

	connsMu sync.Mutex
	conns   map[net.Conn]http.ConnState

	mu      sync.Mutex
	gateway *gateway // nil until Serve
	stopped bool
}

// New returns a Server. Slow preparations are made in Serve.
func New(c Config) *Server {
	if c.Metrics == nil {
		c.Metrics = prometheus.DefaultGatherer
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	s := &Server{cfg: c, conns: map[net.Conn]http.ConnState{}}
	s.http = &http.Server{
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		ConnState:         s.count,
		MaxHeaderBytes:    maxHeaderBytes,
		// The HTTP server logs only errors of clients.
		ErrorLog: c.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	return s
}

func (s *Server) count(c net.Conn, state http.ConnState) {
	s.connsMu.Lock()
	defer s.connsMu.Unlock()
	switch state {
	case http.StateClosed, http.StateHijacked:
		delete(s.conns, c)
	default:
		s.conns[c] = state
	}
}

// connections returns how many connections are open, and how many of them have a request
// without an answer or may be about to send their first request.
func (s *Server) connections() (open, busy int) {
	s.connsMu.Lock()
	defer s.connsMu.Unlock()
	for _, state := range s.conns {
		if state != http.StateIdle {
			busy++
		}
	}
	return len(s.conns), busy
}

// Farewell makes each answer from now on the last one on its connection, and waits until all
// connections are closed or ctx ends. Otherwise a client might use a connection just when
// Shutdown closes it, and could not know whether its request was read.
func (s *Server) Farewell(ctx context.Context) {
	s.farewell.Store(true)
	poll(ctx, func() bool { open, _ := s.connections(); return open == 0 })
}

// Settle waits until all requests are answered, or ctx ends. Call it when no more connections
// are accepted, because Shutdown drops requests that it has not read.
func (s *Server) Settle(ctx context.Context) {
	quiet := 0 // must be idle twice, because a connection that was just accepted is not counted yet
	poll(ctx, func() bool {
		quiet++
		if _, busy := s.connections(); busy > 0 {
			quiet = 0
		}
		return quiet >= 2
	})
}

func poll(ctx context.Context, done func() bool) {
	tick := time.NewTicker(time.Millisecond)
	defer tick.Stop()
	for !done() {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

// InFlight is the number of requests without an answer so far, including WebSockets.
func (s *Server) InFlight() int64 { return s.inFlight.Load() }

// watched counts requests, and closes connections after Farewell.
func (s *Server) watched(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		s.inFlight.Add(1)
		defer s.inFlight.Add(-1)
		if s.farewell.Load() {
			w.Header().Set("Connection", "close")
		}
		h.ServeHTTP(w, r)
	})
}

// Serve answers connections from l until Shutdown, and then returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.prepare(); err != nil {
		_ = l.Close()
		return err
	}
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve HTTP: %w", err)
	}
	return nil
}

func (s *Server) prepare() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.stopped {
		return nil // http.Serve returns at once
	}
	g, err := newGateway(s.cfg)
	if err != nil {
		return err
	}
	s.gateway = g
	s.http.Handler = s.watched(s.routes(g))
	return nil
}

// Shutdown takes no more requests, waits for the running ones until ctx ends, and then ends
// them. If the gRPC server has streams that never end by themselves, it has to be shut down
// first.
func (s *Server) Shutdown(ctx context.Context) {
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close()
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	s.stopped = true
	if s.gateway != nil {
		s.gateway.close()
		s.gateway = nil
	}
}
