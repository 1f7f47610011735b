package services

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/rules/placement"
	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// placed is a service that runs on one host at a time.
type placed struct {
	core *placement.Core
	fuse *fuse
	look placement.Look
	// allowed is true while the program may run.
	allowed bool
	// seen is false until the core has got its first Look.
	seen bool
	// waiting are effects that have not been carried out. An Allow and a Release wait until the state
	// before them is saved.
	waiting  []placement.Effect
	draining bool
	// changed counts the states, saved is the last one that is in the file, and failed the last one that
	// could not be written. The file is written by another goroutine, because a dead disk must not keep
	// this one from stopping the program.
	changed, saved, failed uint64
	writing                bool
	owner                  string // the host that has the ownership, if that is known
	problem                string // why the store did not answer
	stuck                  bool   // an attempt to give the ownership back has failed
}

// storedPlacement is the file owner.json.
type storedPlacement struct {
	Schema int             `json:"schema"`
	BootID string          `json:"boot_id"`
	State  placement.State `json:"state"`
}

// where is the host on which this process runs.
type where struct {
	many bool // it is one of several
	name string
}

// whereAmI reads the record of the host. With a damaged record, only those services run that run everywhere.
func (m *Manager) whereAmI() where {
	host, err := m.host.Dir.ReadHost()
	if errors.Is(err, os.ErrNotExist) {
		return where{}
	}
	return where{many: true, name: host.Name}
}

// usePlaced brings the ownerships up to date with m.specs.
func (m *Manager) usePlaced() {
	m.where = m.whereAmI()
	if !m.where.many {
		for name := range m.placed {
			m.dropPlaced(name) // there is no other host any more
		}
		return
	}
	for name, s := range m.specs {
		if s.Hosts.One && m.placed[name] == nil {
			m.addPlaced(name)
		}
	}
}

// addPlaced begins with a service that runs on one host at a time, as the leader before has left it.
func (m *Manager) addPlaced(name string) {
	var before storedPlacement
	err := read(m.files.owner(name), &before)
	if err == nil && before.Schema != schema {
		err = fmt.Errorf("%s has schema %d; this build knows %d", m.files.owner(name), before.Schema, schema)
	}
	if err != nil {
		before = storedPlacement{}
		if !errors.Is(err, fs.ErrNotExist) {
			m.log.Warn("cannot read who owns a service; this host asks for it again", "service", name, "error", err)
		}
	}
	p := &placed{}
	p.fuse = newFuse(m.ctx, func(err error) {
		m.log.Error("cannot kill a service whose ownership ends", "service", name, "error", err)
	})
	m.work.Add(1)
	go func() {
		defer m.work.Done()
		p.fuse.run()
	}()
	p.core, p.waiting = placement.New(placement.NewLimits(m.host.Config.Heartbeat.Timeout), now(), before.State, before.BootID == m.host.BootID)
	p.allowed = p.core.Allowed() && now() < p.core.Late()
	p.fuse.set(p.core.State)
	m.placed[name] = p
	for id := range m.instances {
		m.armFuse(id)
	}
}

func (m *Manager) dropPlaced(name string) {
	m.placed[name].fuse.stop()
	delete(m.placed, name)
	if err := ignoreMissing(os.Remove(m.files.owner(name))); err != nil {
		m.log.Warn("cannot remove the record of an ownership", "service", name, "error", err)
	}
}

// runsHere reports whether a service may run on this host.
func (m *Manager) runsHere(s config.Service) bool {
	if p := m.placed[s.Name]; p != nil {
		return p.allowed && p.core.Allowed()
	}
	return !m.where.many || !s.Hosts.One && (len(s.Hosts.Names) == 0 || slices.Contains(s.Hosts.Names, m.where.name))
}

