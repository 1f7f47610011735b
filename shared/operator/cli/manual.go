package cli

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/cpuguy83/go-md2man/v2/md2man"
	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"
)

// manCommand writes manual pages.
func (a *App) manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIRECTORY", Short: "Write the manual pages to a directory", Args: cobra.ExactArgs(1),
		Long: "It writes a page for each command (section 1), and one for the configuration file, dynast-config(5).",
		RunE: func(cmd *cobra.Command, args []string) error {
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return asError(err)
			}
			if err := a.writePages(cmd.Root(), args[0]); err != nil {
				return asError(fmt.Errorf("write manual pages: %w", err))
			}
			page := md2man.Render([]byte(a.configPage()))
			return asError(os.WriteFile(filepath.Join(args[0], "dynast-config.5"), page, 0o644))
		},
	}
}

// writePages writes the pages of a command and of all below it.
func (a *App) writePages(cmd *cobra.Command, dir string) error {
	for _, child := range cmd.Commands() {
		if child.IsAvailableCommand() {
			if err := a.writePages(child, dir); err != nil {
				return err
			}
		}
	}
	cmd.DisableAutoGenTag = true
	for _, text := range []*string{&cmd.Use, &cmd.Short, &cmd.Long} {
		*text = strings.ReplaceAll(*text, "<", `\<`) // it is Markdown now, where <x> is HTML
	}
	a.showDefaults(cmd)
	var page bytes.Buffer
	header := &doc.GenManHeader{Section: "1", Source: "dynast " + a.Version, Manual: "dynast"}
	if err := doc.GenMan(cmd, header, &page); err != nil {
		return err
	}
	name := strings.ReplaceAll(cmd.CommandPath(), " ", "-") + ".1"
	return os.WriteFile(filepath.Join(dir, name), []byte(withSections(page.String(), commandPath(cmd))), 0o644)
}

// filesSection is the same for all commands.
const filesSection = `# FILES
*dynast-data/*
: the default data directory, in the working directory; --data-dir names another one

*config.hcl*
: a configuration file; see **dynast-config(5)**
`

// withSections adds sections to the page of a command. Package doc has no place for them.
func withSections(page, path string) string {
	codes := strings.Split(strings.TrimSpace(texts[path].exit), "\n\n")
	for _, usual := range []string{
		"**0**: success.",
		"**1**: an error. The message says what is wrong.",
		"**2**: a mistake in the command line or in the configuration. Nothing was changed.",
	} {
		code, _, _ := strings.Cut(usual, ":")
		if !slices.ContainsFunc(codes, func(c string) bool { return strings.HasPrefix(c, code) }) {
			codes = append(codes, usual)
		}
	}
	slices.Sort(codes)
	exit := "# EXIT STATUS\n" + strings.TrimSpace(strings.Join(codes, "\n\n")) + "\n"
	// The first heading is the title of a page, which this is not.
	_, sections, _ := strings.Cut(string(md2man.Render([]byte("# TITLE\n"+exit+"\n"+filesSection))), ".SH")
	before, after, more := strings.Cut(page, ".SH SEE ALSO")
	before, example, found := strings.Cut(before, ".SH EXAMPLE\n")
	out := strings.TrimRight(before, "\n") + "\n\n.SH" + sections
	if found {
		out += "\n.SH EXAMPLES\n" + example
	}
	if more {
		out += "\n.SH SEE ALSO" + after
	}
	return out
}

// configPage returns the manual page of the configuration file as Markdown. It is made of the comments
// in the built-in configuration.
func (a *App) configPage() string {
	var page strings.Builder
	fmt.Fprintf(&page, "%% \"DYNAST-CONFIG\" \"5\" \"\" \"dynast %s\" \"dynast\"\n# NAME\ndynast-config \\- the configuration file of dynast\n\n# DESCRIPTION\n", a.Version)
	fields, service, _ := strings.Cut(string(a.Defaults), "\n# A service is a program")
	block, comment := "", []string{}
	for line := range strings.Lines(fields) {
		line = strings.TrimSpace(line)
		name, value, isField := strings.Cut(line, " = ")
		switch {
		case strings.HasPrefix(line, "#"):
			comment = append(comment, strings.TrimSpace(strings.TrimPrefix(line, "#")))
			continue
		case isField:
			fmt.Fprintf(&page, "## %s%s\n**%s** = %s\n\n%s\n\n", block, name, name, value, escaped(comment))
		case strings.HasSuffix(line, "{"):
			block = strings.TrimSuffix(line, " {") + "."
			fmt.Fprintf(&page, "# BLOCK %s\n%s\n\n", strings.ToUpper(strings.TrimSuffix(block, ".")), escaped(comment))
		case line == "}":
			block = ""
		default:
			fmt.Fprintf(&page, "%s\n\n", escaped(comment))
		}
		comment = nil
	}
	intro, example, _ := strings.Cut(service, "\n#\n")
	fmt.Fprintf(&page, "# BLOCK SERVICE\nA service is a program%s\n\n```\n%s\n```\n\n",
		strings.Replace(strings.ReplaceAll(intro, "\n#", ""), ` To use the example, remove the first "# " of each line.`, "", 1), strings.ReplaceAll(strings.TrimPrefix(example, "# "), "\n# ", "\n"))
	page.WriteString("# FILES\n*config.hcl*\n: the usual name; 'dynast up --config FILE' names the file\n\n")
	page.WriteString("# EXAMPLES\n```\nfollowers = 2\nclient {\n  listen = \"127.0.0.1:2379\"\n}\nservice \"web\" {\n  command = [\"./server\"]\n}\n```\n\n")
	page.WriteString("# SEE ALSO\n**dynast(1)**, **dynast-up(1)**, **dynast-reload(1)**\n")
	return page.String()
}

// escaped joins the lines of a comment to one paragraph of Markdown.
func escaped(comment []string) string {
	return strings.NewReplacer("_", `\_`, "*", `\*`, "<", `\<`).Replace(strings.Join(comment, "\n"))
}

// completionPatience is how long the shell waits for a completion.
const completionPatience = 500 * time.Millisecond

// completeMember completes an argument to the address of a member of the running cluster.
func (c *Configured) completeMember(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	cfg, err := c.Load()
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	dir, err := openDir(cfg.DataDir)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx := cmd.Context()
	if ctx == nil {
		ctx = context.Background()
	}
	ctx, cancel := context.WithTimeout(ctx, completionPatience)
	defer cancel()
	t, _, err := readTree(ctx, dir)
	if err != nil {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	var found []string
	for _, m := range t.Members {
		found = append(found, m.Address+"\t"+m.Role+", "+m.State)
	}
	slices.Sort(found)
	return found, cobra.ShellCompDirectiveNoFileComp
}
