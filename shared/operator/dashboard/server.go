package dashboard

import (
	"context"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"net/http"
	"net/netip"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dynast-io/dynast/shared/client/gate"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/observe/meter"
)

//go:embed page
var page embed.FS

const (
	readTimeout = 10 * time.Second
	idleTimeout = 2 * time.Minute
	// maxStreams bounds the number of pages that are open at the same time.
	maxStreams = 32
	// maxHeaderBytes and maxBodyBytes bound the size of a request.
	maxHeaderBytes = 16 << 10
	maxBodyBytes   = 4 << 10
)

// Cluster is the cluster that the page shows and changes.
type Cluster interface {
	// Tree returns the current state of the cluster, as package tree encodes it.
	Tree() ([]byte, error)
	// Load returns the load by clients since this process leads, and how many entries the slowest
	// follower lacks. That is nil if no follower has been in sync yet. ok is false if this process
	// is ending.
	Load() (load meter.Load, lag *uint64, ok bool)
	// Epoch returns the epoch in which this process is leader.
	Epoch() uint64
	// Kill kills the process of a member with SIGKILL. If that is this process, it ends shortly
	// after Kill returns.
	Kill(ctx context.Context, address string) error
	// Promote hands the leadership over, to the heir if the address is empty. It returns the
	// address of the successor.
	Promote(ctx context.Context, address string) (string, error)
	// Scale changes the number of followers by a number and returns the new number.
	Scale(ctx context.Context, by int) (int, error)
	// Services returns the services, as package ps encodes them.
	Services(ctx context.Context) ([]byte, error)
	// Hosts returns the hosts of the cluster, a hosts.List as JSON, or nil if this is a single host.
	Hosts(ctx context.Context) ([]byte, error)
	// Act carries out an action on a service or an instance. It returns the instances that the
	// action is about, as soon as it is accepted.
	Act(ctx context.Context, action member.Action, name string) ([]string, error)
}

// Config configures a Server. TokenFile and Logger are optional.
type Config struct {
	Cluster Cluster
	// DataDir is the directory that holds the events (package events).
	DataDir string
	// TokenFile is the file with the token that allows changes. If it is empty, the page is read-only.
	TokenFile string
	Logger    hclog.Logger
	// Interval is how often the page gets the state. 0 means one second.
	Interval time.Duration
	// Heartbeat is how often the leader hears from each follower. The page marks a follower as silent
	// that has missed several heartbeats.
	Heartbeat time.Duration
}

// Server serves the dashboard.
type Server struct {
	cfg     Config
	http    *http.Server
	streams atomic.Int32
	history history
	ended   context.Context
	end     context.CancelFunc
}

// New returns a server.
func New(c Config) *Server {
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	if c.Interval <= 0 {
		c.Interval = time.Second
	}
	s := &Server{cfg: c}
	s.ended, s.end = context.WithCancel(context.Background())
	s.http = &http.Server{
		Handler: s.guard(s.routes()), ReadHeaderTimeout: readTimeout, ReadTimeout: readTimeout, IdleTimeout: idleTimeout,
		MaxHeaderBytes: maxHeaderBytes, ConnState: gate.RequestIsProof,
		// The HTTP server only logs mistakes of browsers.
		ErrorLog: c.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	return s
}

// Serve answers the connections of l until Close. Then it returns nil.
func (s *Server) Serve(l net.Listener) error {
	sampled := make(chan struct{})
	go func() {
		defer close(sampled)
		s.history.record(s.ended, s.cfg.Interval, s.cfg.Cluster.Load)
	}()
	defer func() {
		s.end()
		<-sampled
	}()
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the dashboard: %w", err)
	}
	return nil
}

// closePatience bounds the time for the last answers.
const closePatience = 300 * time.Millisecond

// Close accepts no more connections, sends the last answers and closes all connections. Open pages
// reconnect to the next leader.
func (s *Server) Close() {
	s.end()
	ctx, cancel := context.WithTimeout(context.Background(), closePatience)
	defer cancel()
	if s.http.Shutdown(ctx) != nil {
		_ = s.http.Close()
	}
}

func (s *Server) routes() http.Handler {
	mux := http.NewServeMux()
	files, err := fs.Sub(page, "page")
	if err != nil {
		panic(err) // the directory is embedded above
	}
	static := http.FileServerFS(files)
	mux.Handle("GET /{$}", static)
	for _, name := range []string{"app.js", "view.js", "dom.js", "graph.js", "style.css", "favicon.svg"} {
		mux.Handle("GET /"+name, static)
	}
	mux.HandleFunc("GET /api/stream", s.stream)
	mux.HandleFunc("GET /api/tree", s.tree)
	s.actions(mux)
	return mux
}

// policy is the Content-Security-Policy. It forbids everything that the page does not need.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// guard refuses requests that name a foreign host (DNS rebinding). Another site can make its own
// host name resolve to this address, and then its pages have the same origin as this server. The
// Host header reveals that. Nobody else can own an IP address or localhost as a host name.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !ownHost(r.Host) {
			http.Error(w, "foreign host name in the request: open the dashboard by IP address or as localhost", http.StatusMisdirectedRequest)
			return
		}
		next.ServeHTTP(w, r)
	})
}

func ownHost(host string) bool {
	if name, _, err := net.SplitHostPort(host); err == nil {
		host = name
	}
	if host == "localhost" {
		return true
	}
	_, err := netip.ParseAddr(host)
	return err == nil
}

func (s *Server) tree(w http.ResponseWriter, _ *http.Request) {
	raw, err := s.cfg.Cluster.Tree()
	if err != nil {
		http.Error(w, err.Error(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "application/json")
	_, _ = w.Write(raw)
}
