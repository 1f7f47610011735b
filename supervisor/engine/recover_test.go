package engine

import (
	"os"
	"path/filepath"
	"testing"
)

// Wherever an exchange without the help of the file system ends, the fresh directory or the old one is
// there as a whole.
func TestExchangeInSteps(t *testing.T) {
	t.Parallel()
	base := t.TempDir()
	dir, fresh := filepath.Join(base, "pki"), filepath.Join(base, "pki.new")
	write := func(dir, content string) {
		t.Helper()
		if err := os.MkdirAll(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(filepath.Join(dir, "ca.pem"), []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	want := func(content string) {
		t.Helper()
		if raw, err := os.ReadFile(filepath.Join(dir, "ca.pem")); err != nil || string(raw) != content {
			t.Errorf("%q %v, want %q", raw, err, content)
		}
	}
	write(dir, "old")
	write(dir+".old", "older") // of an exchange that was killed at its end
	write(fresh, "fresh")
	if err := exchangeInSteps(fresh, dir); err != nil {
		t.Fatal(err)
	}
	want("fresh")
	// Killed between its two steps.
	write(fresh, "fresher")
	if err := os.Rename(dir, dir+".old"); err != nil {
		t.Fatal(err)
	}
	if err := completeExchange(dir); err != nil {
		t.Fatal(err)
	}
	want("fresher")
	if err := completeExchange(dir); err != nil {
		t.Fatal(err)
	}
	want("fresher")
}
