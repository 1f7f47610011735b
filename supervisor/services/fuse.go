package services

import (
	"context"
	"errors"
	"maps"
	"slices"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/rules/placement"
	rules "github.com/dynast-io/dynast/shared/rules/services"
	"github.com/dynast-io/dynast/supervisor/process"
)

// fuse kills the processes of a service when its ownership is about to end. It waits for nothing but the
// clock: the goroutine of run may hang on a dead disk, and that is when hosts lose an ownership.
type fuse struct {
	ctx    context.Context
	cancel context.CancelFunc
	failed func(error)
	wake   chan struct{}

	mu    sync.Mutex
	at    time.Duration // when it kills; 0 means never
	trees map[rules.ID]process.Instance
}

func newFuse(ctx context.Context, failed func(error)) *fuse {
	f := &fuse{failed: failed, wake: make(chan struct{}, 1), trees: map[rules.ID]process.Instance{}}
	f.ctx, f.cancel = context.WithCancel(ctx)
	return f
}

func (f *fuse) stop() { f.cancel() }

// set arms the fuse for an ownership.
func (f *fuse) set(s placement.State) {
	f.mu.Lock()
	f.at = 0
	if s.Phase == placement.Held || s.Phase == placement.Leaving {
		f.at = max(s.Kill(), 1)
	}
	f.mu.Unlock()
	f.look()
}

// burn makes the fuse look at the clock. The rules call for it when its time has come.
func (f *fuse) burn() { f.look() }

func (f *fuse) look() {
	select {
	case f.wake <- struct{}{}:
	default:
	}
}

// tree sets the processes of an instance. Without any, it is forgotten.
func (f *fuse) tree(id rules.ID, t *process.Instance) {
	f.mu.Lock()
	defer f.mu.Unlock()
	if t == nil {
		delete(f.trees, id)
	} else {
		f.trees[id] = *t
	}
}

// fuseAgain is how often the fuse kills what is left.
const fuseAgain = 100 * time.Millisecond

func (f *fuse) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for {
		f.mu.Lock()
		at, trees := f.at, slices.Collect(maps.Values(f.trees))
		f.mu.Unlock()
		next := time.Hour
		switch left := at - now(); {
		case at == 0 || len(trees) == 0:
		case left > 0:
			// Timers stand still while the host sleeps.
			next = min(left, time.Second)
		default:
			next = fuseAgain
			for _, t := range trees {
				if err := kill(t); err != nil {
					f.failed(err)
				}
			}
		}
		timer.Reset(next)
		select {
		case <-timer.C:
		case <-f.wake:
		case <-f.ctx.Done():
			return
		}
	}
}

// kill kills the processes of an instance.
func kill(t process.Instance) error {
	processes, err := t.Tree()
	for _, p := range processes {
		if e := proc.Signal(p, unix.SIGKILL); !errors.Is(e, proc.ErrGone) {
			err = errors.Join(err, e)
		}
	}
	return err
}

// armFuse tells the fuse of a service about the processes of an instance.
func (m *Manager) armFuse(id rules.ID) {
	p, i := m.placed[id.Service], m.instances[id]
	if p == nil {
		return
	}
	if i == nil || i.Record.Phase == rules.Idle {
		p.fuse.tree(id, nil)
		return
	}
	t := i.tree(m.files, true)
	p.fuse.tree(id, &t)
	p.fuse.look()
}
