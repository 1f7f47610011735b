package services

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	rules "github.com/dynast-io/dynast/shared/rules/services"
	"github.com/dynast-io/dynast/supervisor/health"
)

// lead takes over from the leader before: it reads what shall run, looks at what runs, and
// continues with it.
func (m *Manager) lead() error {
	var err error
	if m.desired, err = m.files.readDesired(); err != nil {
		return err
	}
	before := m.desired
	fresh := m.desired.Stopped || m.desired.BootID != m.host.BootID
	if m.host.Configured != nil { // an operator has started the cluster
		m.desired.Configured, m.desired.Stopping = m.host.Configured, false
	}
	m.desired.Stopped = false
	m.useSpecs()
	m.usePlaced()
	if fresh {
		m.desired.Wishes, m.desired.Fired = nil, nil
	}
	// Writing waits for the disk. After a takeover nothing has changed, and the programs should not
	// be without supervision meanwhile.
	if m.desired.BootID = m.host.BootID; !reflect.DeepEqual(before, m.desired) {
		m.saveDesired()
	}
	m.openStore()
	found, err := m.survey()
	if err != nil {
		return err
	}
	m.openSockets()
	m.listen()
	m.clocks.set(m.effective(), m.desired.Fired, time.Now())
	m.step(rules.Lead{Specs: m.rulesSpecs(), Wishes: m.desired.Wishes, Found: found, Fresh: fresh, Stopping: m.desired.Stopping})
	m.closeOpened()
	m.closeAllElsewhere()
	return nil
}

// effective returns all services: dynast's own, those of the configuration and those that were
// added.
func (m *Manager) effective() []config.Service {
	out := append(m.host.Builtin(), m.desired.Configured...)
	for _, a := range m.desired.Added {
		if !slices.ContainsFunc(out, func(s config.Service) bool { return s.Name == a.Service.Name }) {
			out = append(out, a.Service)
		}
	}
	return out
}

func (m *Manager) useSpecs() {
	m.specs = map[string]config.Service{}
	all := m.effective()
	for _, s := range all {
		m.specs[s.Name] = s
	}
	m.host.Use(all)
}

func (m *Manager) rulesSpecs() []rules.Spec {
	var out []rules.Spec
	for _, s := range m.effective() {
		spec := toSpec(s)
		if !m.runsHere(s) {
			spec.Instances = 0
		}
		if _, ok := m.specs[member.EngineService]; ok && s.Name != member.EngineService {
			spec.Needs = append(slices.Clone(spec.Needs), member.EngineService)
		}
		out = append(out, spec)
	}
	return out
}

// survey looks at every instance that has a directory.
func (m *Manager) survey() ([]rules.Found, error) {
	ids, err := m.files.instances()
	if err != nil {
		return nil, err
	}
	// What was sent while no leader was there is handled after the rules have begun. But who is the
	// main process has to be known before.
	var pending []health.Message
	if file := m.host.Sockets.File(member.NotifyListener); file != nil {
		pending = health.Pending(file)
	}
	var found []rules.Found
	for _, id := range ids {
		f, ok, err := m.look(id, pending)
		if err != nil {
			return nil, err
		}
		if ok {
			found = append(found, f)
		}
	}
	return found, nil
}

// look finds out what is left of an instance. ok is false if that is nothing.
func (m *Manager) look(id rules.ID, pending []health.Message) (f rules.Found, ok bool, err error) {
	s, sum, recorded, err := m.files.readRecord(id)
	if err != nil {
		// A power loss can leave a record that was half written. After it, nothing runs.
		m.log.Warn("cannot read the record of a service; its processes are found by their lock", "instance", id.String(), "error", err)
	}
	held, err := m.held(id)
	if err != nil {
		return rules.Found{}, false, err
	}
	if !recorded {
		m.instances[id] = &instance{stored: stored{Record: rules.Record{ID: id}}}
		return rules.Found{Record: rules.Record{ID: id}, Others: held}, held, nil
	}
	s.Record.Fingerprint = fingerprint(s.Service)
	if s.BootID != m.host.BootID {
		s.Record = afterBoot(s.Record)
	}
	m.instances[id] = &instance{stored: s, written: sum}
	f = rules.Found{Record: s.Record, Others: held}
	if s.Service.Name != "" {
		spec := toSpec(s.Service)
		f.Spec = &spec
	}
	f.Main, f.Exit = m.lookAtMain(s)
	switch p := s.Record.Process; {
	case f.Main != (rules.Process{}) && alive(f.Main):
	case s.Record.Phase == rules.Starting && f.Main == (rules.Process{}):
		f.Main, err = m.findMain(id, s.Token)
	case p != (rules.Process{}):
		if to := moved(p, s.Token, pending); to != (rules.Process{}) {
			f.Main, f.Exit = to, rules.Exit{}
		}
	}
	return f, true, err
}

