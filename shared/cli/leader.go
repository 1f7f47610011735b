package cli

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/bench"
	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/tree"
	"github.com/dynast-io/dynast/shared/wire"
)

// FindLeader returns a function that names the leader of a data directory, as
// the one to be sent a signal, and whether enough followers are in sync.
func FindLeader(dataDir string, followers int, sig unix.Signal) func(context.Context) (bench.Leader, error) {
	return func(ctx context.Context) (bench.Leader, error) {
		dir, err := datadir.OpenForReading(dataDir)
		if err != nil {
			return bench.Leader{}, err
		}
		var t *tree.Tree
		err = once(ctx, dir, func(ctx context.Context, a *admin) error {
			resp, err := a.Tree(ctx, &wire.TreeRequest{})
			if err == nil {
				t, err = tree.Decode(resp.GetJson())
			}
			return err
		})
		if err != nil {
			return bench.Leader{}, err
		}
		return leaderOf(t, followers, sig)
	}
}

func leaderOf(t *tree.Tree, followers int, sig unix.Signal) (bench.Leader, error) {
	var l bench.Leader
	inSync := 0
	for _, m := range t.Members {
		if m.Address == t.Leader {
			l.PID = m.PID
		}
		if m.State == "in_sync" {
			inSync++
		}
	}
	if l.PID == 0 {
		return l, fmt.Errorf("the tree names no leader")
	}
	id, err := proc.Identify(l.PID)
	if err != nil {
		return l, err
	}
	l.Full = inSync >= followers
	l.Kill = func() error { return proc.Signal(id, sig) }
	return l, nil
}
