package worker

import (
	"fmt"
	"os"
	"time"

	plugin "github.com/hashicorp/go-plugin"

	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/roster"
)

// succession is what succession.json says once this member leads.
func (m *Member) succession(epoch uint64, slot int, boot string) datadir.Succession {
	return datadir.Succession{
		ClusterID: m.clusterID, Epoch: epoch, Slot: slot,
		Leader: datadir.Leader{Address: m.address.String(), PID: m.self.PID, StartTime: m.self.StartTime},
		Client: m.cfg.Client.Listen, BootID: boot, At: time.Now(),
	}
}

func successionLeader(s datadir.Succession) (roster.ID, error) {
	a, err := roster.ParseAddress(s.Leader.Address)
	if err != nil {
		return roster.ID{}, err
	}
	return roster.ID{Address: a, PID: s.Leader.PID, StartTime: s.Leader.StartTime}, nil
}

// setSocketDir makes go-plugin put the control socket of this process into a
// directory that only its owner may enter, as a supervisor does for the processes that it starts.
func setSocketDir(dir *datadir.Dir) error {
	base, err := dir.PluginSocketDir()
	if err != nil {
		return err
	}
	own, err := os.MkdirTemp(base, "join")
	if err != nil {
		return fmt.Errorf("directory for the control socket: %w", err)
	}
	return os.Setenv(plugin.EnvUnixSocketDir, own)
}
