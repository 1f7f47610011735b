package engine

import (
	"path/filepath"
	"time"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
)

// buildEnv names the build that an engine was started from. The engine does not read it.
const buildEnv = "DYNAST_ENGINE_BUILD"

// hungTimeout is how long an engine that hangs may take to end before it is killed.
const hungTimeout = 500 * time.Millisecond

// Service returns the engine of a host as a service, which the leader of the host supervises like
// those of the user.
func Service(c *config.Config, host datadir.Host) config.Service {
	s := config.NewService()
	s.Name = member.EngineService
	s.Command = []string{proc.Executable(), "engine", "--data-dir", c.DataDir}
	s.Dir = filepath.Dir(c.DataDir)
	s.Env = map[string]string{SettingsEnv: FromConfig(c).Encode()}
	// A leader of another build restarts the engine, which is how an upgrade reaches it.
	if build, err := proc.Build(); err == nil {
		s.Env[buildEnv] = build
	}
	s.Listen = []config.Listen{{Name: member.ClientListener, Address: c.Client.Listen}, {Name: SocketPeers, Address: host.Address}}
	s.Ready = &config.Check{Kind: config.CheckNotify, Interval: time.Second, Timeout: time.Minute, Threshold: 1}
	s.Alive = &config.Check{Kind: config.CheckNotify, Interval: WatchdogInterval, Timeout: WatchdogInterval, Threshold: 1}
	s.Stop.Hung = hungTimeout
	// Clients of this host wait for it, so even one that dies again and again starts soon.
	s.Backoff = config.Backoff{First: 10 * time.Millisecond, Max: time.Second}
	s.Restart = config.RestartOnFailure
	return s
}
