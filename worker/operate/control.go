package operate

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	plugin "github.com/hashicorp/go-plugin"

	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state"
)

// Control is the service through which a supervisor controls its worker. Its handlers hand an
// event to the loop and return.
type Control struct {
	wire.UnimplementedControlServer
	*state.Shared
	describe  func() roster.Member
	interrupt func(reason string)

	mu   sync.Mutex
	path string
}

// NewControl creates the service. describe returns this member as it introduces itself.
// interrupt ends a member that is still opening its copy.
func NewControl(sh *state.Shared, describe func() roster.Member, interrupt func(reason string)) *Control {
	return &Control{Shared: sh, describe: describe, interrupt: interrupt}
}

func (c *Control) Introduce(_ context.Context, r *wire.IntroduceRequest) (*wire.IntroduceResponse, error) {
	ros, err := wire.DecodeRoster(r.Roster)
	if err != nil {
		return nil, err
	}
	c.Post(core.Introduced{Roster: ros})
	return &wire.IntroduceResponse{Member: wire.FromMember(c.describe()), Roster: c.RosterBytes()}, nil
}

func (c *Control) Retire(_ context.Context, r *wire.RetireRequest) (*wire.RetireResponse, error) {
	c.Post(core.Dismissed{Reason: r.Reason})
	go c.interrupt(r.Reason)
	return &wire.RetireResponse{Roster: c.RosterBytes()}, nil
}

// Socket returns the path of the service's Unix socket, or "" before the socket exists.
// go-plugin gives a spawned worker a directory for the socket but does not tell its name.
func (c *Control) Socket() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.path == "" {
		if dir := os.Getenv(plugin.EnvUnixSocketDir); dir != "" {
			if found, _ := filepath.Glob(filepath.Join(dir, "plugin*")); len(found) == 1 {
				c.path = found[0]
			}
		}
	}
	return c.path
}

func (c *Control) config() *plugin.ServeConfig {
	return &plugin.ServeConfig{
		HandshakeConfig:  member.Handshake,
		VersionedPlugins: member.ControlPlugins(c),
		GRPCServer:       plugin.DefaultGRPCServer,
		Logger:           c.Logs.Logger("go-plugin"),
	}
}

// Serve performs the handshake with the leader that started this process. Then it serves that
// leader and every later one.
func (c *Control) Serve() {
	go plugin.Serve(c.config())
}

// ServeJoined serves in a process that no leader started. There is no handshake: the leader
// adopts the process like one that an earlier leader started.
func (c *Control) ServeJoined() {
	attach := make(chan *plugin.ReattachConfig, 1)
	cfg := c.config()
	cfg.Test = &plugin.ServeTestConfig{Context: context.Background(), ReattachConfigCh: attach}
	go plugin.Serve(cfg)
	r := <-attach
	c.mu.Lock()
	c.path = r.Addr.String()
	c.mu.Unlock()
}