// lookAtMain returns the main process of a record, or else how it ended. The store can also name
// one that the leader had started before it died, but not saved.
func (m *Manager) lookAtMain(s stored) (rules.Process, rules.Exit) {
	p := s.Record.Process
	if s.Record.Phase == rules.Starting {
		p = m.tags[tagOf(s.Token)]
	}
	opened := m.opened[p]
	switch {
	case p == (rules.Process{}):
	case opened != nil:
		exit, ended := opened.Exit()
		if ended && exit.Known && s.Record.Phase != rules.Starting {
			return rules.Process{}, toExit(exit)
		}
		return p, rules.Exit{} // if it is dead, watch reports how it ended
	case alive(p):
		return p, rules.Exit{}
	}
	return rules.Process{}, rules.Exit{}
}

// moved returns the main process that a dead one named before its death (MAINPID=), if that lives
// and belongs to the same instance.
func moved(from rules.Process, token string, pending []health.Message) rules.Process {
	var to rules.Process
	sender := from.PID
	for _, msg := range pending {
		if msg.PID != sender || msg.MainPID == 0 || msg.MainPID == sender {
			continue
		}
		id, err := proc.Identify(msg.MainPID)
		if mark, ok := proc.Variable(msg.MainPID, tokenVariable); err == nil && ok && mark == token {
			to, sender = named(id), msg.MainPID
		}
	}
	if to != (rules.Process{}) && alive(to) {
		return to
	}
	return rules.Process{}
}

func alive(p rules.Process) bool {
	id, err := proc.Identify(p.PID)
	return err == nil && id == identity(p)
}

// afterBoot returns what a record means after the host has booted: no process is left, and no
// time of the other boot means anything.
func afterBoot(r rules.Record) rules.Record {
	return rules.Record{ID: r.ID, Run: r.Run, Restarts: r.Restarts, Outcome: r.Outcome, Skipped: r.Skipped,
		LastExit: r.LastExit, Exits: r.Exits, Reason: r.Reason}
}

// held reports whether a process holds the lock of an instance.
func (m *Manager) held(id rules.ID) (bool, error) {
	f, err := proc.TakeInstanceLock(m.files.lock(id))
	switch {
	case errors.Is(err, proc.ErrLocked):
		return true, nil
	case err != nil:
		return false, fmt.Errorf("services: %w", err)
	}
	return false, f.Close()
}

// patience is how long findMain waits for a process that is between fork and exec.
const patience = 2 * time.Second

// findMain finds the main process of a start that an earlier leader did not finish, by the lock or
// the token. It returns none if there is no such process.
func (m *Manager) findMain(id rules.ID, token string) (rules.Process, error) {
	all, err := m.holders(id)
	if err != nil {
		return rules.Process{}, err
	}
	if len(all) == 0 {
		if all, err = proc.WithEnvironment(tokenVariable, token); err != nil {
			return rules.Process{}, fmt.Errorf("services: %w", err)
		}
	}
	if len(all) == 0 {
		return rules.Process{}, nil
	}
	// The main process leads a session. If it is dead already, then its children do not, and none of
	// them may be taken for it.
	entries, err := proc.List()
	if err != nil {
		return rules.Process{}, fmt.Errorf("services: %w", err)
	}
	all = slices.DeleteFunc(all, func(p proc.Identity) bool {
		return !slices.ContainsFunc(entries, func(e proc.Entry) bool { return e.Identity == p && e.Session == p.PID })
	})
	if len(all) == 0 {
		return rules.Process{}, nil
	}
	return named(slices.MinFunc(all, older)), nil
}

// holders returns the processes of an instance that hold its lock. A process that the dead leader
// forked for another instance has the descriptor too, until it has executed its program. Until then
// the two cannot be told apart, so holders waits.
func (m *Manager) holders(id rules.ID) ([]proc.Identity, error) {
	for deadline := time.Now().Add(patience); ; {
		holders, err := proc.LockHolders(m.files.lock(id))
		if err != nil {
			return nil, fmt.Errorf("services: %w", err)
		}
		var all []proc.Identity
		for _, h := range holders {
			if !h.CloseOnExec {
				all = append(all, h.Identity)
			}
		}
		if len(all) == len(holders) || time.Now().After(deadline) {
			return all, nil
		}
		time.Sleep(time.Millisecond)
	}
}
