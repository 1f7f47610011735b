package clienthttp

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
	// maxHeaderBytes bounds the headers of a request; more is answered with 431.
	maxHeaderBytes = 64 << 10
	// bodyTimeout is how long a body may take that is read as a whole.
	bodyTimeout = 30 * time.Second
)

// Config is all that a Server needs; the logger may be left out.
type Config struct {
	// Node is asked for the health.
	Node Node
	// GRPC answers the gateway's requests.
	GRPC *grpc.Server
	// Metrics are what /metrics serves; nil: what the libraries count by themselves.
	Metrics prometheus.Gatherer
	Logger  hclog.Logger
	// MaxRequestBytes is the size of the largest request over gRPC; 0 is etcd's.
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

// New is quick; what takes time is done by Serve.
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
		// What it logs is what clients do wrong.
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

// connections counts those that are open, and those of them that owe an answer
// or may be about to ask for the first time.
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

// Farewell has each answer from now on be the last one on its connection, and
// gives clients some time to come for it, until ctx ends. A client that uses a connection
// again just when Shutdown closes it cannot know whether its request was heard.
func (s *Server) Farewell(ctx context.Context) {
	s.farewell.Store(true)
	poll(ctx, func() bool { open, _ := s.connections(); return open == 0 })
}

// Settle waits until all that was asked is answered, or ctx ends. To be called
// when nothing is accepted any more: Shutdown drops the requests that it finds unread.
func (s *Server) Settle(ctx context.Context) {
	quiet := 0 // twice: a connection that was just accepted is not counted yet
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

// InFlight is how many requests are not answered yet, those of WebSockets
// among them.
func (s *Server) InFlight() int64 { return s.inFlight.Load() }

// watched counts requests, and says farewell.
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

// Serve answers what comes from l, until Shutdown, and then returns nil.
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
		return nil // http.Serve will find out
	}
	g, err := newGateway(s.cfg)
	if err != nil {
		return err
	}
	s.gateway = g
	s.http.Handler = s.watched(s.routes(g))
	return nil
}

// Shutdown takes no more requests and waits for those under way until ctx
// ends; then it ends them. The gRPC server has to be told first, if it has
// streams that never end by themselves.
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
