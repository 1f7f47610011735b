package hosts

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestTokens(t *testing.T) {
	now := time.Now()
	tokens := OpenTokens(t.TempDir())
	tokens.now = func() time.Time { return now }
	once, _, err := tokens.Make([]byte("authority"), time.Hour, true)
	if err != nil {
		t.Fatal(err)
	}
	many, _, err := tokens.Make([]byte("authority"), time.Minute, false)
	if err != nil {
		t.Fatal(err)
	}
	use := func(token Token, host string, want error) {
		t.Helper()
		if err := tokens.Use(token, host); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", host, err, want)
		}
	}
	use(once, "a", nil)
	use(once, "a", nil) // its join was interrupted
	use(once, "b", ErrToken)
	if err := tokens.Release(once, "b"); err != nil { // it has not used it
		t.Fatal(err)
	}
	use(once, "b", ErrToken)
	if err := tokens.Release(once, "a"); err != nil {
		t.Fatal(err)
	}
	use(once, "b", nil)
	use(many, "a", nil)
	use(many, "b", nil)
	wrong := many
	wrong.Secret = make([]byte, secretBytes)
	use(wrong, "c", ErrToken)
	if err := tokens.Revoke(once.ID); err != nil {
		t.Fatal(err)
	}
	use(once, "b", ErrToken)
	if err := tokens.Revoke(once.ID); err == nil || !strings.Contains(err.Error(), once.ID) {
		t.Errorf("revoked twice: %v", err)
	}
	now = now.Add(2 * time.Minute)
	use(many, "a", ErrToken)
	if all, err := tokens.List(); err != nil || len(all) != 0 {
		t.Errorf("listed: %v %v", all, err)
	}
	if err := os.WriteFile(filepath.Join(filepath.Dir(tokens.path), "tokens.json"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := tokens.Use(many, "a"); err == nil || !strings.Contains(err.Error(), "is damaged") {
		t.Errorf("a damaged file: %v", err)
	}
}

// What ParseToken accepts is what String returns, and its errors do not repeat the text.
func FuzzParseToken(f *testing.F) {
	f.Add(Token{ID: "00000001", Secret: make([]byte, secretBytes)}.String())
	f.Add("dynast1.aa.bb.cc")
	f.Add("")
	f.Fuzz(func(t *testing.T, text string) {
		token, err := ParseToken(text)
		if err != nil {
			if secret := text[strings.LastIndex(text, ".")+1:]; len(secret) > 20 && strings.Contains(err.Error(), secret) {
				t.Errorf("the error repeats the secret: %v", err)
			}
			return
		}
		again, err := ParseToken(token.String())
		if err != nil || again.String() != token.String() {
			t.Errorf("%q: %v %v", text, again, err)
		}
	})
}
