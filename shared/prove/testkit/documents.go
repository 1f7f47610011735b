package testkit

import (
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strings"
)

// Document is a page for users.
type Document struct {
	Path string
	// Prose is the page with empty lines in the place of its blocks.
	Prose  string
	Blocks []Block
}

// Block is a fenced block of a page.
type Block struct {
	Line     int    // of its first line, counted from 1
	Language string // empty: none
	Lines    []string
	// NotRun says why no test runs the commands, or is empty: the text of a comment before the block,
	// "<!-- not run: REASON -->".
	NotRun string
}

var (
	fence  = regexp.MustCompile("^\\s*```(\\w*)\\s*$")
	notRun = regexp.MustCompile(`<!-- (?:not run: (.+?)|demo:begin: (.+?)) -->`)
)

// Documents reads README.md, the pages in docs/ and those of the examples. root is the repository.
func Documents(root string) ([]Document, error) {
	var out []Document
	for _, pattern := range []string{"README.md", "docs/*.md", "examples/*.md", "examples/*/*.md"} {
		paths, err := filepath.Glob(filepath.Join(root, pattern))
		if err != nil {
			return nil, err
		}
		for _, p := range paths {
			raw, err := os.ReadFile(p)
			if err != nil {
				return nil, err
			}
			d, err := document(string(raw))
			if err != nil {
				return nil, fmt.Errorf("%s: %w", p, err)
			}
			if d.Path, err = filepath.Rel(root, p); err != nil {
				return nil, err
			}
			out = append(out, d)
		}
	}
	return out, nil
}

func document(text string) (Document, error) {
	var d Document
	var prose []string
	var open *Block
	why := ""
	for i, line := range strings.Split(text, "\n") {
		m := fence.FindStringSubmatch(line)
		switch {
		case m == nil && open == nil:
			prose = append(prose, line)
			if c := notRun.FindStringSubmatch(line); c != nil {
				why = c[1] + c[2]
			} else if strings.TrimSpace(line) != "" {
				why = ""
			}
			continue
		case m != nil && open == nil:
			open = &Block{Line: i + 2, Language: m[1], NotRun: why}
		case m != nil:
			d.Blocks = append(d.Blocks, *open)
			open, why = nil, ""
		default:
			open.Lines = append(open.Lines, line)
		}
		prose = append(prose, "")
	}
	if open != nil {
		return d, fmt.Errorf("the block in line %d has no end", open.Line)
	}
	d.Prose = strings.Join(prose, "\n")
	return d, nil
}

// Commands returns the lines of a block that a shell gets: all lines of "sh", and those with a prompt of
// "console". A line that ends with a backslash goes on.
func (b Block) Commands() []string {
	var out []string
	more := false
	for _, line := range b.Lines {
		prompt := false
		if b.Language == "console" && !more {
			line, prompt = strings.CutPrefix(line, "$ ")
		}
		switch {
		case more:
			out[len(out)-1] += " " + strings.TrimSpace(strings.TrimSuffix(line, "\\"))
		case b.Language == "sh", prompt:
			out = append(out, strings.TrimSuffix(line, "\\"))
		default:
			continue
		}
		more = strings.HasSuffix(line, "\\")
	}
	return out
}
