package cli

import (
	"context"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/spf13/cobra"

	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/tree"
	"github.com/dynast-io/dynast/shared/wire"
)

func (a *App) treeCommand() *cobra.Command {
	var asJSON bool
	cmd := &cobra.Command{Use: "tree", Short: "Show the processes of a running cluster", Args: cobra.NoArgs}
	cmd.Flags().BoolVar(&asJSON, "json", false, "print one JSON object")
	c := a.WithConfig(cmd)
	cmd.RunE = func(cmd *cobra.Command, _ []string) error {
		cfg, err := c.Load()
		if err != nil {
			return err
		}
		return asError(Tree(cmd.Context(), cfg.DataDir, asJSON, os.Stdout))
	}
	return cmd
}

// Tree prints the processes of the cluster in a data directory.
func Tree(ctx context.Context, dataDir string, asJSON bool, out io.Writer) error {
	dir, err := openDir(dataDir)
	if err != nil {
		return err
	}
	t, raw, err := readTree(ctx, dir)
	if err != nil {
		return err
	}
	if asJSON {
		_, err = fmt.Fprintf(out, "%s\n", raw)
		return err
	}
	return t.Render(out, time.Now())
}

func readTree(ctx context.Context, dir *datadir.Dir) (*tree.Tree, []byte, error) {
	var raw []byte
	err := withLeader(ctx, dir, takeoverPatience, func(ctx context.Context, a *admin) error {
		resp, err := a.Tree(ctx, &wire.TreeRequest{})
		raw = resp.GetJson()
		return err
	})
	if err != nil {
		return nil, nil, err
	}
	t, err := tree.Decode(raw)
	return t, raw, err
}
