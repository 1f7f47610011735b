package testkit

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
)

// Mutant is a rule that is broken on purpose in its source. Old occurs once in the file. In New,
// MUTANT is true while this mutant is active.
type Mutant struct {
	Name, File, Old, New string
}

// MutantEnv names the active mutant to a program that BuildMutants built.
const MutantEnv = "DYNAST_MUTANT"

// BuildMutants builds the tests of the package in the current directory over packages that contain
// every mutant. root is the directory to which the mutants' files are relative. It returns the
// path of the test program.
func BuildMutants(t *testing.T, root string, mutants []Mutant) string {
	t.Helper()
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("needs the go command, to build mutated rules")
	}
	binary := filepath.Join(t.TempDir(), "mutants.test")
	build := exec.Command(goTool, "test", "-c", "-overlay", writeOverlay(t, root, mutants), "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the mutated rules do not build: %v\n%s", err, out)
	}
	return binary
}

// writeOverlay writes the mutated files, and for each of their packages a file that reads the
// name of the active mutant. It returns the overlay that replaces the originals.
func writeOverlay(t *testing.T, root string, mutants []Mutant) string {
	dir := t.TempDir()
	root, err := filepath.Abs(root)
	if err != nil {
		t.Fatal(err)
	}
	replace := map[string]string{}
	put := func(file string, source []byte) {
		to := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(to, source, 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(root, file)] = to
	}
	for file, source := range mutatedFiles(t, root, mutants) {
		put(file, source)
		dir, pkg := filepath.Dir(file), filepath.Base(filepath.Dir(file))
		put(dir+"/mutant.go", []byte("package "+pkg+"\n\nimport \"os\"\n\nvar mutant = os.Getenv("+strconv.Quote(MutantEnv)+")\n"))
	}
	raw, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return overlay
}

// mutatedFiles inserts all mutants into their files.
func mutatedFiles(t *testing.T, root string, mutants []Mutant) map[string][]byte {
	files := map[string][]byte{}
	for _, m := range mutants {
		source := files[m.File]
		if source == nil {
			var err error
			if source, err = os.ReadFile(filepath.Join(root, m.File)); err != nil {
				t.Fatal(err)
			}
		}
		if n := bytes.Count(source, []byte(m.Old)); n != 1 {
			t.Fatalf("mutant %q: its text must occur once, but occurs %d times in %s: %q", m.Name, n, m.File, m.Old)
		}
		mutated := strings.ReplaceAll(m.New, "MUTANT", "(mutant == "+strconv.Quote(m.Name)+")")
		files[m.File] = bytes.Replace(source, []byte(m.Old), []byte(mutated), 1)
	}
	return files
}
