package web

import (
	"context"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/hashicorp/go-hclog"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
)

// The answers are those of etcd's package etcdhttp. Its handlers are not used, because that
// package imports etcd's whole server, whose metrics would then report that there is no leader.

// healthTimeout bounds the read of a health check, as in etcd.
const healthTimeout = 5 * time.Second

// check is one condition of health.
type check struct {
	name string
	run  func(context.Context, Node) error
}

var (
	livez  = []check{{"serializable_read", readable}}
	readyz = []check{
		{"data_corruption", uncorrupted},
		{"serializable_read", readable},
		// Both kinds of read are the same here, because only a leader answers.
		{"linearizable_read", readable},
		{"non_learner", func(context.Context, Node) error { return nil }},
	}
)

func readable(ctx context.Context, n Node) error {
	ctx, cancel := context.WithTimeout(ctx, healthTimeout)
	defer cancel()
	return n.Read(ctx)
}

func uncorrupted(_ context.Context, n Node) error {
	for _, a := range n.Alarms() {
		if a.Alarm == pb.AlarmType_CORRUPT {
			return fmt.Errorf("alarm activated: %s", a.Alarm)
		}
	}
	return nil
}

// handleHealth adds /health, /livez and /readyz, and a path for each check below the latter
// two.
func handleHealth(mux *http.ServeMux, n Node, logger hclog.Logger) {
	mux.HandleFunc("/health", get(func(w http.ResponseWriter, r *http.Request) { serveHealth(w, r, n, logger) }))
	for root, checks := range map[string][]check{"/livez": livez, "/readyz": readyz} {
		mux.HandleFunc(root, get(func(w http.ResponseWriter, r *http.Request) {
			serveChecks(w, r, n, logger, without(checks, r.URL.Query()["exclude"]))
		}))
		for _, c := range checks {
			mux.HandleFunc(root+"/"+c.name, get(func(w http.ResponseWriter, r *http.Request) {
				serveChecks(w, r, n, logger, []check{c})
			}))
		}
	}
}

// get refuses all methods except GET.
func get(h http.HandlerFunc) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if r.Method != http.MethodGet {
			w.Header().Set("Allow", http.MethodGet)
			http.Error(w, "Method Not Allowed", http.StatusMethodNotAllowed)
			return
		}
		h(w, r)
	}
}

func serveHealth(w http.ResponseWriter, r *http.Request, n Node, logger hclog.Logger) {
	reason := sick(r.Context(), n, r.URL.Query()["exclude"])
	answer := struct {
		Health string `json:"health"`
		Reason string `json:"reason"`
	}{fmt.Sprint(reason == ""), reason}
	body, err := json.Marshal(answer)
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	if reason != "" {
		logger.Warn("not healthy", "path", r.URL.Path, "reason", reason)
		http.Error(w, string(body), http.StatusServiceUnavailable)
		return
	}
	_, _ = w.Write(body)
}

// sick returns what is wrong, or an empty text. It ignores the alarms named in excluded.
func sick(ctx context.Context, n Node, excluded []string) string {
	for _, a := range n.Alarms() {
		name := a.Alarm.String()
		if slices.Contains(excluded, name) {
			continue
		}
		switch a.Alarm {
		case pb.AlarmType_NOSPACE, pb.AlarmType_CORRUPT:
			return "ALARM " + name
		default:
			return "ALARM UNKNOWN"
		}
	}
	if err := readable(ctx, n); err != nil {
		return "RANGE ERROR:" + err.Error()
	}
	return ""
}

func serveChecks(w http.ResponseWriter, r *http.Request, n Node, logger hclog.Logger, checks []check) {
	var text strings.Builder
	failed := false
	for _, c := range checks {
		if err := c.run(r.Context(), n); err != nil {
			failed = true
			fmt.Fprintf(&text, "[-]%s failed: %v\n", c.name, err)
		} else {
			fmt.Fprintf(&text, "[+]%s ok\n", c.name)
		}
	}
	if failed {
		logger.Warn("not healthy", "path", r.URL.Path, "reason", text.String())
		http.Error(w, text.String(), http.StatusServiceUnavailable)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	w.Header().Set("X-Content-Type-Options", "nosniff")
	if r.URL.Query().Has("verbose") {
		fmt.Fprint(w, text.String())
	}
	fmt.Fprint(w, "ok\n")
}

// without returns the checks that are not named. Unknown names are ignored.
func without(checks []check, names []string) []check {
	var out []check
	for _, c := range checks {
		if !slices.Contains(names, c.name) {
			out = append(out, c)
		}
	}
	return out
}
