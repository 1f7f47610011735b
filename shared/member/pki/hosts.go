package pki

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"
)

// Renew is how often a host writes new certificate files; see WriteFiles. They are valid for three
// times as long.
const Renew = life / 3

// hostName is the file with a host's certificate and its key. They are in one file, so that they
// change together.
const hostName = "host.pem"

// Files are the paths of a certificate, its key and the certificate of the authority, for software
// that reads files.
type Files struct{ Cert, Key, CA string }

// WriteFiles writes a new certificate of this process into the authority's directory.
func (a *Authority) WriteFiles(dir string) (Files, error) {
	path := filepath.Join(dir, hostName)
	f := Files{Cert: path, Key: path, CA: filepath.Join(dir, certName)}
	c, err := a.mint(a.now())
	if err != nil {
		return f, fmt.Errorf("make a host's certificate: %w", err)
	}
	key, err := x509.MarshalPKCS8PrivateKey(c.PrivateKey)
	if err != nil {
		return f, fmt.Errorf("make a host's certificate: %w", err)
	}
	both := append(pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: key}), pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: c.Certificate[0]})...)
	return f, writeFile(path, both, 0o600)
}

// HostTLS returns the configuration of a host's server. A client without a certificate is let in,
// so that it can ask to join; the server must look at the verified chains of each request. The
// server shows the authority's certificate too, which a joining host compares with its token.
func (a *Authority) HostTLS() *tls.Config {
	c := a.ServerTLS()
	c.ClientAuth, c.NextProtos = tls.VerifyClientCertIfGiven, []string{"http/1.1"}
	c.GetCertificate = func(*tls.ClientHelloInfo) (*tls.Certificate, error) {
		m, err := a.certificate()
		if err != nil {
			return nil, err
		}
		chain := *m
		chain.Certificate = [][]byte{m.Certificate[0], a.cert.Raw}
		return &chain, nil
	}
	return c
}

// HostClientTLS returns the configuration of a host that asks another one.
func (a *Authority) HostClientTLS() *tls.Config {
	c := a.ClientTLS()
	c.NextProtos = []string{"http/1.1"}
	return c
}

// Named reports whether the authority was made for the cluster with this name.
func (a *Authority) Named(cluster string) bool { return a.cert.Subject.CommonName == cluster }

// Raw returns the authority's certificate (DER).
func (a *Authority) Raw() []byte { return a.cert.Raw }

// ErrOtherAuthority means that a server has a certificate of another authority than expected.
var ErrOtherAuthority = errors.New("the server belongs to another cluster than the token, or somebody is in between")

// PinnedTLS returns the configuration of a host that knows only the SHA-256 of the authority's
// certificate.
func PinnedTLS(sum [sha256.Size]byte) *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		NextProtos: []string{"http/1.1"},
		// The chain is verified below, against the one certificate that the checksum names.
		InsecureSkipVerify: true,
		VerifyConnection: func(s tls.ConnectionState) error {
			pool := x509.NewCertPool()
			for _, c := range s.PeerCertificates {
				if got := sha256.Sum256(c.Raw); bytes.Equal(got[:], sum[:]) {
					pool.AddCert(c)
				}
			}
			_, err := s.PeerCertificates[0].Verify(x509.VerifyOptions{Roots: pool, DNSName: ServerName, CurrentTime: time.Now()})
			var unknown x509.UnknownAuthorityError
			if errors.As(err, &unknown) {
				return ErrOtherAuthority
			}
			return err
		},
	}
}

// Export returns the certificate and the key of an authority's directory, in PEM.
func Export(dir string) (cert, key []byte, err error) {
	if _, err := Load(dir); err != nil {
		return nil, nil, err
	}
	if cert, err = os.ReadFile(filepath.Join(dir, certName)); err != nil {
		return nil, nil, err
	}
	key, err = os.ReadFile(filepath.Join(dir, keyName))
	return cert, key, err
}

// Import writes what Export returned into a directory, and loads it. What is there is replaced.
func Import(dir string, cert, key []byte) (*Authority, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("import certificate authority: %w", err)
	}
	if err := writeFile(filepath.Join(dir, keyName), key, 0o600); err != nil {
		return nil, err
	}
	if err := writeFile(filepath.Join(dir, certName), cert, 0o644); err != nil {
		return nil, err
	}
	if err := syncDirs(dir, filepath.Dir(dir)); err != nil {
		return nil, fmt.Errorf("import certificate authority: %w", err)
	}
	return Load(dir)
}

// Sum returns the SHA-256 of a certificate in PEM.
func Sum(certificate []byte) (sum [sha256.Size]byte, err error) {
	block, _ := pem.Decode(certificate)
	if block == nil || block.Type != "CERTIFICATE" {
		return sum, fmt.Errorf("%w: not a certificate", ErrCorrupt)
	}
	return sha256.Sum256(block.Bytes), nil
}
