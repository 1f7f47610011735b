package pki

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"math/big"
	"os"
	"path/filepath"
	"time"

	"github.com/google/renameio/v2"
	"golang.org/x/sys/unix"
)

var (
	// ErrCorrupt means that the authority's files are damaged.
	ErrCorrupt = errors.New("corrupt certificate authority")
	// ErrEnded means that the authority's certificate is no longer valid.
	ErrEnded = errors.New("the certificate authority expired")
	// ErrUnsafe means that others than the owner can read the authority's key.
	ErrUnsafe = errors.New("the authority's key is no secret")
)

const (
	certName = "ca.crt"
	keyName  = "ca.key"
)

// The authority's certificate is valid for as long as the format can reasonably express. It
// ends with the cluster, not at a date.
var (
	authorityNotBefore = time.Date(2000, 1, 1, 0, 0, 0, 0, time.UTC)
	authorityNotAfter  = time.Date(2199, 12, 31, 0, 0, 0, 0, time.UTC)
)

// LoadOrCreate loads the authority of a directory, and makes key and certificate if they are
// missing. If several processes do so at the same time, one makes them and all load the same.
// If a process crashes in between, the next call completes the work.
func LoadOrCreate(dir, clusterName string) (*Authority, error) {
	a, err := Load(dir)
	if !errors.Is(err, os.ErrNotExist) {
		return a, err
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, fmt.Errorf("create certificate authority: %w", err)
	}
	unlock, err := lockDir(dir)
	if err != nil {
		return nil, fmt.Errorf("create certificate authority: %w", err)
	}
	defer unlock()
	if err := create(dir, clusterName); err != nil {
		return nil, fmt.Errorf("create certificate authority in %s: %w", dir, err)
	}
	return Load(dir)
}

// lockDir waits for an exclusive flock on the directory itself, which needs no lock file. It is
// held for milliseconds, once in the life of a cluster.
func lockDir(dir string) (unlock func(), err error) {
	fd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("open %s: %w", dir, err)
	}
	for {
		err = unix.Flock(fd, unix.LOCK_EX)
		if err != unix.EINTR {
			break
		}
	}
	if err != nil {
		unix.Close(fd)
		return nil, fmt.Errorf("lock %s: %w", dir, err)
	}
	return func() { unix.Close(fd) }, nil
}

// create makes what is missing. Members share the key, so it is never made anew while there is
// a certificate. A missing certificate is made for the existing key.
func create(dir, clusterName string) error {
	certPath, keyPath := filepath.Join(dir, certName), filepath.Join(dir, keyName)
	if exists(certPath) {
		return nil // another process was first; Load reports a missing key
	}
	if !exists(keyPath) {
		if err := createKey(keyPath); err != nil {
			return err
		}
	}
	key, err := readKey(keyPath)
	if err != nil {
		return err
	}
	raw, err := selfSign(key, clusterName)
	if err != nil {
		return err
	}
	if err := writePEM(certPath, "CERTIFICATE", raw, 0o644); err != nil {
		return err
	}
	return syncDirs(dir, filepath.Dir(dir))
}

func exists(path string) bool {
	_, err := os.Lstat(path)
	return !errors.Is(err, os.ErrNotExist)
}

func createKey(path string) error {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return err
	}
	raw, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return err
	}
	return writePEM(path, "PRIVATE KEY", raw, 0o600)
}

func selfSign(key *ecdsa.PrivateKey, clusterName string) ([]byte, error) {
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{Organization: []string{"dynast"}, CommonName: clusterName},
		NotBefore:             authorityNotBefore,
		NotAfter:              authorityNotAfter,
		KeyUsage:              x509.KeyUsageCertSign,
		BasicConstraintsValid: true,
		IsCA:                  true,
		MaxPathLenZero:        true, // it signs members and no other authorities
	}
	return x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
}

func newSerial() (*big.Int, error) {
	return rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
}

// writePEM writes a file as a whole. create syncs its directory.
func writePEM(path, kind string, raw []byte, mode os.FileMode) error {
	return writeFile(path, pem.EncodeToMemory(&pem.Block{Type: kind, Bytes: raw}), mode)
}

func writeFile(path string, data []byte, mode os.FileMode) error {
	return renameio.WriteFile(path, data, mode,
		renameio.WithTempDir(filepath.Dir(path)), renameio.WithStaticPermissions(mode))
}

func syncDirs(dirs ...string) error {
	for _, dir := range dirs {
		d, err := os.Open(dir)
		if err != nil {
			return err
		}
		if err := errors.Join(d.Sync(), d.Close()); err != nil {
			return err
		}
	}
	return nil
}

// Load loads the authority of a directory. The error is os.ErrNotExist if there is none,
// ErrUnsafe if others can read its key, and ErrCorrupt if its files are damaged.
func Load(dir string) (*Authority, error) {
	cert, err := readCertificate(filepath.Join(dir, certName))
	if err != nil {
		return nil, fmt.Errorf("load certificate authority: %w", err)
	}
	key, err := readKey(filepath.Join(dir, keyName))
	if errors.Is(err, os.ErrNotExist) {
		// This must not be ErrNotExist, because it would look like a first start.
		err = fmt.Errorf("%w: %s exists but %s is missing; restore it, or stop all members and remove %s to start a new authority", ErrCorrupt, certName, keyName, dir)
	}
	if err != nil {
		return nil, fmt.Errorf("load certificate authority: %w", err)
	}
	if !key.PublicKey.Equal(cert.PublicKey) {
		return nil, fmt.Errorf("load certificate authority: %w: %s and %s in %s do not belong together", ErrCorrupt, certName, keyName, dir)
	}
	return newAuthority(cert, key), nil
}

func readCertificate(path string) (*x509.Certificate, error) {
	raw, err := readPEM(path, "CERTIFICATE")
	if err != nil {
		return nil, err
	}
	cert, err := x509.ParseCertificate(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
	}
	if !cert.IsCA {
		return nil, fmt.Errorf("%w: %s is not the certificate of an authority", ErrCorrupt, path)
	}
	return cert, nil
}

func readKey(path string) (*ecdsa.PrivateKey, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if info.Mode().Perm()&0o077 != 0 {
		return nil, fmt.Errorf("%w: the mode of %s is %04o; chmod 600 it, and make a new one if somebody may have read it", ErrUnsafe, path, info.Mode().Perm())
	}
	raw, err := readPEM(path, "PRIVATE KEY")
	if err != nil {
		return nil, err
	}
	key, err := x509.ParsePKCS8PrivateKey(raw)
	if err != nil {
		return nil, fmt.Errorf("%w: %s: %w", ErrCorrupt, path, err)
	}
	ec, ok := key.(*ecdsa.PrivateKey)
	if !ok {
		return nil, fmt.Errorf("%w: %s is not an ECDSA key", ErrCorrupt, path)
	}
	return ec, nil
}

func readPEM(path, kind string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	block, _ := pem.Decode(data)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("%w: %s is not a PEM file with a %s", ErrCorrupt, path, kind)
	}
	return block.Bytes, nil
}
