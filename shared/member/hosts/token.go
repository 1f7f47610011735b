package hosts

import (
	"crypto/rand"
	"crypto/sha256"
	"crypto/subtle"
	"encoding/base64"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/google/renameio/v2"
)

// tokenPrefix marks a token and its version.
const tokenPrefix = "dynast1"

// Token admits a host.
type Token struct {
	// Authority is the SHA-256 of the certificate of the cluster's authority (DER).
	Authority [sha256.Size]byte
	ID        string
	Secret    []byte
}

// String returns the text that a user passes to the new host. It is a secret.
func (t Token) String() string {
	return strings.Join([]string{tokenPrefix, hex.EncodeToString(t.Authority[:]), t.ID, base64.RawURLEncoding.EncodeToString(t.Secret)}, ".")
}

const (
	secretBytes  = 32
	tokenIDBytes = 4
)

// ParseToken reads what String returned. The error does not contain the text.
func ParseToken(text string) (Token, error) {
	parts := strings.Split(strings.TrimSpace(text), ".")
	if len(parts) != 4 || parts[0] != tokenPrefix {
		return Token{}, fmt.Errorf("this is not a token: it does not have the form %s.AUTHORITY.NAME.SECRET; 'dynast hosts token' makes one", tokenPrefix)
	}
	var t Token
	authority, err := hex.DecodeString(parts[1])
	if err != nil || len(authority) != len(t.Authority) {
		return Token{}, errors.New("the token is damaged: its second part is not a SHA-256; copy the whole token")
	}
	copy(t.Authority[:], authority)
	t.ID = parts[2]
	if id, err := hex.DecodeString(t.ID); err != nil || len(id) != tokenIDBytes {
		return Token{}, errors.New("the token is damaged: its third part is not a name; copy the whole token")
	}
	if t.Secret, err = base64.RawURLEncoding.DecodeString(parts[3]); err != nil || len(t.Secret) != secretBytes {
		return Token{}, errors.New("the token is damaged: its secret is not complete; copy the whole token")
	}
	return t, nil
}

// ReadTokenFile reads a token from a file that others cannot read.
func ReadTokenFile(path string) (Token, error) {
	info, err := os.Stat(path)
	if err != nil {
		return Token{}, fmt.Errorf("token file: %w", err)
	}
	if mode := info.Mode().Perm(); info.Mode().IsRegular() && mode&0o077 != 0 {
		return Token{}, fmt.Errorf("token file %s: others can read it (mode %04o): chmod 600 %s", path, mode, path)
	}
	raw, err := os.ReadFile(path)
	if err != nil {
		return Token{}, fmt.Errorf("token file: %w", err)
	}
	t, err := ParseToken(string(raw))
	if err != nil {
		return Token{}, fmt.Errorf("token file %s: %w", path, err)
	}
	return t, nil
}

// Issued is a token as the host that made it remembers it, without the secret.
type Issued struct {
	ID string `json:"id"`
	// Check is the SHA-256 of the secret.
	Check   string    `json:"check"`
	Made    time.Time `json:"made"`
	Expires time.Time `json:"expires"`
	// Once limits the token to one host. UsedBy is the first host that used it. That host may use
	// it again, because its join may have been interrupted.
	Once   bool   `json:"once"`
	UsedBy string `json:"used_by,omitempty"`
}

// Tokens are the tokens that a host has made. They are kept in a file that only the engine of that
// host writes. Tokens is safe for concurrent use.
type Tokens struct {
	path string
	now  func() time.Time
	mu   sync.Mutex
}

// OpenTokens returns the tokens in a directory.
func OpenTokens(dir string) *Tokens {
	return &Tokens{path: filepath.Join(dir, "tokens.json"), now: time.Now}
}

// ErrToken means that a token is not accepted. The reason is not told, because the other side may
// be a stranger.
var ErrToken = errors.New("the token is not valid here: it is wrong, has expired, was revoked, or was used by another host; make a new one with 'dynast hosts token' on the host that you join through")

func (t *Tokens) read() ([]Issued, error) {
	raw, err := os.ReadFile(t.path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("tokens: %w", err)
	}
	var all []Issued
	if err := json.Unmarshal(raw, &all); err != nil {
		return nil, fmt.Errorf("tokens: %s is damaged: %w; remove it, and make new tokens", t.path, err)
	}
	return all, nil
}

// write drops what has expired.
func (t *Tokens) write(all []Issued) error {
	all = slices.DeleteFunc(all, func(i Issued) bool { return t.now().After(i.Expires) })
	raw, err := json.MarshalIndent(all, "", "  ")
	if err == nil {
		err = renameio.WriteFile(t.path, raw, 0o600, renameio.WithStaticPermissions(0o600))
	}
	if err != nil {
		return fmt.Errorf("tokens: %w", err)
	}
	return nil
}

// Make makes a token for the authority with a certificate (DER).
func (t *Tokens) Make(authority []byte, life time.Duration, once bool) (Token, Issued, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, err := t.read()
	if err != nil {
		return Token{}, Issued{}, err
	}
	token := Token{Authority: sha256.Sum256(authority), Secret: make([]byte, secretBytes)}
	id := make([]byte, tokenIDBytes)
	_, _ = rand.Read(id) // it never fails
	_, _ = rand.Read(token.Secret)
	token.ID = hex.EncodeToString(id)
	issued := Issued{ID: token.ID, Check: check(token.Secret), Made: t.now(), Expires: t.now().Add(life), Once: once}
	return token, issued, t.write(append(all, issued))
}

func check(secret []byte) string {
	sum := sha256.Sum256(secret)
	return hex.EncodeToString(sum[:])
}

// List returns the tokens that have not expired, the oldest first.
func (t *Tokens) List() ([]Issued, error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, err := t.read()
	return slices.DeleteFunc(all, func(i Issued) bool { return t.now().After(i.Expires) }), err
}

// Revoke ends a token. It is an error if there is none with this name.
func (t *Tokens) Revoke(id string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, err := t.read()
	if err != nil {
		return err
	}
	rest := slices.DeleteFunc(slices.Clone(all), func(i Issued) bool { return i.ID == id })
	if len(rest) == len(all) {
		return fmt.Errorf("this host has no token %q; 'dynast hosts token --list' shows those that it has", id)
	}
	return t.write(rest)
}

// Clear removes all tokens.
func (t *Tokens) Clear() error {
	t.mu.Lock()
	defer t.mu.Unlock()
	if err := os.Remove(t.path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("tokens: %w", err)
	}
	return nil
}

// Release takes back a Use by a host that was not admitted.
func (t *Tokens) Release(token Token, host string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, err := t.read()
	if err != nil {
		return err
	}
	for i := range all {
		if all[i].ID == token.ID && all[i].UsedBy == host {
			all[i].UsedBy = ""
			return t.write(all)
		}
	}
	return nil
}

// Use checks a token that a host presents, and records who used it. The error is ErrToken if it
// does not admit that host.
func (t *Tokens) Use(token Token, host string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	all, err := t.read()
	if err != nil {
		return err
	}
	for i := range all {
		issued := &all[i]
		same := subtle.ConstantTimeCompare([]byte(issued.Check), []byte(check(token.Secret))) == 1
		if issued.ID != token.ID || !same {
			continue
		}
		if t.now().After(issued.Expires) || issued.Once && issued.UsedBy != "" && issued.UsedBy != host {
			return ErrToken
		}
		if issued.UsedBy != "" {
			return nil
		}
		issued.UsedBy = host
		return t.write(all)
	}
	return ErrToken
}
