package e2e

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"github.com/dynast-io/dynast/shared/observe/events"
)

func page(t *testing.T, name string) string {
	t.Helper()
	raw, err := os.ReadFile(filepath.Join("../../..", name))
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// TestCommandsAreDocumented: operations.md has a line for each command in the help.
func TestCommandsAreDocumented(t *testing.T) {
	_, help := newCluster(t).run("--help")
	text := page(t, "docs/operations.md")
	for _, m := range regexp.MustCompile(`(?m)^  (\w+) {2,}\S`).FindAllStringSubmatch(help, -1) {
		named := strings.Contains(text, "`dynast "+m[1]) || regexp.MustCompile("\\| `dynast ctl[^|]*`"+m[1]+"`").MatchString(text)
		if m[1] != "help" && !named {
			t.Errorf("docs/operations.md does not name 'dynast %s'", m[1])
		}
	}
}

// TestEventsInTheFailureGuideExist compares the names of events with those that 'dynast events'
// prints.
func TestEventsInTheFailureGuideExist(t *testing.T) {
	known := map[string]bool{}
	for _, k := range events.Kinds() {
		known[k] = true
	}
	named := regexp.MustCompile("` \\(([a-z_]+)\\)").FindAllStringSubmatch(page(t, "docs/failures.md"), -1)
	if len(named) < 10 {
		t.Fatalf("docs/failures.md names only %d events: the pattern of this test no longer finds them", len(named))
	}
	for _, m := range named {
		if !known[m[1]] {
			t.Errorf("docs/failures.md names the event %q, which does not exist", m[1])
		}
	}
}

// TestLinksInTheDocuments checks that links lead to existing files and headings.
func TestLinksInTheDocuments(t *testing.T) {
	pages, err := filepath.Glob("../../../docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	link := regexp.MustCompile(`\]\(([^)\s]+)\)`)
	for _, name := range []string{"README.md", "CHANGELOG.md", "CONTRIBUTING.md", "SECURITY.md"} {
		pages = append(pages, filepath.Join(repository, name))
	}
	for _, path := range pages {
		raw, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		for _, m := range link.FindAllStringSubmatch(string(raw), -1) {
			file, anchor, _ := strings.Cut(m[1], "#")
			if strings.Contains(m[1], "://") {
				continue
			}
			target := path
			if file != "" {
				target = filepath.Join(filepath.Dir(path), file)
			}
			text, err := os.ReadFile(target)
			if err != nil {
				t.Errorf("%s links to %s, which does not exist", filepath.Base(path), m[1])
			} else if anchor != "" && !headings(string(text))[anchor] {
				t.Errorf("%s: %s has no heading for the anchor #%s", filepath.Base(path), filepath.Base(target), anchor)
			}
		}
	}
}

// headings returns the anchors of a page.
func headings(text string) map[string]bool {
	found := map[string]bool{}
	for line := range strings.Lines(text) {
		if title := strings.TrimLeft(line, "#"); title != line {
			title = strings.ToLower(strings.TrimSpace(title))
			title = regexp.MustCompile(`[^\p{L}\p{N} _-]`).ReplaceAllString(title, "")
			found[strings.ReplaceAll(title, " ", "-")] = true
		}
	}
	return found
}
