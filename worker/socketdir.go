package worker

import (
	"fmt"
	"os"

	"github.com/hashicorp/go-plugin"

	"github.com/dynast-io/dynast/shared/host/datadir"
)

// setSocketDir makes go-plugin create this process's control socket in a directory that only
// its owner may enter. A supervisor does the same for the processes that it starts.
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
