package e2e

import (
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"sigs.k8s.io/yaml"
)

// matches fails the test if a pattern for files of the repository matches none.
func matches(t *testing.T, named, pattern string) {
	t.Helper()
	if found, err := filepath.Glob(filepath.Join(repository, pattern)); err != nil || len(found) == 0 {
		t.Errorf("%s names %s, which does not exist", named, pattern)
	}
}

// TestReleaseFilesExist: the files that .goreleaser.yaml names exist, except those that
// scripts/package/files.sh writes, which TestPackage needs.
func TestReleaseFilesExist(t *testing.T) {
	c := release(t)
	names := map[string]bool{}
	for _, hook := range c.Before.Hooks {
		names[strings.Fields(hook)[0]] = true
	}
	for _, f := range c.Archives[0].Files {
		names[f.Src] = true
	}
	for _, f := range c.Checksum.ExtraFiles {
		names[f.Glob] = true
	}
	for _, content := range c.NFPMs[0]["contents"].([]any) {
		if src, ok := content.(map[string]any)["src"].(string); ok {
			names[src] = true
		}
	}
	for _, s := range c.NFPMs[0]["scripts"].(map[string]any) {
		names[s.(string)] = true
	}
	if len(names) < 20 {
		t.Fatalf("found only %d files in .goreleaser.yaml: %v", len(names), names)
	}
	for name := range names {
		if !strings.HasPrefix(name, "build/package/") {
			matches(t, ".goreleaser.yaml", name)
		}
	}
}

var ownFile = regexp.MustCompile(`(?:^|[\s("'])((?:scripts|shared|docs|examples|\.ci|\.github)/[\w./*-]*\w)`)

// TestWorkflows: workflows use the Go version of go.mod and actions of a fixed commit, and the files
// and make targets in them exist. So do those in the Makefile and in the documents for newcomers.
func TestWorkflows(t *testing.T) {
	makefile := page(t, "Makefile")
	targets := map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^([a-z-]+):.* ## `).FindAllStringSubmatch(makefile, -1) {
		targets[m[1]] = true
	}
	phony := regexp.MustCompile(`(?m)^\.PHONY: (.*)$`).FindStringSubmatch(makefile)
	if phony == nil || len(strings.Fields(phony[1])) != len(targets) {
		t.Errorf("the Makefile describes %d targets, and .PHONY names others: %v", len(targets), phony)
	}
	workflows, err := filepath.Glob(filepath.Join(repository, ".github/workflows/*.yml"))
	if err != nil || len(workflows) < 2 {
		t.Fatalf("found %d workflows: %v", len(workflows), err)
	}
	files := []string{"Makefile", ".ci/run", "CONTRIBUTING.md", "README.md", "SECURITY.md", "docs/installation.md", "scripts/lint.sh"}
	for _, path := range workflows {
		name := filepath.Join(".github/workflows", filepath.Base(path))
		files = append(files, name)
		checkWorkflow(t, name)
	}
	for _, name := range files {
		text := page(t, name)
		for _, m := range ownFile.FindAllStringSubmatch(text, -1) {
			matches(t, name, m[1])
		}
		for _, m := range regexp.MustCompile("(?m)(?:^|run: |`)make ([a-z-]+)").FindAllStringSubmatch(text, -1) {
			if !targets[m[1]] {
				t.Errorf("%s names 'make %s', which the Makefile does not have", name, m[1])
			}
		}
	}
}

func checkWorkflow(t *testing.T, name string) {
	t.Helper()
	text := page(t, name)
	var w struct {
		Jobs map[string]struct {
			Steps []struct {
				Uses string
				With map[string]any
			}
		}
	}
	if err := yaml.Unmarshal([]byte(text), &w); err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	for job, j := range w.Jobs {
		withGo := false
		for _, s := range j.Steps {
			if strings.HasPrefix(s.Uses, "actions/setup-go@") {
				withGo = true
				if s.With["go-version-file"] != "go.mod" {
					t.Errorf("%s, job %s: the Go version is not that of go.mod", name, job)
				}
			}
		}
		if !withGo {
			t.Errorf("%s: job %s has no Go", name, job)
		}
	}
	for _, m := range regexp.MustCompile(`(?m)uses: (.*)$`).FindAllStringSubmatch(text, -1) {
		if !regexp.MustCompile(`^[\w./-]+@[0-9a-f]{40} # v\d+\.\d+\.\d+$`).MatchString(m[1]) {
			t.Errorf("%s: the action %s has no fixed commit with its version in a comment", name, m[1])
		}
	}
}

// TestInstallableWithGo: 'go install ...@latest' refuses a module with replacements. The image is
// built with the same minor version of Go.
func TestInstallableWithGo(t *testing.T) {
	mod := page(t, "go.mod")
	if m := regexp.MustCompile(`(?m)^(replace|exclude)\b.*$`).FindString(mod); m != "" {
		t.Errorf("go.mod has the line %q: 'go install github.com/dynast-io/dynast@latest' would fail", m)
	}
	version := regexp.MustCompile(`(?m)^go (\d+\.\d+)`).FindStringSubmatch(mod)
	if version == nil || !regexp.MustCompile(`golang:`+regexp.QuoteMeta(version[1])+`\b`).MatchString(page(t, "scripts/Dockerfile")) {
		t.Errorf("scripts/Dockerfile does not build with the Go version of go.mod, %v", version)
	}
}

// TestReleaseNotes: a release needs a section of the changelog.
func TestReleaseNotes(t *testing.T) {
	if code, out := script(t, "package/notes.sh", "v999.0.0"); code != 1 || !strings.Contains(out, "no section '## 999.0.0'") {
		t.Errorf("a version without a section: exit code %d, want 1\n%s", code, out)
	}
	section := regexp.MustCompile(`(?m)^## (\S+)`).FindStringSubmatch(page(t, "CHANGELOG.md"))
	if code, out := script(t, "package/notes.sh", section[1]); code != 0 || len(out) < 100 || strings.Contains(out, "\n## ") {
		t.Errorf("the notes of %s: exit code %d, want 0 and the text of the section\n%s", section[1], code, out)
	}
}
