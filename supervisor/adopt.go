package supervisor

import (
	"cmp"
	"fmt"
	"net"
	"path/filepath"
	"time"

	plugin "github.com/hashicorp/go-plugin"
	prunner "github.com/hashicorp/go-plugin/runner"

	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/wire"
)

// Reattach takes over the control of a follower and introduces the new leader
// to it. The follower finds its leader without this too, only later.
func (s *Supervisor) Reattach(m roster.Member) {
	if m.Plugin == "" {
		return // it had not told its socket yet
	}
	go func() {
		began := time.Now()
		c, err := s.attach(m)
		if err != nil {
			s.log.Warn("follower is adopted without its control service", "member", m.Address, "error", err)
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
	// go-plugin negotiates nothing with a process that is there already: what was agreed on
	// is in the roster. (0: its leader died before it could tell.)
	protocol := cmp.Or(m.Protocol, member.ControlProtocol)
	plugins, ok := member.ControlPlugins(nil)[protocol]
	if !ok {
		return nil, fmt.Errorf("adopt %s: it speaks version %d of the control service, which this build (%s) does not", m.ID, protocol, s.host.Version)
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
				p, err := proc.Open(proc.Identity{PID: m.PID, StartTime: m.StartTime})
				if err != nil {
					return nil, fmt.Errorf("adopt %s: %w", m.ID, err)
				}
				return &attached{process: p, pid: m.PID}, nil
			},
		},
	})
	var err error
	c.control, err = dispense(c.client)
	return c, err
}
