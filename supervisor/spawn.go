package supervisor

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	prunner "github.com/hashicorp/go-plugin/runner"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/wire"
)

// Spawn starts a follower for a slot.
func (s *Supervisor) Spawn(slot int, build string) {
	c := &child{build: build}
	// The port is taken here and not in the background, so that followers
	// started together get theirs in the order of their slots.
	listener, err := s.bind()
	if err != nil {
		s.host.Post(core.SpawnFailed{Slot: slot, Reason: err.Error(), At: time.Now()})
		return
	}
	s.mu.Lock()
	s.spawning[slot] = c
	s.mu.Unlock()
	go func() {
		m, err := s.spawn(slot, c, listener)
		s.mu.Lock()
		delete(s.spawning, slot)
		aborted := c.aborted
		if err == nil {
			s.children[m.ID] = c
		}
		s.mu.Unlock()
		if err == nil {
			s.host.Post(core.Spawned{Member: m})
			return
		}
		failed := core.SpawnFailed{Slot: slot, ID: m.ID, Reason: err.Error(), At: time.Now()}
		if c.runner != nil {
			// Confirmed dead before it is told: the slot is free for the next.
			code := c.runner.end()
			s.sweep(c)
			failed.SlotBusy = code == member.ExitSlotBusy
			failed.Reason = startError(err, aborted, code)
		}
		s.host.Post(failed)
	}()
}

// startError says why a start failed in one line; go-plugin's own text is a
// page about wrong architectures.
func startError(err error, aborted string, code int) string {
	switch {
	case aborted != "":
		return aborted
	case code == member.ExitSlotBusy:
		return "the slot is owned by another process"
	case code >= 0:
		return fmt.Sprintf("the process ended with exit status %d before its handshake; its log has the reason", code)
	default:
		return strings.Join(strings.Fields(err.Error()), " ")
	}
}

// spawn starts the process and shakes hands. The member is returned as far as
// it is known, also with an error.
func (s *Supervisor) spawn(slot int, c *child, listener *net.TCPListener) (roster.Member, error) {
	address := listener.Addr().(*net.TCPAddr).AddrPort()
	defer s.unbind(address.Port())
	inherited, err := listener.File()
	if err != nil {
		listener.Close()
		return roster.Member{}, fmt.Errorf("pass on the listener of %s: %w", address, err)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		listener.Close()
		inherited.Close()
		return roster.Member{}, err
	}
	s.mu.Lock()
	c.runner = newRunner(s.command(address, slot, c.build, null, inherited))
	c.runner.killed = c.aborted != ""
	s.mu.Unlock()
	c.client = plugin.NewClient(s.clientConfig(c))
	_, err = c.client.Start()
	// The worker has its own copies now, or will never need them.
	null.Close()
	inherited.Close()
	listener.Close()
	if err != nil {
		return roster.Member{}, err
	}
	id, err := proc.Identify(c.runner.running().Pid)
	if err != nil {
		return roster.Member{}, fmt.Errorf("worker %s ended right after its handshake: %w", address, err)
	}
	m := roster.Member{
		ID:      roster.ID{Address: address, PID: id.PID, StartTime: id.StartTime},
		Slot:    slot,
		Version: s.host.Version,
	}
	if c.build != "" {
		m.Version = "" // it tells itself when it joins
	}
	m.Protocol = c.client.NegotiatedVersion()
	if r := c.client.ReattachConfig(); r != nil {
		m.Plugin = r.Addr.String()
	}
	c.control, err = dispense(c.client)
	return m, err
}

// command is the worker's command line. Its arguments show the operator who
// it is; what is too long for them travels in the environment.
func (s *Supervisor) command(a roster.Address, slot int, build string, null, listener *os.File) command {
	listeners := append(slices.Clone(s.host.Listeners), member.Listener{Name: member.OwnListener, File: listener})
	return command{
		path: cmp.Or(build, proc.Executable()),
		argv: []string{"dynast", "worker",
			"--address", a.String(),
			"--slot", strconv.Itoa(slot),
			"--data-dir", s.host.Config().DataDir},
		env: append(s.environment(member.ConfigEnv, member.RosterEnv, member.ListenersEnv, plugin.EnvUnixSocketDir),
			member.ConfigEnv+"="+string(s.host.Config().Encode()),
			member.ListenersEnv+"="+strings.Join(listeners.Names(), ","),
			member.RosterEnv+"="+base64.StdEncoding.EncodeToString(wire.EncodeRoster(s.host.Roster()))),
		stdin: null,
		// Standard error is the first leader's, handed from leader to leader.
		stderr: member.Stderr,
		extra:  listeners.Files(),
		// A group of its own: a Ctrl-C in the terminal reaches the leader only. No
		// parent-death signal: the worker is to survive its leader.
		attr: &syscall.SysProcAttr{Setpgid: true},
	}
}

func (s *Supervisor) clientConfig(c *child) *plugin.ClientConfig {
	return &plugin.ClientConfig{
		HandshakeConfig:  member.Handshake,
		VersionedPlugins: member.ControlPlugins(nil),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		StartTimeout:     s.host.Config().Spawn.Timeout,
		SkipHostEnv:      true, // command has built it
		GRPCDialOptions:  wire.GuardClient(),
		// The worker's socket lies in a 0700 directory: that is its protection.
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: s.socketDir},
		Logger:           s.log.ResetNamed("go-plugin").With(), // at this logger's level, not at Trace
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, sockets string) (prunner.Runner, error) {
			c.sockets = sockets
			c.runner.cmd.env = append(c.runner.cmd.env, cmd.Env...)
			return c.runner, nil
		},
	}
}

// dispense connects to the control service.
func dispense(client *plugin.Client) (wire.ControlClient, error) {
	rpc, err := client.Client()
	if err != nil {
		return nil, fmt.Errorf("connect to the worker's control service: %w", err)
	}
	raw, err := rpc.Dispense(member.ControlPlugin)
	if err != nil {
		return nil, fmt.Errorf("dispense the worker's control service: %w", err)
	}
	return raw.(wire.ControlClient), nil
}
