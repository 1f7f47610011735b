package store

import (
	"bytes"
	"fmt"
	"runtime/debug"
	"time"

	"github.com/dynast-io/dynast/shared/tick"
)

// A file that is damaged while it is open is found when bbolt reads the page: it
// panics, or, where the file has become shorter, the kernel says that the memory
// is not there. What of that can be caught on the goroutine where it happens
// becomes ErrCorrupt: the process ends with that reason, and its replica is fetched anew.

// catch is deferred by goroutines that touch the database.
func catch(then func(error)) {
	if p := recover(); p != nil {
		then(fmt.Errorf("%w: %w", ErrBroken, FromPanic(p, debug.Stack())))
	}
}

// FromPanic makes an error of a panic, with the stack at the place where it was
// recovered. It is ErrCorrupt if it came out of the database's own code.
func FromPanic(p any, stack []byte) error {
	if bytes.Contains(stack, []byte("go.etcd.io/bbolt")) {
		return fmt.Errorf("%w: %v", ErrCorrupt, p)
	}
	return fmt.Errorf("panic: %v", p)
}

// commitLoop commits what is applied, once in a while and not without a reason.
// etcd's backend would do so on a goroutine of its own, where a panic is the end
// of the process and nobody can say why.
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