// elsewhere says why a service does not run on this host, or "".
func (m *Manager) elsewhere(s config.Service) string {
	p := m.placed[s.Name]
	switch {
	case m.runsHere(s):
		return ""
	case p == nil:
		return fmt.Sprintf("this host (%s) is not in its list of hosts", m.where.name)
	case p.core.Phase == placement.Leaving:
		return "this host gives it up"
	case p.problem != "":
		return p.problem
	case p.owner != "" && p.owner != m.where.name:
		return "it runs on " + p.owner
	}
	return "no host has it at the moment"
}

// wantedHere reports whether this host would run a service if it may.
func (m *Manager) wantedHere(name string) bool {
	s, ok := m.specs[name]
	w := m.desired.Wishes[name]
	_, engine := m.specs[member.EngineService]
	return ok && engine && s.Hosts.One && s.Instances > 0 && !w.Stopped && len(w.StoppedInstances) < s.Instances && !m.desired.Stopping && !m.yielding
}

// lookPlaced tells the rules of the ownerships what has changed. It is called after each step.
func (m *Manager) lookPlaced() {
	for name, p := range m.placed {
		l := placement.Look{Wanted: m.wantedHere(name), Gone: !m.core.Runs(name), Stop: m.specs[name].Stop.Timeout}
		if !p.seen || l != p.look {
			p.seen, p.look = true, l
			m.place(name, p, l)
			m.closeElsewhere(m.specs[name])
		}
		// The service is gone from the configuration, or runs on every host from now on.
		if s, ok := m.specs[name]; (!ok || !s.Hosts.One) && p.core.Phase == placement.Away && len(p.waiting) == 0 && !p.writing && m.placed[name] == p {
			m.dropPlaced(name)
			m.step(rules.Configured{Specs: m.rulesSpecs()})
		}
	}
}

// tickPlaced tells the rules of the ownerships the time.
func (m *Manager) tickPlaced() {
	for name, p := range m.placed {
		if at, ok := p.core.Wake(); ok && now() >= at {
			m.place(name, p, placement.Tick{})
		}
	}
}

// place feeds an event to the rules of an ownership and carries out the effects.
func (m *Manager) place(name string, p *placed, ev placement.Event) {
	if m.leaving || m.placed[name] != p {
		return
	}
	p.waiting = append(p.waiting, p.core.Step(now(), ev)...)
	p.fuse.set(p.core.State)
	m.drain(name, p)
}

// drain carries out effects in order, until one has to wait.
func (m *Manager) drain(name string, p *placed) {
	if p.draining {
		return
	}
	p.draining = true
	defer func() { p.draining = false }()
	for len(p.waiting) > 0 && !m.leaving && m.placed[name] == p {
		e := p.waiting[0]
		switch e.(type) {
		case placement.Allow, placement.Release:
			if p.saved < p.changed && p.failed < p.changed {
				m.writePlaced(name, p)
				return
			}
		}
		p.waiting = p.waiting[1:]
		m.carryOut(name, p, e)
	}
}

