package worker

import (
	"context"
	"os"
	"path/filepath"
	"sync"

	plugin "github.com/hashicorp/go-plugin"
	"google.golang.org/grpc"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/wire"
)

// control is the service by which a supervisor reaches its worker. Its
// handlers hand an event to the loop and return.
type control struct {
	wire.UnimplementedControlServer
	m *Member

	mu   sync.Mutex
	path string
}

func (c *control) Introduce(_ context.Context, r *wire.IntroduceRequest) (*wire.IntroduceResponse, error) {
	ros, err := wire.DecodeRoster(r.Roster)
	if err != nil {
		return nil, err
	}
	c.m.post(core.Introduced{Roster: ros})
	return &wire.IntroduceResponse{Member: wire.FromMember(c.m.selfMember()), Roster: c.m.rosterBytes()}, nil
}

func (c *control) Retire(_ context.Context, r *wire.RetireRequest) (*wire.RetireResponse, error) {
	c.m.post(core.Dismissed{Reason: r.Reason})
	go c.m.endIfOpening(r.Reason)
	return &wire.RetireResponse{Roster: c.m.rosterBytes()}, nil
}

// socket is the path of the service's Unix socket, empty until it is there.
// go-plugin gives a spawned worker a directory of its own for it and does not tell the name.
func (c *control) socket() string {
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

func (c *control) config() *plugin.ServeConfig {
	return &plugin.ServeConfig{
		HandshakeConfig:  member.Handshake,
		VersionedPlugins: member.ControlPlugins(c),
		GRPCServer: func(o []grpc.ServerOption) *grpc.Server {
			return grpc.NewServer(append(o, wire.GuardServer()...)...)
		},
		Logger: c.m.logs.Logger("go-plugin"),
	}
}

// serve shakes hands with the leader that started this process and serves it,
// and every later leader.
func (c *control) serve() {
	go plugin.Serve(c.config())
}

// serveJoined serves in a process that no leader started: there is nobody to
// shake hands with, the leader adopts it as it adopts those of an earlier leader.
func (c *control) serveJoined() {
	attach := make(chan *plugin.ReattachConfig, 1)
	cfg := c.config()
	cfg.Test = &plugin.ServeTestConfig{Context: context.Background(), ReattachConfigCh: attach}
	go plugin.Serve(cfg)
	r := <-attach
	c.mu.Lock()
	c.path = r.Addr.String()
	c.mu.Unlock()
}
