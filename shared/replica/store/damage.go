package store

import (
	"bytes"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/dynast-io/dynast/shared/host/tick"
)

// When a database file is damaged while it is open, the damage shows when bbolt reads
// the page. bbolt panics, or, if the file has become shorter, the kernel reports a
// memory fault. If the panic can be caught on its goroutine, it becomes ErrCorrupt. The
// process then ends with that reason, and its replica is fetched anew.

// catch recovers a panic of a goroutine that touches the database. It must be deferred.
func catch(then func(error)) {
	if p := recover(); p != nil {
		then(fmt.Errorf("%w: %w", ErrBroken, FromPanic(p, debug.Stack())))
	}
}

// FromPanic turns a panic into an error. stack is the stack where the panic was recovered. The
// error is ErrCorrupt if the panic came from bbolt's code.
func FromPanic(p any, stack []byte) error {
	if bytes.Contains(stack, []byte("go.etcd.io/bbolt")) {
		return fmt.Errorf("%w: %v", ErrCorrupt, p)
	}
	return fmt.Errorf("panic: %v", p)
}

// commitLoop commits what is applied, at intervals and only if something changed. etcd's
// backend would do so on a goroutine of its own, where a panic would end the process without a
// reason in the log.
func (s *Store) commitLoop() {
	defer close(s.committerDone)
	debug.SetPanicOnFault(true)
	defer catch(func(err error) {
		s.mu.Lock()
		s.broken = err
		s.mu.Unlock()
		s.hook.die(err)
	})
	timer := time.NewTimer(tick.Until(s.cfg.CommitInterval))
	defer timer.Stop()
	for {
		select {
		case <-timer.C:
			timer.Reset(tick.Until(s.cfg.CommitInterval))
		case <-s.stopCommitter:
			return
		}
		if s.dirty.Load() {
			s.be.ForceCommit()
		}
	}
}
