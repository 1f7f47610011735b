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

	"github.com/dynast-io/dynast/shared/gate"
)

//go:embed page
var page embed.FS

const (
	readTimeout = 10 * time.Second
	idleTimeout = 2 * time.Minute
	// maxStreams bounds the pages that are open at once.
	maxStreams = 32
	// maxHeaderBytes and maxBodyBytes bound a request.
	maxHeaderBytes = 16 << 10
	maxBodyBytes   = 4 << 10
)

// Cluster is what the page shows and changes.
type Cluster interface {
	// Tree is the cluster now, as package tree encodes it.
	Tree() ([]byte, error)
	// Epoch is the leadership of this process.
	Epoch() uint64
	// Kill ends the process of a member by SIGKILL. When it is this one, it ends
	// a moment after Kill returns.
	Kill(ctx context.Context, address string) error
	// Promote hands the leadership over; to the heir if the address is empty. It returns to whom.
	Promote(ctx context.Context, address string) (string, error)
	// Scale changes how many followers are kept by a number, and returns how many they are then.
	Scale(ctx context.Context, by int) (int, error)
}

// Config is all that a Server needs. TokenFile and Logger may be left out.
type Config struct {
	Cluster Cluster
	// DataDir has the events (package events).
	DataDir string
	// TokenFile has the token that allows changes; empty: there are none.
	TokenFile string
	Logger    hclog.Logger
	// Interval is the pace of the page; 0 is a second.
	Interval time.Duration
}

// Server serves the page.
type Server struct {
	cfg     Config
	http    *http.Server
	streams atomic.Int32
	ended   context.Context
	end     context.CancelFunc
}

// New makes a server.
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
		// What it logs is what browsers do wrong.
		ErrorLog: c.Logger.StandardLogger(&hclog.StandardLoggerOptions{ForceLevel: hclog.Debug}),
	}
	return s
}

// Serve answers what comes from l until Close, and then returns nil.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); !errors.Is(err, http.ErrServerClosed) {
		return fmt.Errorf("serve the dashboard: %w", err)
	}
	return nil
}

// closePatience is how long the last answers have.
const closePatience = 300 * time.Millisecond

// Close accepts nothing more, gives the last answers, and ends all
// connections. Pages that are open connect again, to the next leader.
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
	mux.Handle("GET /app.js", static)
	mux.Handle("GET /graph.js", static)
	mux.Handle("GET /style.css", static)
	mux.HandleFunc("GET /api/stream", s.stream)
	mux.HandleFunc("GET /api/tree", s.tree)
	s.actions(mux)
	return mux
}

// policy forbids the page all that it does not need.
const policy = "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; img-src 'self'; " +
	"base-uri 'none'; form-action 'none'; frame-ancestors 'none'"

// guard refuses requests that name a host that is not this one. A page of
// another site can make its own name point here and would then be of the same
// origin; the name is what gives it away. Addresses and localhost cannot be had by others.
func (s *Server) guard(next http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h := w.Header()
		h.Set("Content-Security-Policy", policy)
		h.Set("X-Content-Type-Options", "nosniff")
		h.Set("Referrer-Policy", "no-referrer")
		h.Set("Cross-Origin-Resource-Policy", "same-origin")
		h.Set("Cache-Control", "no-store")
		if !ownHost(r.Host) {
			http.Error(w, "this page is to be asked for by an IP address or localhost", http.StatusMisdirectedRequest)
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
