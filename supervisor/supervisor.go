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

	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/supervisor/process"
)

// controlTimeout bounds one call to a control service.
const controlTimeout = 2 * time.Second

// Supervisor implements member.Supervisor.
type Supervisor struct {
	host      member.Host
	socketDir string
	log       hclog.Logger

	mu       sync.Mutex
	spawning map[int]*child       // by slot, until the handshake is done
	children map[roster.ID]*child // processes that completed the handshake, or were adopted
	ports    map[uint16]bool      // bound for a process that is not in the roster yet
}

// child is a process under control, or one that is starting.
type child struct {
	client  *plugin.Client
	control wire.ControlClient
	process *process.Child // nil for an adopted process
	build   string         // path of the program; empty: the program of this process
	aborted string         // why its start was aborted
	sockets string         // the directory of its control socket
}

// New returns a supervisor. It is a member.NewSupervisor.
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

// Abort kills the process of a start that has not finished.
func (s *Supervisor) Abort(slot int, reason string) {
	s.mu.Lock()
	c := s.spawning[slot]
	var p *process.Child
	if c != nil {
		c.aborted, p = reason, c.process
	}
	s.mu.Unlock()
	switch {
	case c == nil:
		s.host.Post(core.SpawnFailed{Slot: slot, Reason: reason, At: time.Now()})
	case p != nil:
		_ = p.Kill()
	}
}

// Retire asks a follower to exit. If it does not, the core kills it later.
func (s *Supervisor) Retire(id roster.ID, reason string) {
	s.call(id, "retire", func(ctx context.Context, c wire.ControlClient) error {
		_, err := c.Retire(ctx, &wire.RetireRequest{Roster: wire.EncodeRoster(s.host.Roster()), Reason: reason})
		return err
	})
}

// call makes a control call in its own goroutine.
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

// Release forgets a process that is gone and removes its socket.
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

// sweep removes the socket directory of a process that is gone. go-plugin removes it only
// for a process that it performed the handshake with.
func (s *Supervisor) sweep(c *child) {
	if filepath.Dir(c.sockets) == s.socketDir { // never remove a directory elsewhere
		_ = os.RemoveAll(c.sockets)
	}
}

// introduce tells a follower that this process is the leader.
func (s *Supervisor) introduce(id roster.ID) {
	s.call(id, "introduce", func(ctx context.Context, c wire.ControlClient) error {
		_, err := c.Introduce(ctx, &wire.IntroduceRequest{Roster: wire.EncodeRoster(s.host.Roster())})
		return err
	})
}

// bind opens the listening socket of a new follower on the next free port above the highest
// port in use. This process owns the port from here on, so two starts cannot get the same one.
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
			last = err // another program uses it: try the next one
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
