package supervisor

import (
	"context"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"
	plugin "github.com/hashicorp/go-plugin"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/wire"
)

// controlTimeout bounds one call of a control service.
const controlTimeout = 2 * time.Second

// Supervisor implements member.Supervisor.
type Supervisor struct {
	host      member.Host
	socketDir string
	log       hclog.Logger

	mu       sync.Mutex
	spawning map[int]*child       // by slot, until the handshake is done
	children map[roster.ID]*child // processes under control
	ports    map[uint16]bool      // bound for a process that is not in the roster yet
}

// child is a process under control, or on its way to be.
type child struct {
	client  *plugin.Client
	control wire.ControlClient
	runner  *runner // nil for an adopted one
	build   string  // the program; empty: this one
	aborted string  // why its start was given up
	sockets string  // the directory of its control socket
}

// New makes a supervisor. It is a member.NewSupervisor.
func New(h member.Host) (member.Supervisor, error) {
	dir, err := h.Dir.PluginSocketDir()
	if err != nil {
		return nil, fmt.Errorf("supervisor: %w", err)
	}
	return &Supervisor{
		host: h, socketDir: dir, log: h.Logger,
		spawning: map[int]*child{}, children: map[roster.ID]*child{}, ports: map[uint16]bool{},
	}, nil
}

// Abort kills the process of a spawn that did not finish.
func (s *Supervisor) Abort(slot int, reason string) {
	s.mu.Lock()
	c := s.spawning[slot]
	var r *runner
	if c != nil {
		c.aborted, r = reason, c.runner
	}
	s.mu.Unlock()
	switch {
	case c == nil:
		s.host.Post(core.SpawnFailed{Slot: slot, Reason: reason, At: time.Now()})
	case r != nil:
		_ = r.Kill(context.Background())
	}
}

// Retire asks a follower to end. One that does not answer is killed by the core in the end.
func (s *Supervisor) Retire(id roster.ID, reason string) {
	s.call(id, "retire", func(ctx context.Context, c wire.ControlClient) error {
		_, err := c.Retire(ctx, &wire.RetireRequest{Roster: wire.EncodeRoster(s.host.Roster()), Reason: reason})
		return err
	})
}

// call makes a control call on a goroutine of its own.
func (s *Supervisor) call(id roster.ID, what string, do func(context.Context, wire.ControlClient) error) {
	s.mu.Lock()
	c := s.children[id]
	s.mu.Unlock()
	if c == nil || c.control == nil {
		return
	}
	go func() {
		ctx, cancel := context.WithTimeout(context.Background(), controlTimeout)
		defer cancel()
		if err := do(ctx, c.control); err != nil {
			s.log.Debug("control call failed", "call", what, "member", id.Address, "error", err)
		}
	}()
}

// Release forgets a process that is gone, and removes its socket.
func (s *Supervisor) Release(id roster.ID) {
	s.mu.Lock()
	c := s.children[id]
	delete(s.children, id)
	s.mu.Unlock()
	if c != nil {
		go func() {
			c.client.Kill() // the process is gone: this only cleans up
			s.sweep(c)
		}()
	}
}

// sweep removes the directory of a control socket whose process is gone.
// go-plugin does so only for a process that it shook hands with itself.
func (s *Supervisor) sweep(c *child) {
	if filepath.Dir(c.sockets) == s.socketDir { // never anything else
		_ = os.RemoveAll(c.sockets)
	}
}

// introduce tells a follower who leads.
func (s *Supervisor) introduce(id roster.ID) {
	s.call(id, "introduce", func(ctx context.Context, c wire.ControlClient) error {
		_, err := c.Introduce(ctx, &wire.IntroduceRequest{Roster: wire.EncodeRoster(s.host.Roster())})
		return err
	})
}

// bind opens the listening socket of a new follower, on the next free port
// above the highest in use. The port belongs to this process from here on, so two
// spawns cannot meet on one.
func (s *Supervisor) bind() (*net.TCPListener, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	host, rng := s.host.Config().Member.Host, s.portRange()
	var used []uint16
	for _, m := range s.host.Roster().Members {
		used = append(used, m.Address.Port())
	}
	for p := range s.ports {
		used = append(used, p)
	}
	var last error
	for _, port := range rng.Candidates(used) {
		l, err := net.Listen("tcp", net.JoinHostPort(host, fmt.Sprint(port)))
		if err != nil {
			last = err // taken by a stranger: the next one
			continue
		}
		s.ports[port] = true
		return l.(*net.TCPListener), nil
	}
	if last == nil {
		return nil, fmt.Errorf("all ports %d-%d of %s are in use by members", rng.First, rng.Last, host)
	}
	return nil, fmt.Errorf("no free port in %d-%d on %s (member.ports in the configuration): %w", rng.First, rng.Last, host, last)
}

func (s *Supervisor) portRange() roster.PortRange {
	p := s.host.Config().Member.Ports
	return roster.PortRange{First: uint16(p.First), Last: uint16(p.Last)}
}

func (s *Supervisor) unbind(port uint16) {
	s.mu.Lock()
	delete(s.ports, port)
	s.mu.Unlock()
}

// environment is what a worker gets: this process's own, less what this
// process was itself told by its supervisor.
func (s *Supervisor) environment(drop ...string) []string {
	var env []string
next:
	for _, kv := range os.Environ() {
		for _, d := range drop {
			if len(kv) > len(d) && kv[:len(d)] == d && kv[len(d)] == '=' {
				continue next
			}
		}
		env = append(env, kv)
	}
	return env
}
