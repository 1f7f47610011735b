package services

import (
	"cmp"
	"context"
	"errors"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/cgroup"
	"github.com/dynast-io/dynast/shared/host/proc"
	rules "github.com/dynast-io/dynast/shared/rules/services"
	"github.com/dynast-io/dynast/supervisor/process"
)

// older orders processes by their start.
func older(a, b proc.Identity) int {
	return cmp.Or(cmp.Compare(a.StartTime, b.StartTime), cmp.Compare(a.PID, b.PID))
}

// tree returns what is known about the processes of an instance.
func (s *stored) tree(f files, watched bool) process.Instance {
	return makeTree(f, s.Record.ID, identity(s.Record.Process), watched, s.Token, s.Cgroup)
}

func makeTree(f files, id rules.ID, main proc.Identity, watched bool, token, group string) process.Instance {
	t := process.Instance{Main: main, Watched: watched, Lock: f.lock(id), Token: token}
	if group != "" {
		t.Group = cgroup.At(group)
	}
	return t
}

const (
	// clearTimeout bounds one attempt to end a process tree. A process that waits for a dead disk
	// cannot be killed.
	clearTimeout = 10 * time.Second
	clearAgain   = time.Second
)

// clear ends what is left of an instance, on a goroutine of its own.
func (m *Manager) clear(id rules.ID, run uint64) {
	tree := m.instances[id].tree(m.files, true)
	m.work.Add(1)
	go func() {
		defer m.work.Done()
		for {
			ctx, cancel := context.WithTimeout(m.ctx, clearTimeout)
			err := tree.KillTree(ctx)
			cancel()
			if m.ctx.Err() != nil {
				return
			}
			if err == nil && tree.Group != nil {
				err = tree.Group.Remove()
			}
			if err == nil {
				m.event(rules.Cleared{ID: id, Run: run})
				return
			}
			m.log.Error("cannot end the processes of a service, trying again", "instance", id.String(), "error", err)
			select {
			case <-time.After(clearAgain):
			case <-m.ctx.Done():
				return
			}
		}
	}()
}

// killInstance kills the processes that an instance has now, because an operator wants it. The rules
// see the death of the main process, and end what is left. It must not wait for that: the next run
// could already have the lock by which processes are found.
func (m *Manager) killInstance(i *instance) {
	tree, id := i.tree(m.files, true), i.Record.ID
	m.work.Add(1)
	go func() {
		defer m.work.Done()
		processes, err := tree.Tree()
		for _, p := range processes {
			err = errors.Join(err, proc.Signal(p, unix.SIGKILL))
		}
		if err != nil {
			m.log.Error("cannot kill a service", "instance", id.String(), "error", err)
		}
	}()
}
