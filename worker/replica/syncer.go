package replica

import (
	"fmt"
	"time"

	"github.com/dynast-io/dynast/shared/observe/meter"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/worker/state"
)

// syncer makes the log durable, one fsync at a time, while the writer appends.
type syncer struct {
	*state.Shared
	copies    *holder
	proposals *Proposals
	times     *meter.Histogram // of fsyncs
	kick      chan struct{}
}

func (s *syncer) sync() {
	select {
	case s.kick <- struct{}{}:
	default:
	}
}

func (s *syncer) run() {
	var synced uint64
	for {
		select {
		case <-s.kick:
		case <-s.Ended():
			return
		}
		began := time.Now()
		pos, err := s.copies.sync()
		if pos.Index != synced { // otherwise there was nothing to sync
			s.times.Observe(time.Since(began))
			synced = pos.Index
		}
		if err != nil {
			// After a failed fsync the kernel may have dropped the pages, so this process
			// cannot rely on the content of its log any more.
			s.Fatal(core.ExitError, fmt.Errorf("fsync the log: %w", err))
			return
		}
		s.Put(core.Synced{Last: pos})
		s.Feed()
		s.proposals.synced()
	}
}
