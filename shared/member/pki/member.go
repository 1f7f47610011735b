package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"fmt"
	"sync"
	"time"
)

// ServerName is the name in every member's certificate.
const ServerName = "dynast"

const (
	// life is how long a member's certificate is valid. Only handshakes check it, so
	// connections continue after it ends.
	life = 24 * time.Hour
	// skew is how far the clocks of two members may differ.
	skew = time.Hour
)

// Authority makes certificates for this process, and recognizes those of the same cluster.
// Several goroutines may use it.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	pool *x509.CertPool
	now  func() time.Time

	mu     sync.Mutex
	member *tls.Certificate // the current one; nil at first
	minted time.Time
}

func newAuthority(cert *x509.Certificate, key *ecdsa.PrivateKey) *Authority {
	pool := x509.NewCertPool()
	pool.AddCert(cert)
	return &Authority{cert: cert, key: key, pool: pool, now: time.Now}
}

// ServerTLS returns the configuration of the accepting side. It admits only members of the same
// cluster.
func (a *Authority) ServerTLS() *tls.Config {
	return &tls.Config{
		MinVersion:     tls.VersionTLS13,
		ClientAuth:     tls.RequireAndVerifyClientCert,
		ClientCAs:      a.pool,
		GetCertificate: func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.certificate() },
		// A resumed session would not be checked against the clock again.
		SessionTicketsDisabled: true,
		NextProtos:             []string{"h2"}, // gRPC requires it
		Time:                   a.now,
	}
}

// ClientTLS returns the configuration of the connecting side.
func (a *Authority) ClientTLS() *tls.Config {
	return &tls.Config{
		MinVersion: tls.VersionTLS13,
		RootCAs:    a.pool,
		ServerName: ServerName,
		GetClientCertificate: func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
			return a.certificate()
		},
		NextProtos: []string{"h2"},
		Time:       a.now,
	}
}

// certificate returns the current certificate. It makes a new one after two thirds of its life,
// or when the clock was set back to before its beginning.
func (a *Authority) certificate() (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if a.member != nil && now.Before(a.minted.Add(life*2/3)) && now.After(a.minted.Add(-skew)) {
		return a.member, nil
	}
	if now.After(a.cert.NotAfter) {
		return nil, fmt.Errorf("%w on %s, and this host's clock says %s: correct the clock; if it is right, stop all members and remove the directory pki",
			ErrEnded, a.cert.NotAfter.Format(time.DateOnly), now.Format(time.DateOnly))
	}
	member, err := a.mint(now)
	if err != nil {
		return nil, fmt.Errorf("make a member's certificate: %w", err)
	}
	// The monotonic clock is removed, because the other side uses the wall clock.
	a.member, a.minted = member, now.Round(0)
	return member, nil
}

func (a *Authority) mint(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{Organization: []string{"dynast"}, CommonName: "member"},
		DNSNames:     []string{ServerName},
		NotBefore:    now.Add(-skew),
		NotAfter:     now.Add(life),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth, x509.ExtKeyUsageClientAuth},
	}
	raw, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{raw}, PrivateKey: key, Leaf: leaf}, nil
}
