package main

import (
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/spf13/cobra"
	"github.com/spf13/pflag"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// commandLine is a call of dynast in a document.
type commandLine struct {
	where string
	words []string
	// whole is false for a call that only names a command, and leaves arguments out.
	whole bool
}

// check compares a call with the commands that exist. A command that takes the flags of another program,
// such as 'dynast ctl', is only checked by name.
func (c commandLine) check() error {
	root := newRoot()
	root.InitDefaultVersionFlag()
	cmd, rest, err := root.Find(c.words)
	if err != nil {
		return err
	}
	if cmd.DisableFlagParsing {
		return nil
	}
	err = cmd.ParseFlags(rest)
	var missing *pflag.ValueRequiredError
	var invalid *pflag.InvalidValueError
	switch {
	case errors.Is(err, pflag.ErrHelp), !c.whole && (errors.As(err, &missing) || errors.As(err, &invalid)):
		return nil
	case err != nil:
		return err
	}
	args := cmd.Flags().Args()
	if cmd.HasSubCommands() && len(args) > 0 {
		return fmt.Errorf("there is no command %q", strings.Join(c.words, " "))
	}
	if c.whole {
		return cmd.ValidateArgs(args)
	}
	return nil
}

var (
	inline  = regexp.MustCompile("`(?:\\./)?(dynast [^`]*)`")
	comment = regexp.MustCompile(`(^|\s)#\s.*`)
	started = regexp.MustCompile(`^(?:(?:[A-Z_]+=\S*|sudo|exec|nice|time|docker exec \S+|kubectl exec .* --|ExecStart=|ExecReload=)\s*)*(?:\S*/)?dynast\s+(.*)$`)
	// ends separates the commands of a line of a shell, and redirects ends the arguments of one.
	ends      = regexp.MustCompile(`\s*(?:\|\||&&|[|;&()])\s*`)
	redirects = regexp.MustCompile(`\s\d?[<>].*$`)
)

// calls returns the calls of dynast in the lines of a shell.
func calls(where string, lines []string) []commandLine {
	var out []commandLine
	for _, line := range lines {
		for _, simple := range ends.Split(comment.ReplaceAllString(line, ""), -1) {
			m := started.FindStringSubmatch(redirects.ReplaceAllString(strings.TrimSpace(simple), ""))
			if m != nil {
				out = append(out, commandLine{where, strings.Fields(m[1]), true})
			}
		}
	}
	return out
}

// named returns the calls of dynast that a text has in backticks. Brackets mark what is optional, "..."
// what can be repeated, and "|" a choice, of which the first is taken.
func named(where, text string) []commandLine {
	var out []commandLine
	for _, m := range inline.FindAllStringSubmatch(text, -1) {
		line, _, _ := strings.Cut(m[1], " -- ")
		words := strings.Fields(strings.NewReplacer("[", " ", "]", " ", "...", "", `\|`, "|").Replace(line))[1:]
		for i, w := range words {
			words[i], _, _ = strings.Cut(w, "|")
		}
		if first := words; len(first) > 0 && regexp.MustCompile(`^[a-z-]`).MatchString(first[0]) {
			out = append(out, commandLine{where, words, false})
		}
	}
	return out
}

// TestCommandsInTheDocuments: each call of dynast in the documents has a command and flags that exist.
// Fix the document, or the command.
func TestCommandsInTheDocuments(t *testing.T) {
	pages, err := testkit.Documents(".")
	if err != nil {
		t.Fatal(err)
	}
	var all []commandLine
	for _, p := range pages {
		for _, b := range p.Blocks {
			if b.Language == "" && len(calls("", b.Lines)) > 0 {
				t.Errorf("%s:%d: the block has commands: begin it with ```sh, or with ```console if it shows output", p.Path, b.Line)
			}
			all = append(all, calls(fmt.Sprintf("%s:%d", p.Path, b.Line), b.Commands())...)
		}
		for i, line := range strings.Split(p.Prose, "\n") {
			all = append(all, named(fmt.Sprintf("%s:%d", p.Path, i+1), line)...)
		}
	}
	units, err := filepath.Glob("scripts/*.service")
	if err != nil {
		t.Fatal(err)
	}
	for _, unit := range units {
		raw, err := os.ReadFile(unit)
		if err != nil {
			t.Fatal(err)
		}
		all = append(all, calls(path.Base(unit), strings.Split(string(raw), "\n"))...)
	}
	if len(all) < 100 {
		t.Errorf("only %d calls of dynast found", len(all))
	}
	checked := map[string]bool{} // making all commands for one call takes a while
	for _, c := range all {
		id := fmt.Sprint(c.whole, c.words)
		if checked[id] {
			continue
		}
		checked[id] = true
		if err := c.check(); err != nil {
			t.Errorf("%s: dynast %s: %v", c.where, strings.Join(c.words, " "), err)
		}
	}
}

// Calls that do not exist are found.
func TestWrongCommandsAreFound(t *testing.T) {
	for _, line := range []string{"dynast frob", "dynast up --frob", "dynast hosts frob", "cd /; sudo dynast tree --frob | head", "dynast scale", "dynast stop --timeout soon"} {
		for _, c := range calls("here", []string{line}) {
			if c.check() == nil {
				t.Errorf("%q is taken for a call that exists", line)
			}
		}
		if len(calls("here", []string{line})) != 1 {
			t.Errorf("no call found in %q", line)
		}
	}
	for _, text := range []string{"`dynast frob NAME`", "`dynast up [--frob]`", "`dynast hosts frob`"} {
		if c := named("here", text); len(c) != 1 || c[0].check() == nil {
			t.Errorf("%s is taken for a call that exists", text)
		}
	}
}

// TestSettingsInTheDocuments: each setting that a document names exists. A setting store.quota has the flag
// --store-quota.
func TestSettingsInTheDocuments(t *testing.T) {
	up, _, err := newRoot().Find([]string{"up"})
	if err != nil {
		t.Fatal(err)
	}
	blocks := []string{"client", "dashboard", "member", "heartbeat", "replication", "store", "spawn", "hosts", "log"}
	setting := regexp.MustCompile("`(" + strings.Join(blocks, "|") + `)\.([a-z_]+)`)
	pages, err := testkit.Documents(".")
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, p := range pages {
		for _, m := range setting.FindAllStringSubmatch(p.Prose, -1) {
			if slices.Contains([]string{"md", "json", "crt", "key"}, m[2]) {
				continue // a file
			}
			found++
			if !hasSetting(up, m[1]+"."+m[2]) {
				t.Errorf("%s: there is no setting %s.%s", p.Path, m[1], m[2])
			}
		}
	}
	if found < 50 {
		t.Errorf("only %d settings found", found)
	}
}

func hasSetting(up *cobra.Command, name string) bool {
	return up.Flags().Lookup(strings.NewReplacer(".", "-", "_", "-").Replace(name)) != nil
}
