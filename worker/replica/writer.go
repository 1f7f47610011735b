package replica

import (
	"errors"
	"fmt"
	"sync"
	"time"

	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"

	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/worker/state"
)

const (
	// maxBatch and maxBatchBytes bound the entries of one append.
	maxBatch      = 512
	maxBatchBytes = 4 << 20
	// roomPoll is how often a waiting step is tried again while the disk is full.
	roomPoll = 100 * time.Millisecond
	// RetryRoom is how long a follower without room waits before it asks its leader again.
	RetryRoom = time.Second
	// maxUnappliedBytes bounds the entries that a follower holds in memory when it applies
	// them too slowly. (A leader's are bounded by its queue.)
	maxUnappliedBytes = 64 << 20
)

// writer owns the log: every change of the log runs on its goroutine.
type writer struct {
	*state.Shared
	copies    *holder
	proposals *Proposals
	syncer    *syncer
	space     *Space
	memory    *Memory
	links     func() Links

	mu   sync.Mutex
	jobs []func()
	kick chan struct{}

	// epoch is the epoch in which proposals are appended; 0 while this member does not lead.
	epoch uint64
	// dropping is true while the leader's entries are dropped because there is no room.
	// noRoomLogged is true from the log line about it until the next append.
	dropping, noRoomLogged bool
}

// do queues a job. It does not wait, because the caller may be the writer itself, which feeds
// the core. The leader's flow-control window bounds the queue.
func (w *writer) do(job func()) {
	w.mu.Lock()
	w.jobs = append(w.jobs, job)
	w.mu.Unlock()
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// next removes a job from the queue and returns it, or nil if there is none.
func (w *writer) next() func() {
	w.mu.Lock()
	defer w.mu.Unlock()
	if len(w.jobs) == 0 {
		return nil
	}
	job := w.jobs[0]
	w.jobs[0] = nil
	w.jobs = w.jobs[1:]
	return job
}

func (w *writer) run() {
	for {
		var proposed <-chan struct{}
		if w.epoch != 0 {
			proposed = w.proposals.notify
		}
		select {
		case <-w.kick:
			for job := w.next(); job != nil; job = w.next() {
				job()
			}
		case <-proposed:
			w.appendProposals()
		case <-w.Ended():
			return
		}
	}
}

// lead makes the writer append proposals from now on.
func (w *writer) lead(epoch uint64) {
	w.do(func() {
		w.epoch = epoch
		w.appendProposals()
	})
}

func (w *writer) appendProposals() {
	log := w.copies.Current().Log
	es := w.proposals.take(log.Last().Index+1, w.epoch, maxBatch, maxBatchBytes)
	if len(es) == 0 {
		return
	}
	if err := w.append(es); err != nil {
		w.space.ranOut(err)
		w.proposals.refuse(len(es), etcderrors.ErrNoSpace)
	}
}

// append writes entries to the log, where they survive the death of this process. It returns
// ErrNoRoom if the disk is full; every other error ends the process.
func (w *writer) append(es []entry.Entry) error {
	log := w.copies.Current().Log
	switch err := log.Append(es); {
	case errors.Is(err, replog.ErrNoRoom):
		return err
	case err != nil:
		w.Fatal(core.ExitError, fmt.Errorf("append to the log at %d: %w", es[0].Index, err))
	default:
		w.Put(core.Appended{Last: log.Last()})
		if w.Leading.Load() {
			// The core will ask for both. They start here without waiting for it.
			w.syncer.sync()
			bytes := 0
			for _, e := range es {
				bytes += len(e.Data)
			}
			w.links().Appended(bytes)
		}
		w.Feed()
	}
	return nil
}

// appendReceived appends the leader's entries if they follow the own log without a gap.
func (w *writer) appendReceived(es []entry.Entry) {
	w.do(func() {
		log := w.copies.Current().Log
		if log == nil || w.dropping {
			return
		}
		last := log.Last()
		for len(es) > 0 && es[0].Index <= last.Index {
			if epoch, ok := log.EpochAt(es[0].Index); ok && epoch != es[0].Epoch {
				break // the own entry is from another leader and was never acknowledged: replace it
			}
			es = es[1:]
		}
		if len(es) == 0 {
			w.Post(core.Appended{Last: last})
			return
		}
		if es[0].Index > last.Index+1 {
			w.links().Resync(fmt.Sprintf("entry %d arrived after entry %d", es[0].Index, last.Index))
			return
		}
		if n := log.MemoryBytes(); n > w.memory.bound(maxUnappliedBytes, 4) {
			w.dropUntilRoom(fmt.Errorf("%d bytes of entries wait to be applied", n))
			return
		}
		if err := w.append(es); err != nil {
			w.dropUntilRoom(err)
			return
		}
		w.noRoomLogged = false
	})
}

// dropUntilRoom drops the leader's entries while the follower's disk is full, or while it applies
// entries too slowly. After RetryRoom the follower asks the leader for the missing entries.
func (w *writer) dropUntilRoom(err error) {
	w.dropping = true
	if !w.noRoomLogged {
		w.noRoomLogged = true
		w.Log.Error("no room for entries from the leader, waiting", "error", err)
	}
	time.AfterFunc(RetryRoom, func() {
		w.do(func() {
			w.dropping = false
			w.links().Resync("there was no room for entries")
		})
	})
}

// beginEpoch appends the first entry of an epoch.
func (w *writer) beginEpoch(epoch uint64) {
	w.do(func() {
		next := w.copies.Current().Log.Last().Index + 1
		_ = w.space.await("the takeover", func() error { return w.append([]entry.Entry{{Index: next, Epoch: epoch}}) })
	})
}
