package certs

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"slices"
	"sync"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

// lookInterval is how often the files are checked, when clients connect.
const lookInterval = time.Second

// Files are the paths of PEM files. If ClientCA is empty, clients need no certificate.
type Files struct{ Cert, Key, ClientCA string }

// Reloader provides the TLS configuration from files. Several goroutines may use it.
type Reloader struct {
	logger hclog.Logger
	now    func() time.Time

	mu        sync.Mutex
	files     Files
	current   *configs // nil until the files were valid once
	stamp     stamp    // of the files from which current was made
	looked    time.Time
	complaint string
}

// configs has two configurations, because with both protocols in one, ALPN would choose h2 for
// clients that offer both.
type configs struct{ h2, http1 *tls.Config }

// New returns a Reloader. It reads nothing yet. A nil logger logs nothing.
func New(f Files, logger hclog.Logger) *Reloader {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	return &Reloader{files: f, logger: logger, now: time.Now}
}

// SetFiles makes new connections use other files. If these are invalid, the previous ones stay
// in use.
func (r *Reloader) SetFiles(f Files) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f != r.files {
		r.files, r.stamp, r.looked = f, stamp{}, time.Time{}
	}
}

// Load reads the files now if they have changed, and returns what is wrong with them.
func (r *Reloader) Load() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.load()
}

// Config returns the configuration for the listener. Each handshake gets the current files.
func (r *Reloader) Config() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS12,
		GetConfigForClient: func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
			c, err := r.latest()
			if err != nil {
				return nil, err
			}
			if len(hello.SupportedProtos) == 0 || slices.Contains(hello.SupportedProtos, "http/1.1") {
				return c.http1, nil
			}
			return c.h2, nil
		},
	}
}

// latest checks the files if the last check is long enough ago.
func (r *Reloader) latest() (*configs, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if since := r.now().Sub(r.looked); r.looked.IsZero() || since >= lookInterval || since < 0 {
		err := r.load()
		if err != nil && err.Error() != r.complaint {
			r.complaint = err.Error()
			r.logger.Error("cannot use the new TLS files, keeping the old ones", "error", err)
		}
	}
	if r.current == nil {
		return nil, errors.New("no certificate: " + r.complaint)
	}
	return r.current, nil
}

// load is called with mu held.
func (r *Reloader) load() error {
	r.looked = r.now()
	before, err := r.look()
	if err != nil {
		return err
	}
	if r.current != nil && before == r.stamp {
		return nil
	}
	c, err := r.read()
	if err != nil {
		return err
	}
	// A change during the reading is noticed at the next check.
	first := r.current == nil
	r.current, r.stamp, r.complaint = c, before, ""
	if !first {
		r.logger.Info("TLS files changed, new connections use them", "cert_file", r.files.Cert)
	}
	return nil
}

// stamp differs when one of the files has changed.
type stamp [3]struct {
	changed, size int64
	inode         uint64
}

func (r *Reloader) look() (stamp, error) {
	var s stamp
	for i, path := range []string{r.files.Cert, r.files.Key, r.files.ClientCA} {
		if path == "" {
			continue
		}
		info, err := os.Stat(path)
		if err != nil {
			return s, fmt.Errorf("check the TLS files: %w", err)
		}
		s[i].changed, s[i].size = info.ModTime().UnixNano(), info.Size()
		if sys, ok := info.Sys().(*syscall.Stat_t); ok {
			s[i].inode = sys.Ino
		}
	}
	return s, nil
}

func (r *Reloader) read() (*configs, error) {
	cert, err := tls.LoadX509KeyPair(r.files.Cert, r.files.Key)
	if err != nil {
		return nil, fmt.Errorf("load certificate %s with key %s: %w", r.files.Cert, r.files.Key, err)
	}
	base := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	if r.files.ClientCA != "" {
		pem, err := os.ReadFile(r.files.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("load client CA: %w", err)
		}
		pool := x509.NewCertPool()
		if !pool.AppendCertsFromPEM(pem) {
			return nil, fmt.Errorf("client CA %s: no certificate in it", r.files.ClientCA)
		}
		base.ClientAuth, base.ClientCAs = tls.RequireAndVerifyClientCert, pool
	}
	c := &configs{h2: base.Clone(), http1: base}
	c.h2.NextProtos, c.http1.NextProtos = []string{"h2"}, []string{"http/1.1"}
	return c, nil
}
