package services

import (
	"context"
	"fmt"
	"time"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	rules "github.com/dynast-io/dynast/shared/rules/services"
	"github.com/dynast-io/dynast/supervisor/health"
	"github.com/dynast-io/dynast/supervisor/process"
)

// reloadTimeout bounds the command of a reload.
const reloadTimeout = 30 * time.Second

// check begins the ready or the alive check of a process. The results are events of the rules.
func (m *Manager) check(id rules.ID, run uint64, alive bool) {
	i, spec := m.instances[id], m.specs[id.Service]
	c := spec.Ready
	if alive {
		c = spec.Alive
	}
	if c == nil {
		return
	}
	m.endChecks(id)
	ctx, cancel := context.WithCancel(m.ctx)
	i.endChecks = cancel
	check, order := *c, m.commandOrder(i)
	go func() {
		var target health.Target
		if check.Kind == config.CheckExec { // only a command needs the program's environment and user
			var err error
			if target, err = order.target(); err != nil {
				m.log.Error("cannot check a service", "instance", id.String(), "error", err)
				return
			}
		}
		health.Watch(ctx, check, target, !alive, func(err error) {
			ev := rules.Checked{ID: id, Run: run, Alive: alive, OK: err == nil}
			if err != nil {
				ev.Reason = err.Error()
			}
			m.event(ev)
		})
	}()
}

// commandOrder returns what a command for an instance needs, of the Manager's state.
func (m *Manager) commandOrder(i *instance) startOrder {
	return startOrder{id: i.Record.ID, service: i.Service, store: m.endpoints()}
}

// target returns what a command for a program needs: its environment, directory and user. It reads
// files, which may take any time, so it is not for the goroutine of run.
func (o *startOrder) target() (health.Target, error) {
	env, err := o.environment()
	if err != nil {
		return health.Target{}, err
	}
	credential, err := process.LookupCredential(o.service.User, o.service.Group)
	return health.Target{Env: env, Dir: o.service.Dir, Credential: credential}, err
}

func (m *Manager) endChecks(id rules.ID) {
	if i := m.instances[id]; i != nil && i.endChecks != nil {
		i.endChecks()
		i.endChecks = nil
	}
}

// reload makes a running program read its configuration again. How a command ends is in the log.
func (m *Manager) reload(i *instance) error {
	r := m.specs[i.Record.ID.Service].Reload
	if r.Signal != "" {
		return m.send(i, r.Signal)
	}
	order, pid := m.commandOrder(i), i.Record.Process.PID
	go func() {
		ctx, cancel := context.WithTimeout(m.ctx, reloadTimeout)
		defer cancel()
		target, err := order.target()
		if err == nil {
			target.Env = append(target.Env, fmt.Sprintf("MAINPID=%d", pid))
			err = health.Probe(ctx, config.Check{Kind: config.CheckExec, Command: r.Command, Timeout: reloadTimeout}, target)
		}
		if err != nil {
			m.log.Error("the reload command of a service failed", "instance", order.id.String(), "error", err)
		}
	}()
	return nil
}

// listen reads the notify socket. It is opened when the first service exists.
func (m *Manager) listen() {
	if m.notify != nil || len(m.specs) == 0 {
		return
	}
	file := m.host.Sockets.File(member.NotifyListener)
	if file == nil {
		var err error
		if file, err = health.Listen(notifyName(m.host.Dir.Path())); err == nil {
			err = m.host.Sockets.Add(member.Listener{Name: member.NotifyListener, File: file})
		}
		if err != nil {
			m.log.Error("cannot listen for notifications of services", "error", err)
			return
		}
	}
	notify, err := health.ReadNotify(file, func(msg health.Message) bool {
		// A program that sent a barrier may exit as soon as this returns, and who it is could not be
		// found out then. What the message changed is saved when this returns; if it is not, the next
		// leader gets the message.
		return m.ask(m.ctx, func() { m.notified(msg) }) == nil
	})
	if err != nil {
		m.log.Error("cannot read notifications of services", "error", err)
		return
	}
	m.notify = notify
}

// notified hands a message to the rules, if the sender belongs to an instance.
func (m *Manager) notified(msg health.Message) {
	i := m.senderOf(msg.PID)
	if i == nil {
		m.log.Debug("ignored a notification from a process that belongs to no service", "pid", msg.PID)
		return
	}
	if msg.HasStatus {
		// It is saved with the next record, or when this member stops leading.
		i.newStatus = i.newStatus || i.Status != msg.Status
		i.Status = msg.Status
	}
	ev := rules.Notified{ID: i.Record.ID, Run: i.Record.Run, Ready: msg.Ready, Reloading: msg.Reloading, Ping: msg.Ping, Hung: msg.Hung, Extend: msg.Extend}
	// What a child says about its own end is not about the program.
	ev.Stopping = msg.Stopping && msg.PID == i.Record.Process.PID
	if msg.MainPID != 0 && msg.MainPID != i.Record.Process.PID && m.senderOf(msg.MainPID) == i {
		if id, err := proc.Identify(msg.MainPID); err == nil {
			ev.Main = named(id)
		}
	}
	m.step(ev)
}

// senderOf returns the instance to which a process belongs, or nil. The main process is known. A
// descendant is recognized by the token in its environment.
func (m *Manager) senderOf(pid int) *instance {
	for _, i := range m.instances {
		if i.Record.Process.PID == pid {
			return i
		}
	}
	token, ok := proc.Variable(pid, tokenVariable)
	if !ok {
		return nil
	}
	for _, i := range m.instances {
		if i.Token == token {
			return i
		}
	}
	return nil
}
