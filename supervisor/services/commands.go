package services

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/observe/ps"
	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// target is what a name in a command means. Instance 0 means all instances.
type target struct {
	service  string
	instance int
}

// find returns what a name means, as web or web/1.
func (m *Manager) find(name string) (target, error) {
	service, number, one := strings.Cut(name, "/")
	s, ok := m.specs[service]
	if !ok {
		return target{}, fmt.Errorf("there is no service %q; 'dynast ps' lists them", service)
	}
	if !one {
		return target{service: service}, nil
	}
	n, err := strconv.Atoi(number)
	if err != nil || n < 1 || n > s.Instances {
		return target{}, fmt.Errorf("there is no instance %q: %s has %d", name, service, s.Instances)
	}
	return target{service, n}, nil
}

// instances returns the instances that a target means.
func (m *Manager) instancesOf(t target) []*instance {
	var out []*instance
	for n := 1; n <= m.specs[t.service].Instances; n++ {
		if i := m.instances[rules.ID{Service: t.service, N: n}]; i != nil && (t.instance == 0 || t.instance == n) {
			out = append(out, i)
		}
	}
	return out
}

// Act implements member.Services.
func (m *Manager) Act(ctx context.Context, c member.ServiceCommand) (ids []string, err error) {
	if askErr := m.ask(ctx, func() { ids, err = m.act(c) }); askErr != nil {
		return nil, askErr
	}
	return ids, err
}

func (m *Manager) act(c member.ServiceCommand) ([]string, error) {
	if c.Action == member.ActionRun {
		return m.add(c)
	}
	if len(c.Names) == 0 {
		return nil, fmt.Errorf("%s needs the name of a service", c.Action)
	}
	// All names are checked first, so that a misspelled one changes nothing.
	var targets []target
	for _, name := range c.Names {
		t, err := m.find(name)
		if err == nil && t.service == member.EngineService && c.Action == member.ActionStop {
			err = fmt.Errorf("%s is the store of this host: 'dynast stop' stops it together with everything else, and 'dynast hosts remove' takes the host out of the cluster", t.service)
		}
		if err == nil {
			err = m.allowed(c, t)
		}
		if err != nil {
			return nil, err
		}
		targets = append(targets, t)
	}
	var ids []string
	for _, t := range targets {
		for n := 1; n <= m.specs[t.service].Instances && m.runsHere(m.specs[t.service]); n++ {
			if t.instance == 0 || t.instance == n {
				ids = append(ids, rules.ID{Service: t.service, N: n}.String())
			}
		}
	}
	if events := decisions(c, targets); len(events) > 0 {
		m.step(rules.Batch{Events: events})
		return ids, nil
	}
	for _, t := range targets {
		if err := m.apply(c, t); err != nil {
			return nil, err
		}
	}
	return ids, nil
}

// decisions returns what the rules have to decide about a command. All targets go into one step,
// so that services which are stopped together stop in their order.
func decisions(c member.ServiceCommand, targets []target) []rules.Event {
	var out []rules.Event
	for _, t := range targets {
		switch c.Action {
		case member.ActionStart:
			out = append(out, rules.StartWanted{Service: t.service, Instance: t.instance})
		case member.ActionStop:
			out = append(out, rules.StopWanted{Service: t.service, Instance: t.instance})
		case member.ActionRestart:
			out = append(out, rules.RestartWanted{Service: t.service, Instance: t.instance, Rolling: c.Rolling})
		}
	}
	return out
}

// allowed refuses a command that cannot be carried out.
func (m *Manager) allowed(c member.ServiceCommand, t target) error {
	s := m.specs[t.service]
	if why := m.elsewhere(s); why != "" && c.Action != member.ActionStart && c.Action != member.ActionStop && c.Action != member.ActionRemove {
		return fmt.Errorf("%s does not run on this host: %s", t.service, why)
	}
	switch c.Action {
	case member.ActionRestart:
		if c.Rolling && t.instance != 0 {
			return fmt.Errorf("a rolling restart is about all instances: use 'dynast restart --rolling %s', or 'dynast restart %s/%d' for one", t.service, t.service, t.instance)
		}
	case member.ActionStart, member.ActionStop, member.ActionKill:
	case member.ActionReload:
		if s.Reload.Signal == "" && len(s.Reload.Command) == 0 {
			return fmt.Errorf("%s cannot reload: its block has no reload { signal = ... } or { exec = ... }; 'dynast restart' restarts it", t.service)
		}
	case member.ActionSignal:
		if unix.SignalNum("SIG"+strings.TrimPrefix(strings.ToUpper(c.Signal), "SIG")) == 0 {
			return fmt.Errorf("there is no signal %q", c.Signal)
		}
	case member.ActionRemove:
		if !slices.ContainsFunc(m.desired.Added, func(a added) bool { return a.Service.Name == t.service }) {
			return fmt.Errorf("%s comes from the configuration (%s): remove its block there and run 'dynast reload'", t.service, s.Source)
		}
	default:
		return fmt.Errorf("unknown action %q", c.Action)
	}
	return nil
}

