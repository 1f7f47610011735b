package services

import (
	"errors"
	"io/fs"
	"sync"
	"time"

	"github.com/hashicorp/go-hclog"

	"github.com/dynast-io/dynast/shared/observe/output"
	rules "github.com/dynast-io/dynast/shared/rules/services"
)

const (
	// busyInterval is how often the output of a program that writes is looked after.
	busyInterval = 100 * time.Millisecond
	// idleInterval is how often the output of a program that does not write is looked at.
	idleInterval = time.Second
)

// outputs bounds the output files of all instances, on a goroutine of its own, because it may
// wait for the disk.
type outputs struct {
	log  hclog.Logger
	stop chan struct{}
	done chan struct{}

	mu  sync.Mutex
	all map[rules.ID]*outputFile
}

// outputFile is the output of one instance.
type outputFile struct {
	path   string
	limits output.Limits
	// restarted means that a program was started since the last look. It has opened the path
	// again, which may name another file than before.
	restarted bool

	// The following belong to the goroutine.
	keeper *output.Keeper
	bytes  int64
	due    time.Time
	moved  bool   // reported
	failed string // the last error that was reported
}

func newOutputs(log hclog.Logger) *outputs {
	o := &outputs{log: log, stop: make(chan struct{}), done: make(chan struct{}), all: map[rules.ID]*outputFile{}}
	go o.run()
	return o
}

// add looks after the output of an instance from now on. restarted means that its program was
// started just now.
func (o *outputs) add(id rules.ID, path string, limits output.Limits, restarted bool) {
	o.mu.Lock()
	defer o.mu.Unlock()
	f := o.all[id]
	if f == nil {
		f = &outputFile{path: path}
		o.all[id] = f
	}
	f.limits, f.restarted = limits, f.restarted || restarted
}

// remove no longer looks after the output of an instance.
func (o *outputs) remove(id rules.ID) {
	o.mu.Lock()
	defer o.mu.Unlock()
	delete(o.all, id) // the goroutine closes the file
}

// close ends the goroutine, and waits for it.
func (o *outputs) close() {
	close(o.stop)
	<-o.done
}

func (o *outputs) run() {
	defer close(o.done)
	known := map[rules.ID]*outputFile{}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
		case <-o.stop:
			for id, f := range known {
				o.end(id, f)
			}
			return
		}
		now := time.Now()
		next := now.Add(idleInterval)
		current := o.current()
		for id, f := range known {
			if current[id] != f {
				o.end(id, f)
				delete(known, id)
			}
		}
		for id, f := range current {
			known[id] = f
			if restarted := o.takeRestarted(f); restarted || !now.Before(f.due) {
				o.tend(id, f, restarted, now)
			}
			if f.due.Before(next) {
				next = f.due
			}
		}
		timer.Reset(max(time.Until(next), busyInterval))
	}
}

func (o *outputs) current() map[rules.ID]*outputFile {
	o.mu.Lock()
	defer o.mu.Unlock()
	out := make(map[rules.ID]*outputFile, len(o.all))
	for id, f := range o.all {
		out[id] = f
	}
	return out
}

func (o *outputs) takeRestarted(f *outputFile) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	restarted := f.restarted
	f.restarted = false
	return restarted
}

// tend looks after one file.
func (o *outputs) tend(id rules.ID, f *outputFile, restarted bool, now time.Time) {
	f.due = now.Add(idleInterval)
	if f.keeper == nil {
		var err error
		if f.keeper, err = output.NewKeeper(f.path, f.limits); err != nil {
			// The leader before may still be dying, or the program may not have been started yet.
			if !errors.Is(err, output.ErrBusy) && !errors.Is(err, fs.ErrNotExist) {
				o.report(id, f, err)
			}
			f.due = now.Add(busyInterval)
			return
		}
	}
	t, err := f.keeper.Tend(now)
	if err != nil {
		o.report(id, f, err)
	}
	if t.Moved && restarted {
		o.end(id, f) // the new process writes to a new file
		f.moved = false
		f.due = now
		return
	}
	if t.Moved && !f.moved {
		o.log.Warn("somebody deleted or renamed the output file of a service: the program goes on writing to it until its next start",
			"instance", id.String(), "path", f.path)
	}
	f.moved = t.Moved
	if t.Bytes != f.bytes || t.Rotated > 0 {
		f.bytes, f.due = t.Bytes, now.Add(busyInterval)
	}
}

// report logs an error once.
func (o *outputs) report(id rules.ID, f *outputFile, err error) {
	if text := err.Error(); text != f.failed {
		f.failed = text
		o.log.Error("cannot look after the output of a service", "instance", id.String(), "error", err)
	}
}

func (o *outputs) end(id rules.ID, f *outputFile) {
	if f.keeper == nil {
		return
	}
	if err := f.keeper.Close(time.Now()); err != nil {
		o.report(id, f, err)
	}
	f.keeper = nil
}
