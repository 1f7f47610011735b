package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/tree"
)

// upgradePatience bounds an upgrade. The leader has shorter bounds of a few minutes for each step.
const upgradePatience = 20 * time.Minute

func (a *App) upgradeCommand() *cobra.Command {
	var binary string
	cmd := &cobra.Command{
		Use:   "upgrade",
		Short: "Replace all processes with another build; no request fails",
		Long: "The leader starts followers of another build, waits until they are in sync, stops the old followers and hands the\n" +
			"leadership over to a new one. If the new build does not start, everything stays as it was, and the command prints\n" +
			"the reason. Members that were started with 'dynast join' are not replaced. In a cluster of several hosts it goes from host to\n" +
			"host. The new build must be at the same path on each, and a host is upgraded only while all others are in sync.",
		Args: cobra.NoArgs,
	}
	cmd.Flags().StringVar(&binary, "binary", "", "executable `FILE` of the new build; default: the file that the leader was started from, which must have changed")
	c := a.WithCluster(cmd)
	c.run(cmd, func(ctx context.Context, cfg *config.Config, _ []string) error {
		if binary != "" {
			var err error
			if binary, err = filepath.Abs(binary); err != nil {
				return err
			}
		}
		dir, err := openDir(cfg.DataDir)
		if err != nil {
			return err
		}
		if dir.ManyHosts() {
			return upgradeHosts(ctx, cfg.DataDir, binary, os.Stdout)
		}
		return Upgrade(ctx, cfg.DataDir, binary, os.Stdout)
	})
	return cmd
}

// Upgrade replaces all processes of a cluster. It returns when as many followers as before are in
// sync. binary is an absolute path, or empty for the file that the leader was started from.
func Upgrade(ctx context.Context, dataDir, binary string, out io.Writer) error {
	dir, before, _, err := openTree(ctx, dataDir)
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
		return fmt.Errorf("upgrade: hand-over from %s to %s (%s): %w", before.Leader, answer.Successor, answer.Binary, err)
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
	for {
		t, _, err := readTree(ctx, dir)
		if err == nil && t.InSync() >= before.InSync() {
			return t, nil
		}
		select {
		case <-ctx.Done():
			return nil, fmt.Errorf("upgraded, but not all followers are in sync after %s: 'dynast tree' shows the state of the cluster", handoverPatience)
		case <-time.After(5 * time.Millisecond):
		}
	}
}
