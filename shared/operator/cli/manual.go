package cli

import (
	"context"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/spf13/cobra"
	"github.com/spf13/cobra/doc"

	"github.com/dynast-io/dynast/shared/rules/core"
)

// manCommand writes manual pages, for package maintainers.
func (a *App) manCommand() *cobra.Command {
	return &cobra.Command{
		Use: "man DIRECTORY", Short: "Write a manual page for each command", Args: cobra.ExactArgs(1), Hidden: true,
		RunE: func(cmd *cobra.Command, args []string) error {
			root := cmd.Root()
			root.DisableAutoGenTag = true
			root.InitDefaultCompletionCmd() // it gets a page too
			if err := os.MkdirAll(args[0], 0o755); err != nil {
				return &Error{Code: core.ExitError, Err: err}
			}
			header := &doc.GenManHeader{Section: "1", Source: "dynast " + a.Version, Manual: "dynast"}
			if err := doc.GenManTree(root, header, args[0]); err != nil {
				return &Error{Code: core.ExitError, Err: fmt.Errorf("write manual pages: %w", err)}
			}
			return nil
		},
	}
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
