package config

import (
	"errors"
	"runtime/debug"
	"strings"
	"testing"

	"github.com/hashicorp/hcl/v2"
	"github.com/hashicorp/hcl/v2/hclsyntax"
)

// stackBytes is a sixteenth of the stack that Go allows. The test process ends if the parser
// needs more.
const stackBytes = 1 << 30 / 16

// nested are texts that make the parser or the evaluation call themselves when they are repeated.
var nested = []string{"(", "[", "{", "!", "-", "\"${", "a{\n", "1?1:", "1?", "<<A\n${", "1+", "a.", "a[*].", "1==", "%", "(]", "({\n", "1&&",
	"{for a in b:a=>", "[for a in b:", "a[b]", "a(", "a::", "1?1\n:", "a \"b\" ", "{a=", "a=", "a=[\n", "%{if a}", "\"%{if a}", "-\n", "a\n.", "[],", "1,", "\"", "\"\n"}

// Nonsense must not exhaust the stack, whatever it is.
func TestNestedNonsense(t *testing.T) {
	defer debug.SetMaxStack(debug.SetMaxStack(stackBytes))
	defaults := builtIn(t)
	for _, start := range []string{"data_dir = ", "data_dir = a", "data_dir = {for a in b: a => 1\n+", "a {\n", "data_dir = \""} {
		for _, open := range nested {
			// A larger file shows no more about the stack.
			const size = 32 << 10
			src := start + strings.Repeat(open, (size-len(start))/len(open))
			if _, err := Parse("own.hcl", []byte(src), defaults); !errors.Is(err, ErrInvalid) {
				t.Errorf("%q, %q...: got %v", start, open, err)
			}
		}
	}
}

// The deepest file that is accepted by the bound must not exhaust the stack either, in the
// parser and in the evaluation.
func TestDeepestNesting(t *testing.T) {
	defer debug.SetMaxStack(debug.SetMaxStack(stackBytes))
	defaults := builtIn(t)
	for _, tc := range []struct{ name, open, middle, close string }{
		{"parentheses", "(", "1", ")"},
		{"lists", "[", "1", "]"},
		{"objects", "{a=", "1", "}"},
		{"templates", "\"${", "1", "}\""},
		{"prefixes", "-", "1", ""},
		{"operators", "1+", "1", ""},
		{"conditions", "true?1:", "1", ""},
		{"indexes", "", "a", "[0]"},
		{"attributes", "", "a", ".b"},
		{"splats", "", "[1]", "[*]"},
		{"blocks", "1\na {\n a = ", "1", "\n}"},
	} {
		text := func(n int) []byte {
			return []byte("data_dir = " + strings.Repeat(tc.open, n) + tc.middle + strings.Repeat(tc.close, n))
		}
		n := maxNesting + 10
		for ; n > 0; n-- {
			if at, _ := tooNested(lexed(text(n))); at == nil {
				break
			}
		}
		if n < maxNesting/3 || n > maxNesting {
			t.Errorf("%s: the bound accepts %d", tc.name, n)
		}
		if _, err := Parse("own.hcl", text(n), defaults); !errors.Is(err, ErrInvalid) || strings.Contains(err.Error(), "nested") {
			t.Errorf("%s: got %v", tc.name, err)
		}
		_, err := Parse("own.hcl", text(n+1), defaults)
		if err == nil || !strings.Contains(err.Error(), "nested more than 1000 deep, from own.hcl:") {
			t.Errorf("%s, one more: got %v", tc.name, err)
		}
	}
}

// A long file is not a deep one.
func TestManyItemsAreNotNested(t *testing.T) {
	for name, src := range map[string]string{
		"blocks":   strings.Repeat("a \"b\" {\n  c = [\"d\", -1] # e\n}\n", 5000),
		"list":     "a = [" + strings.Repeat("\"x\", ", 5000) + "]",
		"object":   "a = {\n" + strings.Repeat("  b = (1 + 1)\n", 5000) + "}",
		"comments": "a = {\n" + strings.Repeat("  b = 1 # c\n", 5000) + "}",
		"template": "a = <<E\n" + strings.Repeat("$${a} %%{b} ()[]{}-!\n", 5000) + "E\n",
		"dashes":   strings.Repeat("a-b = -1\n", 5000),
	} {
		if at, _ := tooNested(lexed([]byte(src))); at != nil {
			t.Errorf("%s: refused at %v", name, at)
		}
	}
}

// The message names the bracket that is missing its end, not only the place where it shows.
func TestNestingNamesTheOpenBracket(t *testing.T) {
	src := "followers = 2\ndata_dir = (\n" + strings.Repeat("service \"a\" {\n  command = [\"a\"]\n}\n", maxNesting)
	_, err := Parse("own.hcl", []byte(src), builtIn(t))
	if err == nil || !strings.Contains(err.Error(), "from own.hcl:2:12 on") {
		t.Errorf("got %v", err)
	}
}

// lexed returns the tokens of a file.
func lexed(src []byte) hclsyntax.Tokens {
	tokens, _ := hclsyntax.LexConfig(src, "own.hcl", hcl.InitialPos)
	return tokens
}
