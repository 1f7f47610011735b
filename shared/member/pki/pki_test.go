package pki

import (
	"crypto/tls"
	"crypto/x509"
	"errors"
	"io"
	"net"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func newTestAuthority(t testing.TB) *Authority {
	t.Helper()
	a, err := LoadOrCreate(filepath.Join(t.TempDir(), "pki"), "test")
	if err != nil {
		t.Fatal(err)
	}
	return a
}

// handshake connects a client to a server, exchanges a byte in each direction, and returns the
// errors of both. (In TLS 1.3 a client learns only when it reads that it was refused.)
func handshake(t *testing.T, server, client *tls.Config) (serverErr, clientErr error) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	done := make(chan error, 1)
	go func() {
		c, err := l.Accept()
		if err == nil {
			defer c.Close()
			err = exchange(tls.Server(c, server))
		}
		done <- err
	}()
	c, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	clientErr = exchange(tls.Client(c, client))
	c.Close()
	return <-done, clientErr
}

func exchange(c *tls.Conn) error {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if err := c.Handshake(); err != nil {
		return err
	}
	if _, err := c.Write([]byte{'x'}); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

func TestMembersRecogniseEachOther(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	a, err := LoadOrCreate(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	b, err := Load(dir) // as another process would
	if err != nil {
		t.Fatal(err)
	}
	if s, c := handshake(t, a.ServerTLS(), b.ClientTLS()); s != nil || c != nil {
		t.Errorf("server: %v, client: %v", s, c)
	}
	if s, c := handshake(t, b.ServerTLS(), a.ClientTLS()); s != nil || c != nil {
		t.Errorf("server: %v, client: %v", s, c)
	}
}

func TestStrangersAreRefused(t *testing.T) {
	a, other := newTestAuthority(t), newTestAuthority(t) // of the same name
	selfMade := a.ClientTLS()
	selfMade.GetClientCertificate = func(*tls.CertificateRequestInfo) (*tls.Certificate, error) {
		return other.certificate() // sent although the server asked for others
	}
	bare := a.ClientTLS()
	bare.GetClientCertificate = nil
	old := a.ClientTLS()
	old.MinVersion, old.MaxVersion = tls.VersionTLS12, tls.VersionTLS12
	for name, client := range map[string]*tls.Config{
		"no certificate": bare, "another authority's": selfMade, "TLS 1.2": old,
	} {
		if s, c := handshake(t, a.ServerTLS(), client); s == nil || c == nil {
			t.Errorf("%s: server: %v, client: %v", name, s, c)
		}
	}
	// The client refuses a server of another cluster.
	s, c := handshake(t, other.ServerTLS(), a.ClientTLS())
	var unknown x509.UnknownAuthorityError
	if s == nil || !errors.As(c, &unknown) {
		t.Errorf("another cluster: server: %v, client: %v", s, c)
	}
	wrongName := a.ClientTLS()
	wrongName.ServerName = "example.org"
	if s, c := handshake(t, a.ServerTLS(), wrongName); s == nil || c == nil {
		t.Errorf("another name: server: %v, client: %v", s, c)
	}
}

// clock is a clock that tests set.
type clock struct {
	mu sync.Mutex
	at time.Time
}

func (c *clock) now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.at
}

func (c *clock) add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.at = c.at.Add(d)
}

