package clienthttp

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

// maxScrapes bounds what impatient monitoring can make this process do at once.
const maxScrapes = 4

// Node is the process behind the port: a leader, or nobody would answer.
type Node interface {
	Alarms() []*pb.AlarmMember
	// Read tries to read from the store, without asking who may.
	Read(context.Context) error
	AuthEnabled() bool
}

// routes is all that is answered, under the paths of etcd.
func (s *Server) routes(gateway http.Handler) http.Handler {
	mux := http.NewServeMux()
	handleHealth(mux, s.cfg.Node, s.cfg.Logger)
	// What cannot be collected is left out and logged; the rest is served.
	mux.Handle("/metrics", promhttp.HandlerFor(s.cfg.Metrics, promhttp.HandlerOpts{
		ErrorLog: s.http.ErrorLog, ErrorHandling: promhttp.ContinueOnError, MaxRequestsInFlight: maxScrapes,
	}))
	mux.HandleFunc("/version", get(serveVersion))
	mux.Handle("/v3/", s.withoutCertificate(gateway))
	return sameOrigin(oldPaths(mux))
}

// serveVersion answers as etcd. Cluster and storage have the version of this
// program: all members run the same.
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

// oldPaths lets in clients from the time before version 3.4.
func oldPaths(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if rest, ok := strings.CutPrefix(r.URL.Path, "/v3beta/"); ok {
			r.URL.Path = "/v3/" + rest
		}
		h.ServeHTTP(w, r)
	})
}

// sameOrigin refuses what a browser sends for a page of another site. Other
// clients send no origin.
func sameOrigin(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if origin := r.Header.Get("Origin"); origin != "" {
			if u, err := url.Parse(origin); err != nil || !strings.EqualFold(u.Host, r.Host) {
				http.Error(w, "requests from pages of another site are refused", http.StatusForbidden)
				return
			}
		}
		h.ServeHTTP(w, r)
	})
}

// withoutCertificate refuses a request whose certificate names a user: over
// the gateway it would be silently without one. As etcd.
func (s *Server) withoutCertificate(h http.Handler) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.TLS != nil && s.cfg.Node.AuthEnabled() {
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
