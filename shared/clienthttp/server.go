package clienthttp

import (
	"context"
	"errors"
	"fmt"
	"net"
	"net/http"
	"sync"
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
	return &Server{cfg: c, http: &http.Server{
		ReadHeaderTimeout: readHeaderTimeout,
		IdleTimeout:       idleTimeout,
		// What it logs is what clients do wrong.
		ErrorLog: c.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}}
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
	s.http.Handler = s.routes(g)
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
