package cli

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// TestChaosDoesNotRunTheUsersServices: the configuration of a chaos cluster has no service of the
// given file, and all of the rest.
func TestChaosDoesNotRunTheUsersServices(t *testing.T) {
	path := filepath.Join(t.TempDir(), "own.hcl")
	text := "followers = 3\nservice \"a\" {\n  command = [\"sleep\", \"1\"]\n  ready { delay = \"1s\" }\n}\nstore {\n  quota = \"1GiB\"\n}\nservice \"b\" { script = \"x\" }\n"
	if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	raw, err := withoutServices(path)
	if err != nil || strings.Contains(string(raw), "service") || !strings.Contains(string(raw), "followers = 3") || !strings.Contains(string(raw), `quota = "1GiB"`) {
		t.Errorf("%s, %v", raw, err)
	}
	if raw, err := withoutServices(""); err != nil || raw != nil {
		t.Errorf("without a file: %q, %v", raw, err)
	}
	if _, err := withoutServices(path + ".missing"); err == nil {
		t.Error("a missing file is no error")
	}
}
