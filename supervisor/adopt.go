package supervisor

import (
	"cmp"
	"fmt"
	"net"
	"path/filepath"
	"time"

	plugin "github.com/hashicorp/go-plugin"
	prunner "github.com/hashicorp/go-plugin/runner"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/supervisor/process"
)

// Reattach connects to the control service of a follower that an earlier leader started, and
// introduces the new leader to it. The follower also finds its leader without this, but later.
func (s *Supervisor) Reattach(m roster.Member) {
	if m.Plugin == "" {
		return // the old leader died before it knew the control socket
	}
	if now, ok := s.host.Roster().Find(m.Address); !ok || now.ID != m.ID {
		return // it has died meanwhile
	}
	go func() {
		began := time.Now()
		c, err := s.attach(m)
		if err != nil {
			s.log.Warn("adopted a follower without its control service", "member", m.Address, "error", err)
			return
		}
		s.mu.Lock()
		s.children[m.ID] = c
		s.mu.Unlock()
		s.log.Debug("adopted", "member", m.Address, "pid", m.PID, "took", time.Since(began))
		s.introduce(m.ID)
	}()
}

func (s *Supervisor) attach(m roster.Member) (*child, error) {
	// go-plugin does not negotiate a version with a process that already runs: the agreed
	// version is in the roster. It is 0 if the old leader died before it published it.
	protocol := cmp.Or(m.Protocol, member.ControlProtocol)
	plugins, ok := member.ControlPlugins(nil)[protocol]
	if !ok {
		return nil, fmt.Errorf("adopt %s: it speaks version %d of the control service, which this build (%s) does not support", m.ID, protocol, s.host.Version)
	}
	c := &child{sockets: filepath.Dir(m.Plugin)}
	c.client = plugin.NewClient(&plugin.ClientConfig{
		HandshakeConfig:  member.Handshake,
		Plugins:          plugins,
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		GRPCDialOptions:  wire.GuardClient(),
		Logger:           s.log.ResetNamed("go-plugin"),
		Reattach: &plugin.ReattachConfig{
			Protocol:        plugin.ProtocolGRPC,
			ProtocolVersion: protocol,
			Addr:            &net.UnixAddr{Net: "unix", Name: m.Plugin},
			Pid:             m.PID,
			ReattachFunc: func() (prunner.AttachedRunner, error) {
				p, err := process.Adopt(proc.Identity{PID: m.PID, StartTime: m.StartTime})
				if err != nil {
					return nil, fmt.Errorf("adopt %s: %w", m.ID, err)
				}
				return attached{Adopted: p}, nil
			},
		},
	})
	var err error
	c.control, err = dispense(c.client)
	return c, err
}
