package services

import (
	"os"
	"path/filepath"
	"testing"
)

// TestDesiredLeavesNoTemporaryFiles: desired.json is replaced within its directory, and what a dead
// leader left there is removed.
func TestDesiredLeavesNoTemporaryFiles(t *testing.T) {
	temp := t.TempDir()
	t.Setenv("TMPDIR", filepath.Join(temp, "missing")) // a file there would be an error
	f := files{filepath.Join(temp, "services")}
	if err := os.Mkdir(f.dir, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(f.dir, ".desired.json123"), []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := f.writeDesired(desired{}); err != nil {
		t.Fatal(err)
	}
	found, err := os.ReadDir(f.dir)
	if err != nil || len(found) != 1 || found[0].Name() != "desired.json" {
		t.Errorf("the directory has %v, %v", found, err)
	}
}
