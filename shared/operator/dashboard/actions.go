package dashboard

import (
	"context"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/rules/plural"
)

// minTokenBytes is the minimum length of a token, so that it cannot be guessed.
const minTokenBytes = 16

// actionTimeout bounds the action of a button.
const actionTimeout = 10 * time.Second

// ReadToken reads the token from a file. It returns an error if other users than the owner can
// access the file.
func ReadToken(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("dashboard.token_file: %w", err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		return "", fmt.Errorf("dashboard.token_file: %w", err)
	}
	if info.Mode()&0o077 != 0 {
		return "", fmt.Errorf("dashboard.token_file %s: mode %04o gives other users access: run chmod 600 %s", path, info.Mode().Perm(), path)
	}
	raw, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", fmt.Errorf("dashboard.token_file: %w", err)
	}
	token := strings.TrimSpace(string(raw))
	if len(token) < minTokenBytes {
		return "", fmt.Errorf("dashboard.token_file %s: the token has %d characters: use at least %d", path, len(token), minTokenBytes)
	}
	return token, nil
}

var (
	errReadOnly = errors.New("the dashboard is read-only: set dashboard.token_file to a file with a token, readable only by its owner")
	errToken    = errors.New("wrong token: use the one in the file that dashboard.token_file names")
)

// authorize checks the token of a request. It compares hashes, so that the time that it takes
// reveals neither the content nor the length of the token.
func (s *Server) authorize(r *http.Request) error {
	if s.cfg.TokenFile == "" {
		return errReadOnly
	}
	want, err := ReadToken(s.cfg.TokenFile)
	if err != nil {
		s.cfg.Logger.Warn("the dashboard is read-only", "error", err)
		return errReadOnly
	}
	got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 || !ok {
		s.cfg.Logger.Warn("the dashboard got a wrong token", "from", r.RemoteAddr)
		return errToken
	}
	return nil
}

// order is the request of a button.
type order struct {
	// Epoch is the epoch that the page showed. A browser that loses its connection before the
	// answer sends the request again, possibly to the next leader, which must not repeat the action.
	Epoch   uint64 `json:"epoch"`
	Address string `json:"address"`
	By      int    `json:"by"`
	Name    string `json:"name"` // a service or an instance
}

func (s *Server) actions(mux *http.ServeMux) {
	c := s.cfg.Cluster
	for name, do := range map[string]func(context.Context, order) (string, error){
		// check only tests the token.
		"check": func(context.Context, order) (string, error) { return "token accepted", nil },
		"kill": func(ctx context.Context, o order) (string, error) {
			return "killed " + o.Address, c.Kill(ctx, o.Address)
		},
		"promote": func(ctx context.Context, o order) (string, error) {
			to, err := c.Promote(ctx, o.Address)
			return "handing over to " + to, err
		},
		"scale": func(ctx context.Context, o order) (string, error) {
			if o.By != 1 && o.By != -1 {
				return "", fmt.Errorf("invalid change %d of the follower count: must be 1 or -1", o.By)
			}
			n, err := c.Scale(ctx, o.By)
			return "the leader now keeps " + plural.Count(n, "follower"), err
		},
		"services/start":   s.actOnService(member.ActionStart),
		"services/stop":    s.actOnService(member.ActionStop),
		"services/restart": s.actOnService(member.ActionRestart),
	} {
		mux.HandleFunc("POST /api/"+name, func(w http.ResponseWriter, r *http.Request) { s.act(w, r, name, do) })
	}
}

func (s *Server) actOnService(action member.Action) func(context.Context, order) (string, error) {
	return func(ctx context.Context, o order) (string, error) {
		ids, err := s.cfg.Cluster.Act(ctx, action, o.Name)
		return fmt.Sprintf("%s %s: accepted", action, strings.Join(ids, ", ")), err
	}
}

// act carries out the request of a button. The token is enough as a defence against pages of
// other sites, because a browser sends this header only for the page of the dashboard.
func (s *Server) act(w http.ResponseWriter, r *http.Request, name string, do func(context.Context, order) (string, error)) {
	if err := s.authorize(r); err != nil {
		http.Error(w, err.Error(), map[bool]int{true: http.StatusForbidden, false: http.StatusUnauthorized}[errors.Is(err, errReadOnly)])
		return
	}
	var o order
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil {
		http.Error(w, "invalid request: want a JSON object: "+err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), actionTimeout)
	defer cancel()
	if name != "check" {
		if now := s.cfg.Cluster.Epoch(); o.Epoch != now {
			http.Error(w, fmt.Sprintf("not done: the cluster is in epoch %d, but the request was made in epoch %d: check the page and try again", now, o.Epoch), http.StatusConflict)
			return
		}
		s.cfg.Logger.Info("order from the dashboard", "action", name, "address", o.Address, "by", o.By, "name", o.Name, "from", r.RemoteAddr)
	}
	text, err := do(ctx, o)
	if err != nil {
		http.Error(w, strings.TrimPrefix(status.Convert(err).Message(), "dynast: "), http.StatusConflict)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, text)
}
