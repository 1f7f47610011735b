package cli

import (
	"context"
	"fmt"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/prove/bench"
)

// FindLeader returns a function that finds the leader of a data directory and reports whether
// enough followers are in sync. The Kill function of the result sends sig to the leader.
func FindLeader(dataDir string, sig unix.Signal) func(context.Context) (bench.Leader, error) {
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
		return leaderOf(t, sig)
	}
}

func leaderOf(t *tree.Tree, sig unix.Signal) (bench.Leader, error) {
	l := bench.Leader{PID: t.LeaderMember().PID, Full: t.InSync() >= t.Followers}
	if l.PID == 0 {
		return l, fmt.Errorf("no member of the cluster is the leader")
	}
	id, err := proc.Identify(l.PID)
	if err != nil {
		return l, err
	}
	l.Kill = func() error { return proc.Signal(id, sig) }
	return l, nil
}
