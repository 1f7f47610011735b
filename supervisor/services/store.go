package services

import (
	"context"
	"encoding/hex"
	"time"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	rules "github.com/dynast-io/dynast/shared/rules/services"
)

// openStore opens the store of processes when the first service exists, and takes over what an
// earlier leader left in it. Without it the programs run as well, but how one ends during a takeover
// is not known then.
func (m *Manager) openStore() {
	file := m.host.Sockets.File(member.ProcessStore)
	if m.store.Load() != nil || file == nil && len(m.specs) == 0 {
		return
	}
	if file == nil {
		var err error
		if file, err = proc.NewStoreSocket(); err == nil {
			err = m.host.Sockets.Add(member.Listener{Name: member.ProcessStore, File: file})
		}
		if err != nil {
			m.log.Error("cannot keep the processes of services open for the next leader", "error", err)
			return
		}
	}
	store, all, err := proc.OpenStore(file, func(proc.Identity, proc.Tag) bool { return true })
	if err != nil {
		m.log.Error("cannot keep the processes of services open for the next leader", "error", err)
		return
	}
	m.tags = map[proc.Tag]rules.Process{}
	for p, tag := range all {
		main := named(p.Identity())
		m.opened[main], m.tags[tag] = p, main
	}
	m.store.Store(store)
}

// tagOf returns the tag of a run in the store.
func tagOf(token string) (tag proc.Tag) {
	if b, err := hex.DecodeString(token); err == nil {
		copy(tag[:], b)
	}
	return tag
}

// keepOpened returns what puts a process of a run into the store.
func (m *Manager) keepOpened(token string) func(*proc.Process) {
	store, tag := m.store.Load(), tagOf(token)
	return func(p *proc.Process) {
		if store == nil {
			return
		}
		if err := store.Add(p, tag); err != nil {
			m.log.Warn("cannot keep a process open for the next leader; how it ends during a takeover would not be known",
				"pid", p.Identity().PID, "error", err)
		}
	}
}

// dropOpened takes a process out of the store. What it said is saved.
func (m *Manager) dropOpened(p *proc.Process) {
	if store := m.store.Load(); store != nil && p != nil {
		store.Remove(p)
	}
}

// closeOpened closes the processes that nobody watches.
func (m *Manager) closeOpened() {
	for key, p := range m.opened {
		m.dropOpened(p)
		_ = p.Close()
		delete(m.opened, key)
	}
	m.tags = nil
}

// exitPatience is how long awaitExit waits for a process to be reaped.
const exitPatience = 2 * time.Second

// awaitExit returns how a dead process ended. If this user may not look at the process (it may have
// changed its user), that is known only when its parent has reaped it.
func awaitExit(ctx context.Context, p *proc.Process) proc.Exit {
	for deadline := time.Now().Add(exitPatience); ; {
		gone := !proc.Exists(p.Identity())
		exit, _ := p.Exit()
		if exit.Known || gone || time.Now().After(deadline) {
			return exit
		}
		select {
		case <-time.After(time.Millisecond):
		case <-ctx.Done():
			return exit
		}
	}
}
