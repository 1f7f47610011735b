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
	readHeaderTimeout = time.Minute
	idleTimeout       = 5 * time.Minute
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
}

// Server answers HTTP.
type Server struct {
	cfg  Config
	http *http.Server

	open     atomic.Int64 // connections
	inFlight atomic.Int64 // requests
	farewell atomic.Bool

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
	s := &Server{cfg: c}
	s.http = &http.Server{
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		ConnState:         s.count,
		// What it logs is what clients do wrong.
		ErrorLog: c.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	return s
}

func (s *Server) count(_ net.Conn, state http.ConnState) {
	switch state {
	case http.StateNew:
		s.open.Add(1)
	case http.StateClosed, http.StateHijacked:
		s.open.Add(-1)
	}
}

// Farewell has each answer from now on be the last one on its connection, and
// gives clients some time to come for it. A client that uses a connection again just
// when Shutdown closes it cannot know whether its request was heard.
func (s *Server) Farewell(ctx context.Context, patience time.Duration) {
	s.farewell.Store(true)
	ctx, cancel := context.WithTimeout(ctx, patience)
	defer cancel()
	tick := time.NewTicker(farewellPoll)
	defer tick.Stop()
	for s.open.Load() > 0 {
		select {
		case <-tick.C:
		case <-ctx.Done():
			return
		}
	}
}

const farewellPoll = time.Millisecond

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
