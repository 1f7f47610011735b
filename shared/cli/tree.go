package cli

import (
	"context"
	"fmt"
	"io"
	"time"

	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/tree"
	"github.com/dynast-io/dynast/shared/wire"
)

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
