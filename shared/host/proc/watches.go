package proc

import (
	"errors"
	"fmt"
	"os"
	"time"
)

// Death says how and when a watched process ended.
type Death struct {
	// Reason is for people: an exit status or a signal. It is "gone" if the process was dead
	// before it was watched, and "ended" if the kernel does not tell (see ExitStatus).
	Reason string
	At     time.Time
}

// Watches holds a pidfd for each process whose death matters to the caller. The caller chooses
// the keys. Only one goroutine may use it; deaths are reported from other goroutines.
type Watches[K comparable] struct {
	died func(K, Death)
	stop <-chan struct{}
	open map[K]*watch
}

type watch struct {
	process *Process
	cancel  chan struct{}
}

// NewWatches makes an empty set. died is called once for each watched process that dies. It
// must not wait for the goroutine that uses the Watches. After stop is closed, no death is
// reported.
func NewWatches[K comparable](stop <-chan struct{}, died func(K, Death)) *Watches[K] {
	return &Watches[K]{died: died, stop: stop, open: map[K]*watch{}}
}

// Watch reports the death of a process, at once if it is dead already. The pidfd is checked
// against the start time, so a later process with the same pid is never confused with it. If
// the key is watched already, Watch does nothing.
func (w *Watches[K]) Watch(key K, id Identity) error {
	if w.open[key] != nil {
		return nil
	}
	p, err := Open(id)
	if errors.Is(err, ErrGone) {
		w.died(key, Death{Reason: "gone", At: time.Now()})
		return nil
	}
	if err != nil {
		return fmt.Errorf("watch: %w", err)
	}
	wt := &watch{process: p, cancel: make(chan struct{})}
	w.open[key] = wt
	go func() {
		select {
		case <-p.Done():
			if wt.cancelled() {
				break
			}
			d := Death{Reason: "ended", At: time.Now()}
			if reason, ok := p.ExitStatus(); ok {
				d.Reason = reason
			}
			w.died(key, d)
		case <-wt.cancel:
		case <-w.stop:
		}
		_ = p.Close()
	}()
	return nil
}

// cancelled is true after Unwatch. A select that finds the death and the cancellation chooses
// either, and a death after Unwatch must not be reported.
func (w *watch) cancelled() bool {
	select {
	case <-w.cancel:
		return true
	default:
		return false
	}
}

// Unwatch ends a watch. A death before it may still be reported, and a later one is not.
func (w *Watches[K]) Unwatch(key K) {
	if wt := w.open[key]; wt != nil {
		close(wt.cancel)
		delete(w.open, key)
	}
}

// Kill sends SIGKILL to a watched process. The death is reported as usual. It is no error if
// the process is gone or is not watched.
func (w *Watches[K]) Kill(key K) error {
	wt := w.open[key]
	if wt == nil {
		return nil
	}
	// If it is closed, its death was seen and is being reported.
	if err := wt.process.Kill(); err != nil && !errors.Is(err, ErrGone) && !errors.Is(err, os.ErrClosed) {
		return fmt.Errorf("watch: %w", err)
	}
	return nil
}
