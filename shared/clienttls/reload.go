package clienttls

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

// lookInterval is how often the files are looked at, if somebody connects.
const lookInterval = time.Second

// Files are the paths of PEM files. ClientCA may be empty: then clients need
// no certificate.
type Files struct{ Cert, Key, ClientCA string }

// Reloader has the configuration that the files say. It is safe for use by
// several goroutines.
type Reloader struct {
	logger hclog.Logger
	now    func() time.Time

	mu        sync.Mutex
	files     Files
	current   *configs // nil until the files were good once
	stamp     stamp    // of the files that current is from
	looked    time.Time
	complaint string
}

// configs are two of a kind: ALPN would choose h2 for clients that speak both.
type configs struct{ h2, http1 *tls.Config }

// New reads nothing yet. A nil logger logs nothing.
func New(f Files, logger hclog.Logger) *Reloader {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	return &Reloader{files: f, logger: logger, now: time.Now}
}

// SetFiles has the next connection use other files. If they are no good, what was
// there before goes on.
func (r *Reloader) SetFiles(f Files) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if f != r.files {
		r.files, r.stamp, r.looked = f, stamp{}, time.Time{}
	}
}

// Load reads the files now if they changed, and says what is wrong with them.
func (r *Reloader) Load() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.load()
}

// Config is for the listener. Each handshake gets the configuration of then.
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

// latest looks at the files if the last look is long enough ago.
func (r *Reloader) latest() (*configs, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if since := r.now().Sub(r.looked); r.looked.IsZero() || since >= lookInterval || since < 0 {
		err := r.load()
		if err != nil && err.Error() != r.complaint {
			r.complaint = err.Error()
			r.logger.Error("the files for TLS are not usable, what was there before stays", "error", err)
		}
	}
	if r.current == nil {
		return nil, errors.New("no certificate: " + r.complaint)
	}
	return r.current, nil
}

// load is called with the lock held.
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
	// What changed while it was read is read again at the next look.
	first := r.current == nil
	r.current, r.stamp, r.complaint = c, before, ""
	if !first {
		r.logger.Info("the files for TLS changed: new connections use them", "cert_file", r.files.Cert)
	}
	return nil
}

// stamp changes when one of the files does.
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
			return s, fmt.Errorf("look at the files for TLS: %w", err)
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
		return nil, fmt.Errorf("certificate %s with key %s: %w", r.files.Cert, r.files.Key, err)
	}
	base := &tls.Config{MinVersion: tls.VersionTLS12, Certificates: []tls.Certificate{cert}}
	if r.files.ClientCA != "" {
		pem, err := os.ReadFile(r.files.ClientCA)
		if err != nil {
			return nil, fmt.Errorf("client CA: %w", err)
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
