package operate

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestFindBuild(t *testing.T) {
	if _, err := findBuild(t.Context(), ""); !errors.Is(err, errSameBuild) {
		t.Errorf("the file that this test runs from: %v", err)
	}
	good := filepath.Join(t.TempDir(), "good")
	write := func(path, text string) string {
		if err := os.WriteFile(path, []byte(text), 0o755); err != nil {
			t.Fatal(err)
		}
		return path
	}
	write(good, "#!/bin/sh\necho 'dynast v1.2.3, go1.26.8 linux/amd64'\n")
	if b, err := findBuild(t.Context(), good); err != nil || b != (build{good, "v1.2.3"}) {
		t.Errorf("%+v, %v", b, err)
	}
	gone, cancel := context.WithCancel(t.Context())
	cancel()
	for want, path := range map[string]string{
		"absolute": "good", "is not a regular file": t.TempDir(), "not a build of dynast": write(good+"1", "#!/bin/sh\necho dynast\n"),
		"exit status 3": write(good+"2", "#!/bin/sh\nexit 3\n"),
	} {
		if _, err := findBuild(t.Context(), path); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", path, err, want)
		}
	}
	if _, err := findBuild(gone, good); err == nil {
		t.Error("findBuild succeeds although its context has ended")
	}
}
