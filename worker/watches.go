package worker

import (
	"errors"
	"os"
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
)

// watches holds a pidfd for each process whose death matters. Only the loop
// uses it.
type watches struct {
	m    *Member
	open map[roster.ID]*watch
}

type watch struct {
	process *proc.Process
	cancel  chan struct{}
}

func newWatches(m *Member) *watches { return &watches{m: m, open: map[roster.ID]*watch{}} }

// watch reports the death of a process, at once if it is dead already. The
// pidfd is checked against the start time: a process that got the same pid later is not
// mistaken for it.
func (w *watches) watch(id roster.ID) {
	if w.open[id] != nil {
		return
	}
	p, err := proc.Open(proc.Identity{PID: id.PID, StartTime: id.StartTime})
	switch {
	case errors.Is(err, proc.ErrGone):
		w.m.post(core.Died{ID: id, Reason: "gone", At: time.Now()})
		return
	case err != nil:
		w.m.fatal(core.ExitError, err)
		return
	}
	wt := &watch{process: p, cancel: make(chan struct{})}
	w.open[id] = wt
	go func() {
		select {
		case <-p.Done():
			at := time.Now()
			reason, ok := p.ExitStatus()
			if !ok {
				reason = "ended"
			}
			w.m.post(core.Died{ID: id, Reason: reason, At: at})
		case <-wt.cancel:
		case <-w.m.ended:
		}
		_ = p.Close()
	}()
}

func (w *watches) unwatch(id roster.ID) {
	if wt := w.open[id]; wt != nil {
		close(wt.cancel)
		delete(w.open, id)
	}
}

// kill sends SIGKILL; Died follows when the process is gone. When it is gone
// already, and its Died on the way here, the pidfd is closed.
func (w *watches) kill(id roster.ID) {
	wt := w.open[id]
	if wt == nil {
		return
	}
	if err := wt.process.Kill(); err != nil && !errors.Is(err, proc.ErrGone) && !errors.Is(err, os.ErrClosed) {
		w.m.fatal(core.ExitError, err)
	}
}
