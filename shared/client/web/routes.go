package web

import (
	"context"
	"encoding/json"
	"net/http"
	"net/url"
	"strings"

	"github.com/coreos/go-semver/semver"
	"github.com/prometheus/client_golang/prometheus/promhttp"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/version"
)

// maxScrapes bounds how many scrapes this process answers at the same time.
const maxScrapes = 4

// Node is the process behind the port. It is a leader, because no other process answers.
type Node interface {
	Alarms() []*pb.AlarmMember
	// Read tries a read from the store, without a permission check.
	Read(context.Context) error
}

// routes returns the handler of all paths. They are etcd's.
func (s *Server) routes(gateway http.Handler) http.Handler {
	mux := http.NewServeMux()
	if s.cfg.Health != nil {
		s.cfg.Health(mux)
	} else {
		handleHealth(mux, s.cfg.Node, s.cfg.Logger)
		mux.HandleFunc("/version", get(serveVersion))
	}
	// Metrics that cannot be collected are left out and logged. The others are served.
	mux.Handle("/metrics", promhttp.HandlerFor(s.cfg.Metrics, promhttp.HandlerOpts{
		ErrorLog: s.http.ErrorLog, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes,
	}))
	mux.Handle("/v3/", s.withoutCertificate(gateway))
	return sameOrigin(oldPaths(mux))
}

// serveVersion answers like etcd. Cluster and storage have the version of this program, because
// all members run the same.
func serveVersion(w http.ResponseWriter, _ *http.Request) {
	v := semver.New(version.Version)
	minor := (&semver.Version{Major: v.Major, Minor: v.Minor}).String()
	w.Header().Set("Content-Type", "application/json")
	body, err := json.Marshal(version.Versions{Server: version.Version, Cluster: minor, Storage: minor})
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	_, _ = w.Write(body)
}

// oldPaths serves clients of etcd before version 3.4.
func oldPaths(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/v3beta/"); ok {
			r.URL.Path = "/v3/" + rest
		}
		h.ServeHTTP(w, r)
	})
}

// sameOrigin refuses requests that a browser sends for a page of another site. Other clients
// send no origin.
func sameOrigin(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if origin := r.Header.Get("Origin"); origin != "" {
			if u, err := url.Parse(origin); err != nil || !strings.EqualFold(u.Host, r.Host) {
				http.Error(w, "request refused: it comes from a page of another site", http.StatusForbidden)
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// withoutCertificate refuses a request whose certificate names a user, as etcd does. Over the
// gateway the request would silently run without that user.
func (s *Server) withoutCertificate(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && s.cfg.AuthEnabled() {
			for _, chain := range r.TLS.VerifiedChains {
				if len(chain) > 0 && chain[0].Subject.CommonName != "" {
					http.Error(w, "CommonName of client sending a request against gateway will be ignored and not used as expected", http.StatusBadRequest)
					return
				}
			}
		}
		h.ServeHTTP(w, r)
	})
}
