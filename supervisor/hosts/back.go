package hosts

import (
	"context"
	"errors"
	"fmt"
	"os"

	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/host/crash"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/replica/restore"
	"github.com/dynast-io/dynast/shared/replica/store"
)

// Back makes a single host's store from the data of the stopped engine, for the leader of the host,
// which has stopped it. It runs in a process of its own, because a process can have one store open
// only. It changes nothing except in hosts/back.
func Back(ctx context.Context, dataDir string, log *zap.Logger) (datadir.Left, error) {
	dir, err := datadir.Open(dataDir, false)
	if err != nil {
		return datadir.Left{}, err
	}
	host, err := dir.ReadHost()
	if err != nil {
		return datadir.Left{}, err
	}
	if !host.Halted {
		return datadir.Left{}, errors.New("back: the engine of this host may be running; only the leader of the host can run this command")
	}
	client, member := "", ""
	if s, err := dir.ReadSuccession(); err == nil {
		client, member = s.Client, s.Leader.Address
	}
	res, err := restore.Single(ctx, restore.Options{Source: dir.Engine(), DataDir: dir.BackData(), Client: client, Member: member, Logger: log})
	if err != nil {
		return datadir.Left{}, err
	}
	made, err := datadir.Open(res.DataDir, false)
	if err != nil {
		return datadir.Left{}, err
	}
	info, err := os.Stat(store.Path(made.Slot(1).DBDir()))
	if err != nil {
		return datadir.Left{}, fmt.Errorf("back: %w", err)
	}
	left := datadir.Left{Cluster: host.Cluster, Name: host.Name, Revision: res.Revision, Bytes: info.Size(), Stopped: host.HaltedAt}
	crash.At("leave-copied")
	return left, dir.WriteBack(left)
}
