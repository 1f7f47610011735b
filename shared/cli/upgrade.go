package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/tree"
	"github.com/dynast-io/dynast/shared/wire"
)

// upgradePatience bounds an upgrade: the leader's own bounds, of some minutes for each of its
// steps, come first.
const upgradePatience = 20 * time.Minute

func (a *App) upgradeCommand() *cobra.Command {
	var binary string
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Replace all processes by those of another build, with no failed request",
		Long: "Starts followers of another build, waits until they are in sync, retires the old ones and hands over to a new one.\n" +
			"A build that does not come up leaves everything as it was, and the reason is told.\n" +
			"Members that were started by 'dynast join' stay as they are.",
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&binary, "binary", "", "`FILE` of the new build; without it the one that the leader was started from, which has changed")
	c := a.WithConfig(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := c.Load()
		if err != nil {
			return err
		}
		if binary != "" {
			if binary, err = filepath.Abs(binary); err != nil {
				return asError(err)
			}
		}
		return asError(Upgrade(cmd.Context(), cfg.DataDir, binary, os.Stdout))
	}
	return cmd
}

// Upgrade replaces all processes of a cluster and returns when all are there again.
// binary is an absolute path, or empty.
func Upgrade(ctx context.Context, dataDir, binary string, out io.Writer) error {
	dir, err := openDir(dataDir)
	if err != nil {
		return err
	}
	before, _, err := readTree(ctx, dir)
	if err != nil {
		return err
	}
	var answer *wire.UpgradeResponse
	err = askAtLength(ctx, dir, upgradePatience, func(ctx context.Context, a *admin) (err error) {
		answer, err = a.Upgrade(ctx, &wire.UpgradeRequest{Binary: binary})
		return err
	})
	if err != nil {
		return err
	}
	if _, err = ledAfter(ctx, dir, before.Epoch); err != nil {
		return fmt.Errorf("%s of %s was to succeed %s: %w", answer.Successor, answer.Binary, before.Leader, err)
	}
	after, err := replaced(ctx, dir, before)
	if err != nil {
		return err
	}
	_, err = fmt.Fprintf(out, "upgraded from %s to %s (%s): %s leads in epoch %d, after %s\n",
		answer.Before, answer.After, answer.Binary, after.Leader, after.Epoch, before.Leader)
	return err
}

// replaced waits until there are as many followers in sync as before.
func replaced(ctx context.Context, dir *datadir.Dir, before *tree.Tree) (*tree.Tree, error) {
	ctx, cancel := context.WithTimeout(ctx, handoverPatience)
	defer cancel()
	inSync := func(t *tree.Tree) (n int) {
		for _, m := range t.Members {
			if m.State == "in_sync" {
				n++
			}
		}
		return n
	}
	for {
		t, _, err := readTree(ctx, dir)
		if err == nil && inSync(t) >= inSync(before) {
			return t, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("upgraded, but not all followers are in sync after %s; 'dynast tree' shows how things stand", handoverPatience)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