func (m *Manager) apply(c member.ServiceCommand, t target) error {
	switch c.Action {
	case member.ActionKill:
		for _, i := range m.instancesOf(t) {
			m.killInstance(i)
		}
	case member.ActionSignal:
		name := strings.TrimPrefix(strings.ToUpper(c.Signal), "SIG")
		for _, i := range m.instancesOf(t) {
			if i.Record.Process == (rules.Process{}) {
				continue
			}
			if err := m.send(i, name); err != nil {
				return fmt.Errorf("%s: %w", i.Record.ID, err)
			}
		}
	case member.ActionReload:
		for _, i := range m.instancesOf(t) {
			if i.Record.Phase != rules.Up {
				continue
			}
			if err := m.reload(i); err != nil {
				return fmt.Errorf("%s: %w", i.Record.ID, err)
			}
		}
	case member.ActionRemove:
		m.desired.Added = slices.DeleteFunc(m.desired.Added, func(a added) bool { return a.Service.Name == t.service })
		m.reconfigure()
	}
	return nil
}

// add adds a service at run time.
func (m *Manager) add(c member.ServiceCommand) ([]string, error) {
	s := *c.Service
	if _, ok := m.specs[s.Name]; ok {
		return nil, fmt.Errorf("there is a service %q already; choose another name", s.Name)
	}
	all := *m.host.Config
	all.Services = append(slices.DeleteFunc(m.effective(), func(s config.Service) bool { return s.Name == member.EngineService }), s)
	if err := all.Validate(); err != nil {
		return nil, err
	}
	if err := m.host.Fit(append(m.effective(), s)); err != nil {
		return nil, err
	}
	m.desired.Added = append(m.desired.Added, added{Service: s, Remove: c.RemoveWhenDone})
	m.reconfigure()
	var ids []string
	for n := 1; n <= s.Instances; n++ {
		ids = append(ids, rules.ID{Service: s.Name, N: n}.String())
	}
	return ids, nil
}

// Configure implements member.Services.
func (m *Manager) Configure(ctx context.Context, services []config.Service, dry bool) (changes member.ServiceChanges, err error) {
	var tooFew error
	err = m.ask(ctx, func() {
		changes = Compare(m.desired.Configured, services)
		before := m.desired.Configured
		m.desired.Configured = services
		if tooFew = m.host.Fit(m.effective()); tooFew != nil || dry {
			m.desired.Configured = before
			return
		}
		m.reconfigure()
	})
	return changes, errors.Join(err, tooFew)
}

// Refresh implements member.Services.
func (m *Manager) Refresh(ctx context.Context) error { return m.ask(ctx, m.reconfigure) }

// Compare says what replacing one list of services by another changes.
func Compare(before, after []config.Service) member.ServiceChanges {
	var c member.ServiceChanges
	c.Added, c.Removed, c.Changed = config.DiffServices(before, after)
	old, next := byName(before), byName(after)
	c.Changed = slices.DeleteFunc(c.Changed, func(name string) bool {
		if fingerprint(old[name]) == fingerprint(next[name]) {
			return false
		}
		c.Restarted = append(c.Restarted, name)
		return true
	})
	return c
}

func byName(services []config.Service) map[string]config.Service {
	out := map[string]config.Service{}
	for _, s := range services {
		out[s.Name] = s
	}
	return out
}

// maxEnded is how many ended instances of removed services are remembered, so that who started one
// learns how it ended.
const maxEnded = 256

// ended removes a service that was added to run once, when all its instances have ended.
func (m *Manager) ended(name string) {
	k := slices.IndexFunc(m.desired.Added, func(a added) bool { return a.Service.Name == name && a.Remove })
	if k < 0 || m.leaving {
		return
	}
	for _, i := range m.instancesOf(target{service: name}) {
		if i.Record.Phase != rules.Idle || i.Record.Outcome == rules.Unfinished {
			return
		}
	}
	m.desired.Added = slices.Delete(m.desired.Added, k, k+1)
	for _, v := range m.core.View() {
		if v.ID.Service == name {
			i := m.describe(v, map[string]running{})
			m.desired.Ended = append(m.desired.Ended, ps.Ended{ID: i.ID, At: time.Now(), State: i.State, Reason: i.Reason, LastExit: i.LastExit})
		}
	}
	m.desired.Ended = slices.Delete(m.desired.Ended, 0, max(0, len(m.desired.Ended)-maxEnded))
	m.reconfigure()
}

// reconfigure applies m.desired.
func (m *Manager) reconfigure() {
	before := m.specs
	m.useSpecs()
	m.usePlaced()
	m.saveDesired()
	m.openStore()
	m.closeOpened()
	m.closeSockets(before)
	m.openSockets()
	m.listen()
	m.clocks.set(m.effective(), m.desired.Fired, time.Now())
	m.step(rules.Configured{Specs: m.rulesSpecs()})
	m.closeAllElsewhere()
}
