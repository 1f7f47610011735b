package shared

import (
	"go/parser"
	"go/token"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

const module = "github.com/dynast-io/dynast"

// mayImport tells which wings each wing stands on. Where it is silent, nothing.
var mayImport = map[string][]string{
	"rules":    {},
	"config":   {},
	"host":     {"rules"},
	"member":   {"rules", "host", "config"},
	"replica":  {"rules", "host", "config"},
	"observe":  {"rules", "host", "config"},
	"client":   {"rules", "host", "config", "member", "replica", "observe"},
	"prove":    {"rules", "host", "config", "member", "replica", "observe", "client"},
	"operator": {"rules", "host", "config", "member", "replica", "observe", "client", "prove"},
}

// wingOf names the wing of a package below shared/, and what else it is called by.
func wingOf(pkg string) (wing string, ok bool) {
	rest, ok := strings.CutPrefix(pkg, "shared/")
	if !ok {
		return "", false
	}
	wing, _, _ = strings.Cut(rest, "/")
	return wing, true
}

// upwards says what is wrong with an import, or nothing.
func upwards(from, to string) string {
	fromWing, inWing := wingOf(from)
	toWing, toShared := wingOf(to)
	part := func(pkg, dir string) bool { return pkg == dir || strings.HasPrefix(pkg, dir+"/") }
	switch {
	case part(from, "supervisor") && part(to, "worker"), part(from, "worker") && part(to, "supervisor"):
		return "supervisor and worker do not import each other"
	case inWing && !toShared:
		return "shared imports neither supervisor, worker nor main"
	case !inWing || fromWing == toWing:
		return ""
	}
	allowed, known := mayImport[fromWing]
	if !known {
		return "no such wing: " + fromWing
	}
	for _, w := range allowed {
		if w == toWing {
			return ""
		}
	}
	return "the wing " + fromWing + " does not stand on " + toWing
}

// No import points upwards. Tests count as well, with two exceptions: package e2e has
// the whole program as its subject, and any test may use the helpers of packages fuzzing
// and testkit.
func TestWings(t *testing.T) {
	seen := map[string]bool{}
	err := filepath.WalkDir("..", func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() && d.Name() != ".." && (strings.HasPrefix(d.Name(), ".") || d.Name() == "testdata") {
			return filepath.SkipDir
		}
		if d.IsDir() || !strings.HasSuffix(path, ".go") {
			return nil
		}
		from, err := filepath.Rel("..", filepath.Dir(path))
		if err != nil {
			return err
		}
		if wing, ok := wingOf(from); ok {
			seen[wing] = true
		}
		file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.ImportsOnly)
		if err != nil {
			return err
		}
		for _, spec := range file.Imports {
			to, ours := strings.CutPrefix(strings.Trim(spec.Path.Value, `"`), module+"/")
			helper := to == "shared/prove/fuzzing" || to == "shared/prove/testkit"
			if helper && !strings.HasSuffix(path, "_test.go") {
				t.Errorf("%s imports %s: only tests do", path, to)
			}
			if helper || from == "shared/prove/e2e" {
				continue
			}
			if why := upwards(from, to); ours && why != "" {
				t.Errorf("%s imports %s: %s", path, to, why)
			}
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	for wing := range mayImport {
		if !seen[wing] {
			t.Errorf("the wing %s has no package", wing)
		}
	}
}

// The test above can fail.
func TestUpwards(t *testing.T) {
	for _, x := range []struct {
		from, to string
		ok       bool
	}{
		{"shared/rules/core", "shared/rules/roster", true},
		{"shared/rules/core", "shared/host/proc", false},
		{"shared/host/parent", "shared/rules/keeper", true},
		{"shared/observe/tree", "shared/operator/term", false},
		{"shared/replica/log", "supervisor", false},
		{"shared/attic", "shared/host/proc", false},
		{"worker", "supervisor", false},
		{"worker/writer", "supervisor", false},
		{"supervisor", "worker/writer", false},
		{"worker", "shared/operator/dashboard", true},
	} {
		if why := upwards(x.from, x.to); (why == "") != x.ok {
			t.Errorf("%s imports %s: %q", x.from, x.to, why)
		}
	}
}

// The page that leads through the code names files and directories that exist.
func TestArchitecturePage(t *testing.T) {
	page, err := os.ReadFile("../docs/architecture.md")
	if err != nil {
		t.Fatal(err)
	}
	named := regexp.MustCompile("`((?:shared|worker|supervisor)(?:/[a-z_]+)*(?:\\.go)?)`").FindAllStringSubmatch(string(page), -1)
	if len(named) < 30 {
		t.Fatalf("only %d places are named", len(named))
	}
	for _, m := range named {
		if _, err := os.Stat(filepath.Join("..", m[1])); err != nil {
			t.Errorf("docs/architecture.md names %s: %v", m[1], err)
		}
	}
	for wing := range mayImport {
		if !strings.Contains(string(page), "`shared/"+wing+"`") {
			t.Errorf("docs/architecture.md does not name the wing %s", wing)
		}
	}
}
