package config

import (
	"errors"
	"fmt"
	"strings"
	"testing"
)

// Texts whose parts the parser joins in a time that grows with the square of the size are refused
// before it does. Without the bound, each of these takes minutes.
func TestTooLongTexts(t *testing.T) {
	defaults := builtIn(t)
	for name, src := range map[string]string{
		"signs":   "data_dir = \"" + strings.Repeat("%", 512<<10) + "\"",
		"dollars": "data_dir = \"" + strings.Repeat("$$", 256<<10) + "\"",
		"lines":   "service \"a\" {\n script = <<E\n" + strings.Repeat("a\n", 256<<10) + "E\n}\n",
		"many":    strings.Repeat("service \"a\" {\n script = <<E\n"+strings.Repeat("a\n", 2<<10)+"E\n}\n", 100),
	} {
		_, err := Parse("own.hcl", []byte(src), defaults)
		if !errors.Is(err, ErrInvalid) || !strings.HasPrefix(err.Error(), "own.hcl:") || !strings.Contains(err.Error(), "too many lines") {
			t.Errorf("%s: got %.200v", name, err)
		}
	}
}

// A file with too many characters without a meaning is not parsed. Its errors are reported.
func TestTooManyStrangeCharacters(t *testing.T) {
	_, err := Parse("own.hcl", []byte("followers = 1\n"+strings.Repeat("\x00", maxFileBytes/2)), builtIn(t))
	var invalid *Error
	if !errors.As(err, &invalid) || len(invalid.Diagnostics) != maxSyntaxErrors+1 || !strings.Contains(err.Error(), "further errors of this kind") {
		t.Errorf("got %.500v", err)
	}
}

// What is usual, and much more, is accepted.
func TestLongTexts(t *testing.T) {
	var b strings.Builder
	for n := range 1000 {
		fmt.Fprintf(&b, "service \"s%d\" {\n  script = <<E\n%sE\n  env = { A = \"100%% of $${x}\" }\n}\n", n, strings.Repeat("echo a line of forty bytes, more or less\n", 20))
	}
	if c := mustParse(t, b.String()); len(c.Services) != 1000 || b.Len() < 3*maxFileBytes/4 {
		t.Errorf("%d services in %d bytes", len(c.Services), b.Len())
	}
	mustParse(t, "service \"a\" {\n  script = <<E\n"+strings.Repeat("echo a line of forty bytes, more or less\n", 1500)+"E\n}\n")
}
