package e2e

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/prove/testkit"
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

// harmless are the commands that the test may run on the machine of whoever runs it.
var harmless = regexp.MustCompile(`^\s*(#|$|dynast |echo |chmod 600 token\b|kill -9 "\$\(head -n1 dynast-data/cluster\.lock |curl -s localhost:)`)

// TestBlocksInTheDocuments runs the commands of all blocks in the documents, one block after the other, on one
// cluster. A block that cannot be run has a comment before it: <!-- not run: REASON -->.
func TestBlocksInTheDocuments(t *testing.T) {
	for _, tool := range []string{"sh", "curl"} {
		if _, err := exec.LookPath(tool); err != nil {
			t.Skipf("the documents use the program %s: %v", tool, err)
		}
	}
	pages := must(testkit.Documents("../../.."))(t)
	root := t.TempDir()
	c := newCluster(t, withDataDir(filepath.Join(root, "dynast-data")))
	c.up()
	c.everyone()
	eventually(t, "the cluster serves", func() bool { code, _ := c.run("get", "--data-dir", c.dir, "x"); return code == 0 })
	bin := t.TempDir()
	if err := os.Symlink(binary, filepath.Join(bin, "dynast")); err != nil {
		t.Fatal(err)
	}
	// Every address in the documents stands for one of this cluster.
	own := strings.NewReplacer("localhost:2379", c.client, "127.0.0.1:2379", c.client, "10.0.0.1:2380", c.address())
	ran := 0
	for _, p := range pages {
		for _, b := range p.Blocks {
			lines := b.Commands()
			if len(lines) == 0 || b.NotRun != "" {
				continue
			}
			if i := slices.IndexFunc(lines, func(l string) bool { return !harmless.MatchString(l) }); i >= 0 {
				t.Errorf("%s:%d: the test runs no such command: write <!-- not run: REASON --> before the block, or extend the list of harmless commands\n%s", p.Path, b.Line, lines[i])
				continue
			}
			ran++
			script := own.Replace(strings.Join(lines, "\n"))
			if !strings.Contains(script, "$?") {
				script = "set -e\n" + script
			}
			ctx, cancel := context.WithTimeout(t.Context(), patience)
			cmd := exec.CommandContext(ctx, "sh", "-c", script)
			cmd.Dir, cmd.Env = root, append(os.Environ(), "PATH="+bin+":"+os.Getenv("PATH"))
			out, err := cmd.CombinedOutput()
			cancel()
			c.everyone()
			c.engines()
			if err != nil {
				t.Errorf("%s:%d: %v: correct the commands, or write <!-- not run: REASON --> before the block\n%s\n%s", p.Path, b.Line, err, script, out)
			}
		}
	}
	if ran < 8 {
		t.Errorf("only %d blocks were run", ran)
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
