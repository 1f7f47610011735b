package logging

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"
)

// The logs of living members and those of the members that died last are kept.
func TestPrune(t *testing.T) {
	dir := t.TempDir()
	at := time.Now().Add(-time.Hour)
	for i, name := range []string{
		"127.0.0.1_7401.log", "127.0.0.1_7401-2026-01-02T15-04-05.000.log", // living, and the oldest
		"127.0.0.1_7402.log", "127.0.0.1_7402-2026-01-02T15-04-05.000.log", // gone first
		"127.0.0.1_7403.log", "127.0.0.1_7404.log", // gone last
		"notes.log", "notes.txt",
	} {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, nil, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chtimes(path, at, at.Add(time.Duration(i)*time.Minute)); err != nil {
			t.Fatal(err)
		}
	}
	if err := Prune(dir, []string{"127.0.0.1:7401"}, 2); err != nil {
		t.Fatal(err)
	}
	entries, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	var left []string
	for _, e := range entries {
		left = append(left, e.Name())
	}
	want := []string{"127.0.0.1_7401-2026-01-02T15-04-05.000.log", "127.0.0.1_7401.log", "127.0.0.1_7403.log", "127.0.0.1_7404.log", "notes.log", "notes.txt"}
	if !slices.Equal(left, want) {
		t.Errorf("left: %q, want %q", left, want)
	}
	if err := Prune(filepath.Join(dir, "missing"), nil, 0); err != nil {
		t.Errorf("a missing directory: %v", err)
	}
}