func (m *Manager) carryOut(name string, p *placed, e placement.Effect) {
	unsaved := p.saved < p.changed
	switch e := e.(type) {
	case placement.Save:
		p.changed++
		m.writePlaced(name, p)
	case placement.Allow:
		if unsaved {
			m.place(name, p, placement.Unsaved{})
			return
		}
		p.allowed, p.owner, p.problem = true, m.where.name, ""
		m.log.Info("this host owns a service", "service", name, "fence", e.Fence)
		m.host.Tell("owned", name, 0, fmt.Sprintf("fence %d", e.Fence))
		m.step(rules.Configured{Specs: m.rulesSpecs()})
	case placement.Stop:
		p.allowed = false
		m.log.Warn("this host gives a service up", "service", name, "reason", e.Why)
		m.host.Tell("given up", name, 0, e.Why)
		m.step(rules.Configured{Specs: m.rulesSpecs()})
	case placement.Kill:
		p.fuse.burn()
	case placement.Release:
		if unsaved {
			// A later leader would start the program again. The lease ends by itself.
			p.failed = p.changed - 1
			m.place(name, p, placement.Failed{})
			return
		}
		m.askStore(name, p, func(ctx context.Context) (placement.Event, error) {
			err := m.engine.Ask(ctx, hosts.PathRelease, hosts.ReleaseRequest{Lease: e.Lease}, nil)
			return placement.Released(e), err
		})
	case placement.Claim:
		sent := now()
		m.askStore(name, p, func(ctx context.Context) (placement.Event, error) {
			var resp hosts.HoldResponse
			err := m.engine.Ask(ctx, hosts.PathHold, hosts.HoldRequest{Service: name, TTL: e.TTL}, &resp)
			if resp.Lease == 0 {
				m.post(func() { p.owner = resp.Owner })
				return placement.Taken{Mine: resp.Mine}, err
			}
			return placement.Claimed{Sent: sent, TTL: e.TTL, Lease: resp.Lease, Fence: resp.Fence}, err
		})
	case placement.Renew:
		sent := now()
		m.askStore(name, p, func(ctx context.Context) (placement.Event, error) {
			var resp hosts.RenewResponse
			err := m.engine.Ask(ctx, hosts.PathRenew, hosts.RenewRequest{Service: name, Lease: e.Lease, Fence: e.Fence}, &resp)
			if err == nil && !resp.Renewed {
				return placement.Lost{Lease: e.Lease}, nil
			}
			return placement.Renewed{Sent: sent, Lease: e.Lease}, err
		})
	}
}

// storePatience bounds a request to the store about an ownership.
const storePatience = 1500 * time.Millisecond

// askStore sends a request on a goroutine of its own, and feeds the answer to the rules.
func (m *Manager) askStore(name string, p *placed, ask func(context.Context) (placement.Event, error)) {
	m.work.Add(1)
	go func() {
		defer m.work.Done()
		ctx, cancel := context.WithTimeout(m.ctx, storePatience)
		defer cancel()
		ev, err := ask(ctx)
		problem := ""
		if err != nil {
			ev, problem = placement.Failed{}, err.Error()
		}
		m.post(func() {
			p.stuck = problem != "" && p.core.Phase == placement.Releasing
			if p.problem = problem; problem != "" {
				m.log.Debug("no answer about the ownership of a service", "service", name, "error", problem)
			}
			m.place(name, p, ev)
		})
	}()
}

// writePlaced writes the state of an ownership on a goroutine of its own. If it changes meanwhile, it is
// written again.
func (m *Manager) writePlaced(name string, p *placed) {
	if p.writing {
		return
	}
	p.writing = true
	version, s := p.changed, storedPlacement{Schema: schema, BootID: m.host.BootID, State: p.core.State}
	m.work.Add(1)
	go func() {
		defer m.work.Done()
		err := write(m.files.owner(name), s)
		m.post(func() {
			p.writing = false
			if err == nil {
				p.saved = version
			} else {
				p.failed = version
				m.log.Error("cannot save who owns a service", "service", name, "error", err)
			}
			if version < p.changed {
				m.writePlaced(name, p)
			}
			m.drain(name, p)
			m.lookPlaced()
		})
	}()
}

// StopPlaced implements member.Services.
func (m *Manager) StopPlaced(ctx context.Context) error {
	done := make(chan struct{})
	if err := m.ask(ctx, func() {
		m.yielding = true
		m.yielded = append(m.yielded, func() { close(done) })
		m.lookPlaced()
	}); err != nil {
		return err
	}
	return m.await(ctx, done)
}

// tellYielded answers StopPlaced, and continues a StopAll, when this host owns no service any more. One whose
// program is gone is not waited for when the store does not answer: its lease ends by itself.
func (m *Manager) tellYielded() {
	if len(m.yielded) == 0 {
		return
	}
	for _, p := range m.placed {
		if p.core.Phase != placement.Away && !p.stuck {
			return
		}
	}
	for _, f := range m.yielded {
		f()
	}
	m.yielded = nil
}
