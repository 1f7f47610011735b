package supervisor

import (
	"cmp"
	"encoding/base64"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"
	prunner "github.com/hashicorp/go-plugin/runner"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/supervisor/process"
)

// Spawn starts a follower for a slot.
func (s *Supervisor) Spawn(slot int, build string) {
	c := &child{build: build}
	// The port is bound here and not in the goroutine, so that followers that start
	// together get ports in the order of their slots.
	listener, err := s.bind()
	if err != nil {
		s.host.Post(core.SpawnFailed{Slot: slot, Build: build, Reason: err.Error(), At: time.Now()})
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
			s.host.Post(core.Spawned{Member: m, Build: build})
			return
		}
		failed := core.SpawnFailed{Slot: slot, Build: build, ID: m.ID, Reason: err.Error(), At: time.Now()}
		if c.process != nil {
			// The process is confirmed dead before the failure is reported, so the slot is free.
			code := c.process.End()
			s.sweep(c)
			failed.SlotBusy = code == member.ExitSlotBusy
			failed.Reason = startError(err, aborted, code)
		}
		s.host.Post(failed)
	}()
}

// startError says in one line why a start failed. go-plugin's own text is a page about
// executables for the wrong architecture.
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

// spawn starts the process and performs the handshake. The returned member holds what is
// known about the process, even if there is an error.
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
	c.process = process.NewChild(s.command(address, slot, c.build, null, inherited))
	if c.aborted != "" {
		_ = c.process.Kill() // the process has not started, and now it will not
	}
	s.mu.Unlock()
	c.client = plugin.NewClient(s.clientConfig(c))
	_, err = c.client.Start()
	// The worker now has its own copies, or it did not start and needs none.
	null.Close()
	inherited.Close()
	listener.Close()
	if err != nil {
		return roster.Member{}, err
	}
	id, err := proc.Identify(c.process.PID())
	if err != nil {
		return roster.Member{}, fmt.Errorf("worker %s ended right after its handshake: %w", address, err)
	}
	m := roster.Member{
		ID:      roster.ID{Address: address, PID: id.PID, StartTime: id.StartTime},
		Slot:    slot,
		Version: s.host.Version,
	}
	if c.build != "" {
		m.Version = "" // another build: it reports its version when it joins
	}
	m.Protocol = c.client.NegotiatedVersion()
	if r := c.client.ReattachConfig(); r != nil {
		m.Plugin = r.Addr.String()
	}
	c.control, err = dispense(c.client)
	return m, err
}

// command returns the worker's command line. Its arguments show an operator which member it
// is. Longer values are passed in the environment.
func (s *Supervisor) command(a roster.Address, slot int, build string, null, listener *os.File) process.Command {
	listeners := append(s.host.Sockets.All(), member.Listener{Name: member.OwnListener, File: listener})
	return process.Command{
		Path: cmp.Or(build, proc.Executable()),
		Argv: []string{"dynast", "worker",
			"--address", a.String(),
			"--slot", strconv.Itoa(slot),
			"--data-dir", s.host.Config().DataDir},
		Env: append(process.Environment(member.ConfigEnv, member.RosterEnv, member.ListenersEnv, plugin.EnvUnixSocketDir),
			member.ConfigEnv+"="+string(s.host.Config().WithoutServices().Encode()),
			member.ListenersEnv+"="+strings.Join(listeners.Names(), ","),
			member.RosterEnv+"="+base64.StdEncoding.EncodeToString(wire.EncodeRoster(s.host.Roster()))),
		Stdin: null,
		// Standard error is the first leader's: each leader passes it on.
		Stderr: member.Stderr,
		Extra:  listeners.Files(),
		// Its own process group: a Ctrl-C in the terminal reaches only the leader. No
		// parent-death signal: the worker must survive its leader.
		Attr: &syscall.SysProcAttr{Setpgid: true},
	}
}

func (s *Supervisor) clientConfig(c *child) *plugin.ClientConfig {
	return &plugin.ClientConfig{
		HandshakeConfig:  member.Handshake,
		VersionedPlugins: member.ControlPlugins(nil),
		AllowedProtocols: []plugin.Protocol{plugin.ProtocolGRPC},
		// The core ends a start after spawn.timeout and gives the reason (Abort). This longer
		// timeout only applies if the core does not.
		StartTimeout:    2 * s.host.Config().Spawn.Timeout,
		SkipHostEnv:     true, // command has built the environment
		GRPCDialOptions: wire.GuardClient(),
		// The worker's socket is protected by its directory, which has mode 0700.
		UnixSocketConfig: &plugin.UnixSocketConfig{TempDir: s.socketDir},
		Logger:           s.log.ResetNamed("go-plugin").With(), // With keeps this logger's level; go-plugin would log at Trace
		RunnerFunc: func(_ hclog.Logger, cmd *exec.Cmd, sockets string) (prunner.Runner, error) {
			c.sockets = sockets
			c.process.Command.Env = append(c.process.Command.Env, cmd.Env...)
			return runner{Child: c.process}, nil
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
