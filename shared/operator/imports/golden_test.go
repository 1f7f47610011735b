package imports

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

var update = flag.Bool("update", false, "rewrite the golden files")

// testDir is the directory that the files of the tests seem to be in.
const testDir = "/app"

func load(t testing.TB, patterns ...string) []File {
	t.Helper()
	var files []File
	for _, pattern := range patterns {
		names, err := filepath.Glob(filepath.Join("testdata", pattern))
		if err != nil || len(names) == 0 {
			t.Fatalf("no files for %s: %v", pattern, err)
		}
		for _, name := range names {
			content, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			rel := strings.TrimPrefix(name, "testdata/")
			files = append(files, File{Name: rel, Dir: filepath.Join(testDir, filepath.Dir(rel)), Content: content})
		}
	}
	return files
}

// testGlob finds the files of testdata as if testdata were testDir.
func testGlob(t testing.TB) func(dir, pattern string) ([]File, error) {
	return func(dir, pattern string) ([]File, error) {
		rel := strings.TrimPrefix(strings.TrimPrefix(filepath.Join(dir, pattern), testDir), "/")
		if names, err := filepath.Glob(filepath.Join("testdata", rel)); err != nil || len(names) == 0 {
			return nil, err
		}
		return load(t, rel), nil
	}
}

// Each kind gives the blocks of a golden file.
func TestGolden(t *testing.T) {
	for _, c := range []struct {
		kind     Kind
		patterns []string
	}{
		{Procfile, []string{"Procfile"}},
		{Supervisord, []string{"supervisord/supervisord.conf"}},
		{ProcessCompose, []string{"process-compose.yaml"}},
		{Systemd, []string{"systemd/*.service", "systemd/*.socket", "systemd/*.timer", "systemd/*.d/*.conf"}},
	} {
		t.Run(string(c.kind), func(t *testing.T) {
			files := load(t, c.patterns...)
			for _, f := range files {
				if filepath.Ext(f.Dir) == ".d" {
					continue
				}
				if kind, err := detect(f); err != nil || kind != c.kind {
					t.Errorf("%s is of the kind %q, %v; want %s", f.Name, kind, err, c.kind)
				}
			}
			got, err := Import(files, Options{Kind: c.kind, Glob: testGlob(t)})
			if err != nil {
				t.Fatal(err)
			}
			decode(t, got)
			golden := filepath.Join("testdata", string(c.kind)+".hcl")
			if *update {
				if err := os.WriteFile(golden, got, 0o600); err != nil {
					t.Fatal(err)
				}
			}
			want, err := os.ReadFile(golden)
			if err != nil {
				t.Fatal(err)
			}
			if string(got) != string(want) {
				t.Errorf("%s differs (rewrite it with -update):\n%s", golden, got)
			}
		})
	}
}
