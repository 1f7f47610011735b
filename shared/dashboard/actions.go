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
)

// minTokenBytes is how long a token has to be at least: it must not be guessed.
const minTokenBytes = 16

// actionTimeout bounds what a button does.
const actionTimeout = 10 * time.Second

// ReadToken reads the token of a file. Others than its owner must not be able
// to read the file.
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
		return "", fmt.Errorf("dashboard.token_file %s: its mode %04o lets others read it; chmod 600 %s", path, info.Mode().Perm(), path)
	}
	raw, err := io.ReadAll(io.LimitReader(f, 4096))
	if err != nil {
		return "", fmt.Errorf("dashboard.token_file: %w", err)
	}
	token := strings.TrimSpace(string(raw))
	if len(token) < minTokenBytes {
		return "", fmt.Errorf("dashboard.token_file %s: the token has %d characters; want at least %d", path, len(token), minTokenBytes)
	}
	return token, nil
}

var (
	errReadOnly = errors.New("this page is for looking only: dashboard.token_file is not set")
	errToken    = errors.New("the token is not right")
)

// authorize checks the token of a request. It is compared as a hash, so that
// neither its content nor its length shows in the time.
func (s *Server) authorize(r *http.Request) error {
	if s.cfg.TokenFile == "" {
		return errReadOnly
	}
	want, err := ReadToken(s.cfg.TokenFile)
	if err != nil {
		s.cfg.Logger.Warn("the dashboard can change nothing", "error", err)
		return errReadOnly
	}
	got, ok := strings.CutPrefix(r.Header.Get("Authorization"), "Bearer ")
	a, b := sha256.Sum256([]byte(got)), sha256.Sum256([]byte(want))
	if subtle.ConstantTimeCompare(a[:], b[:]) != 1 || !ok {
		s.cfg.Logger.Warn("the dashboard got a token that is not right", "from", r.RemoteAddr)
		return errToken
	}
	return nil
}

// order is what a button asks for.
type order struct {
	// Epoch is the one that was seen by who asks. A browser that loses its
	// connection before the answer sends the request again, to the next leader then:
	// that one must not do it once more.
	Epoch   uint64 `json:"epoch"`
	Address string `json:"address"`
	By      int    `json:"by"`
}

func (s *Server) actions(mux *http.ServeMux) {
	c := s.cfg.Cluster
	for name, do := range map[string]func(context.Context, order) (string, error){
		// check only asks whether the token is right.
		"check": func(context.Context, order) (string, error) { return "the token is right", nil },
		"kill": func(ctx context.Context, o order) (string, error) {
			return "killed " + o.Address, c.Kill(ctx, o.Address)
		},
		"promote": func(ctx context.Context, o order) (string, error) {
			to, err := c.Promote(ctx, o.Address)
			return "handing over to " + to, err
		},
		"scale": func(ctx context.Context, o order) (string, error) {
			if o.By != 1 && o.By != -1 {
				return "", errors.New("scale by 1 or -1")
			}
			n, err := c.Scale(ctx, o.By)
			return fmt.Sprintf("%d followers are kept", n), err
		},
	} {
		mux.HandleFunc("POST /api/"+name, func(w http.ResponseWriter, r *http.Request) { s.act(w, r, name, do) })
	}
}

// act needs no other defence against pages of other sites than the token: a
// browser sends this header for its own page only.
func (s *Server) act(w http.ResponseWriter, r *http.Request, name string, do func(context.Context, order) (string, error)) {
	if err := s.authorize(r); err != nil {
		http.Error(w, err.Error(), map[bool]int{true: http.StatusForbidden, false: http.StatusUnauthorized}[errors.Is(err, errReadOnly)])
		return
	}
	var o order
	dec := json.NewDecoder(http.MaxBytesReader(w, r.Body, maxBodyBytes))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&o); err != nil {
		http.Error(w, "want a JSON object: "+err.Error(), http.StatusBadRequest)
		return
	}
	ctx, cancel := context.WithTimeout(r.Context(), actionTimeout)
	defer cancel()
	if name != "check" {
		if now := s.cfg.Cluster.Epoch(); o.Epoch != now {
			http.Error(w, fmt.Sprintf("this is epoch %d, and the order was given in epoch %d: look again", now, o.Epoch), http.StatusConflict)
			return
		}
		s.cfg.Logger.Info("the dashboard was told to", "action", name, "address", o.Address, "by", o.By, "from", r.RemoteAddr)
	}
	text, err := do(ctx, o)
	if err != nil {
		http.Error(w, strings.TrimPrefix(status.Convert(err).Message(), "dynast: "), http.StatusConflict)
		return
	}
	w.Header().Set("Content-Type", "text/plain; charset=utf-8")
	_, _ = io.WriteString(w, text)
}