func TestCertificatesRenewThemselves(t *testing.T) {
	a := newTestAuthority(t)
	c := &clock{at: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	a.now = c.now
	server, client := a.ServerTLS(), a.ClientTLS()
	var last *tls.Certificate
	for _, step := range []struct {
		after   time.Duration
		renewed bool
	}{
		{0, true}, {life / 2, false}, {life/6 - time.Second, false}, {time.Second, true},
		{100 * 365 * life, true},     // a cluster that nobody restarts
		{-skew / 2, false},           // the clock was corrected a little
		{-20 * 365 * life, true},     // and a lot
		{life*2/3 - 1, false},        //
		{time.Nanosecond, true},      //
		{-40 * 365 * life, true},     //
		{-50 * 365 * life / 2, true}, // about 2045
	} {
		c.add(step.after)
		cert, err := a.certificate()
		if err != nil {
			t.Fatal(err)
		}
		if (cert != last) != step.renewed {
			t.Errorf("at %v: renewed %v, want %v", c.now(), cert != last, step.renewed)
		}
		last = cert
		// The configurations made at the start continue to work.
		if s, cl := handshake(t, server, client); s != nil || cl != nil {
			t.Fatalf("at %v: server: %v, client: %v", c.now(), s, cl)
		}
	}
}

// A connection continues when the certificates of both ends have expired. The same
// configurations make new connections, to and from processes that were started later.
func TestConnectionsOutliveCertificates(t *testing.T) {
	a := newTestAuthority(t)
	c := &clock{at: time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)}
	a.now = c.now
	server, client := a.ServerTLS(), a.ClientTLS()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	accepted := make(chan net.Conn, 1)
	go func() {
		conn, err := l.Accept()
		if err != nil {
			t.Error(err)
		}
		accepted <- conn
	}()
	raw, err := net.Dial("tcp", l.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	near, far := tls.Client(raw, client), tls.Server(<-accepted, server)
	defer far.Close()
	for day := range 400 {
		done := make(chan error, 1)
		go func() { done <- exchange(far) }()
		if err := errors.Join(exchange(near), <-done); err != nil {
			t.Fatalf("day %d: %v", day, err)
		}
		if day%40 == 0 {
			if s, cl := handshake(t, server, client); s != nil || cl != nil {
				t.Fatalf("day %d: server: %v, client: %v", day, s, cl)
			}
		}
		c.add(24 * time.Hour)
	}
	if leaf := near.ConnectionState().PeerCertificates[0]; !leaf.NotAfter.Before(c.now()) {
		t.Error("the certificate of the old connection has not ended: nothing was tested")
	}
}

// The authority expires in 2199. Until its last day everything works, and after it the error
// says why it does not.
func TestAuthorityExpires(t *testing.T) {
	a := newTestAuthority(t)
	c := &clock{at: authorityNotAfter.Add(-time.Minute)}
	a.now = c.now
	server, client := a.ServerTLS(), a.ClientTLS()
	if s, cl := handshake(t, server, client); s != nil || cl != nil {
		t.Errorf("on its last day: server: %v, client: %v", s, cl)
	}
	c.add(life)
	if s, cl := handshake(t, server, client); s == nil || cl == nil {
		t.Errorf("after its end: server: %v, client: %v", s, cl)
	}
	if _, err := a.certificate(); !errors.Is(err, ErrEnded) {
		t.Errorf("after its end: %v", err)
	}
	c.add(-2 * life) // the clock was wrong
	if s, cl := handshake(t, server, client); s != nil || cl != nil {
		t.Errorf("with the clock put right: server: %v, client: %v", s, cl)
	}
}

func TestClockSkew(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	a, err := LoadOrCreate(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	b, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	at := time.Date(2030, 1, 1, 0, 0, 0, 0, time.UTC)
	a.now = func() time.Time { return at }
	for ahead, ok := range map[time.Duration]bool{skew - time.Second: true, -skew + time.Second: true, skew + 2*time.Second: false} {
		later := at.Add(ahead)
		b.now, b.member = func() time.Time { return later }, nil
		s, c := handshake(t, a.ServerTLS(), b.ClientTLS())
		if (s == nil && c == nil) != ok {
			t.Errorf("%v ahead: server: %v, client: %v", ahead, s, c)
		}
	}
}

func TestCreateIsSafeWhenRaced(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	const racers = 8
	certs := make([]*x509.Certificate, racers)
	var wg sync.WaitGroup
	for i := range racers {
		wg.Go(func() {
			a, err := LoadOrCreate(dir, "test")
			if err != nil {
				t.Error(err)
				return
			}
			certs[i] = a.cert
		})
	}
	wg.Wait()
	for _, c := range certs {
		if c == nil || !c.Equal(certs[0]) {
			t.Fatal("the racers have different authorities")
		}
	}
	names, err := os.ReadDir(dir)
	if err != nil || len(names) != 2 {
		t.Errorf("left in the directory: %v, %v", names, err)
	}
	for name, want := range map[string]os.FileMode{keyName: 0o600, certName: 0o644, ".": os.ModeDir | 0o700} {
		if info, err := os.Stat(filepath.Join(dir, name)); err != nil || info.Mode() != want {
			t.Errorf("%s: mode %v, %v; want %v", name, info.Mode(), err, want)
		}
	}
}

// A crash between the two files leaves the key. The certificate is then made for it.
func TestCreateRecoversFromACrash(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	a, err := LoadOrCreate(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(filepath.Join(dir, certName)); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir); !errors.Is(err, os.ErrNotExist) {
		t.Fatalf("load: %v", err)
	}
	b, err := LoadOrCreate(dir, "test")
	if err != nil {
		t.Fatal(err)
	}
	if !a.key.Equal(b.key) {
		t.Fatal("the key was made anew")
	}
	// Members with the lost certificate and members with the new one accept each other.
	if s, c := handshake(t, a.ServerTLS(), b.ClientTLS()); s != nil || c != nil {
		t.Errorf("server: %v, client: %v", s, c)
	}
}

func TestLoadRefuses(t *testing.T) {
	fresh := func() string {
		dir := filepath.Join(t.TempDir(), "pki")
		if _, err := LoadOrCreate(dir, "test"); err != nil {
			t.Fatal(err)
		}
		return dir
	}
	if _, err := Load(t.TempDir()); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("nothing there: %v", err)
	}
	for name, tc := range map[string]struct {
		harm func(dir string) error
		want error
	}{
		"key missing":  {func(dir string) error { return os.Remove(filepath.Join(dir, keyName)) }, ErrCorrupt},
		"key readable": {func(dir string) error { return os.Chmod(filepath.Join(dir, keyName), 0o640) }, ErrUnsafe},
		"key empty":    {func(dir string) error { return os.Truncate(filepath.Join(dir, keyName), 0) }, ErrCorrupt},
		"cert cut":     {func(dir string) error { return os.Truncate(filepath.Join(dir, certName), 100) }, ErrCorrupt},
		"another's key": {func(dir string) error {
			return os.Rename(filepath.Join(fresh(), keyName), filepath.Join(dir, keyName))
		}, ErrCorrupt},
		"a key for a certificate": {func(dir string) error {
			return os.Rename(filepath.Join(dir, keyName), filepath.Join(dir, certName))
		}, ErrCorrupt},
	} {
		dir := fresh()
		if err := tc.harm(dir); err != nil {
			t.Fatal(err)
		}
		for what, load := range map[string]func() (*Authority, error){
			"Load":         func() (*Authority, error) { return Load(dir) },
			"LoadOrCreate": func() (*Authority, error) { return LoadOrCreate(dir, "test") },
		} {
			if _, err := load(); !errors.Is(err, tc.want) || errors.Is(err, os.ErrNotExist) {
				t.Errorf("%s, %s: %v, want %v", name, what, err, tc.want)
			}
		}
	}
}

func BenchmarkLoadAndMint(b *testing.B) {
	dir := filepath.Join(b.TempDir(), "pki")
	if _, err := LoadOrCreate(dir, "test"); err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		a, err := Load(dir)
		if err == nil {
			_, err = a.certificate()
		}
		if err != nil {
			b.Fatal(err)
		}
	}
}
