package worker

import (
	"errors"
	"fmt"
	"sync"
	"time"

	etcderrors "go.etcd.io/etcd/server/v3/etcdserver/errors"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/entry"
	replog "github.com/dynast-io/dynast/shared/log"
)

const (
	// maxBatch and maxBatchBytes bound the entries of one append.
	maxBatch      = 512
	maxBatchBytes = 4 << 20
	// roomPoll is how often room on a full disk is looked for, by who has to
	// wait for it; a follower asks its leader again after retryRoom.
	roomPoll  = 100 * time.Millisecond
	retryRoom = time.Second
	// maxUnappliedBytes bounds the entries that a follower holds in memory when
	// it does not come to apply them. (A leader's are bounded by its queue.)
	maxUnappliedBytes = 64 << 20
)

// writer owns the log: everything that changes it runs on its goroutine.
type writer struct {
	m *Member

	mu   sync.Mutex
	jobs []func()
	kick chan struct{}

	// epoch is the one in which proposals are appended; 0 while not leading.
	epoch uint64
	// starved: what the leader sends is dropped until there may be room for it;
	// hungry: nothing was appended since it was first found missing.
	starved, hungry bool
}

func newWriter(m *Member) *writer { return &writer{m: m, kick: make(chan struct{}, 1)} }

// do queues a job. It does not wait: the caller may be the writer itself, which
// feeds the core. What is queued is bounded by what one leader's window holds.
func (w *writer) do(job func()) {
	w.mu.Lock()
	w.jobs = append(w.jobs, job)
	w.mu.Unlock()
	select {
	case w.kick <- struct{}{}:
	default:
	}
}

// next takes a job; nil when there is none.
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
			proposed = w.m.proposals.notify
		}
		select {
		case <-w.kick:
			for job := w.next(); job != nil; job = w.next() {
				job()
			}
		case <-proposed:
			w.appendProposals()
		case <-w.m.ended:
			return
		}
	}
}

// lead lets proposals through from now on.
func (w *writer) lead(epoch uint64) {
	w.do(func() {
		w.epoch = epoch
		w.appendProposals()
	})
}

func (w *writer) appendProposals() {
	log := w.m.replica.current().log
	es := w.m.proposals.take(log.Last().Index+1, w.epoch, maxBatch, maxBatchBytes)
	if len(es) == 0 {
		return
	}
	if err := w.append(es); err != nil {
		w.m.space.ranOut(err)
		w.m.proposals.refuse(len(es), etcderrors.ErrNoSpace)
	}
}

// append makes entries safe from the death of this process. The error is
// ErrNoRoom; all others end the process.
func (w *writer) append(es []entry.Entry) error {
	log := w.m.replica.current().log
	switch err := log.Append(es); {
	case errors.Is(err, replog.ErrNoRoom):
		return err
	case err != nil:
		w.m.fatal(core.ExitError, fmt.Errorf("append to the log at %d: %w", es[0].Index, err))
	default:
		w.m.mail.put(mail{event: core.Appended{Last: log.Last()}})
		if w.m.leading.Load() {
			// The core will want both: they begin without waiting for its turn.
			w.m.syncer.sync()
			w.m.downstream.pace.appended()
		}
		w.m.readMailNow()
	}
	return nil
}

// waitForRoom repeats a step until the disk has room for it. In a takeover this
// process holds the lock, and nobody else could do it.
func (m *Member) waitForRoom(what string, step func() error) error {
	for told := false; ; told = true {
		err := step()
		if !errors.Is(err, replog.ErrNoRoom) {
			return err
		}
		if !told {
			m.logger.Error("disk full: "+what+" waits for room", "error", err)
		}
		select {
		case <-time.After(roomPoll):
		case <-m.ended:
			return err
		}
	}
}

// appendReceived appends what the leader sent, unless it does not follow what is here.
func (w *writer) appendReceived(r *received) {
	w.do(func() {
		log := w.m.replica.current().log
		if log == nil || w.starved {
			return
		}
		es := r.entries
		last := log.Last()
		for len(es) > 0 && es[0].Index <= last.Index {
			if epoch, ok := log.EpochAt(es[0].Index); ok && epoch != es[0].Epoch {
				break // another leader's entry, never acknowledged: it is replaced
			}
			es = es[1:]
		}
		if len(es) == 0 {
			w.m.post(core.Appended{Last: last})
			return
		}
		if es[0].Index > last.Index+1 {
			w.m.upstream.resync(fmt.Sprintf("entry %d came after %d", es[0].Index, last.Index))
			return
		}
		if n := log.MemoryBytes(); n > maxUnappliedBytes {
			w.starve(fmt.Errorf("%d bytes of entries wait to be applied", n))
			return
		}
		if err := w.append(es); err != nil {
			w.starve(err)
			return
		}
		w.hungry = false
	})
}

// starve lets a follower fall behind while its disk is full, or while it cannot
// apply what it has; then it asks for what it lacks.
func (w *writer) starve(err error) {
	w.starved = true
	if !w.hungry {
		w.hungry = true
		w.m.logger.Error("no room for what the leader sends: it waits", "error", err)
	}
	time.AfterFunc(retryRoom, func() {
		w.do(func() {
			w.starved = false
			w.m.upstream.resync("there was no room")
		})
	})
}

// beginEpoch appends the first entry of an epoch.
func (w *writer) beginEpoch(epoch uint64) {
	w.do(func() {
		next := w.m.replica.current().log.Last().Index + 1
		_ = w.m.waitForRoom("the takeover", func() error { return w.append([]entry.Entry{{Index: next, Epoch: epoch}}) })
	})
}

// syncer makes the log durable, one fsync at a time, beside the appends.
type syncer struct {
	m    *Member
	kick chan struct{}
}

func newSyncer(m *Member) *syncer { return &syncer{m: m, kick: make(chan struct{}, 1)} }

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
		case <-s.m.ended:
			return
		}
		began := time.Now()
		pos, err := s.m.replica.sync()
		if pos.Index != synced { // else there was nothing to sync
			s.m.fsyncs.Observe(time.Since(began))
			synced = pos.Index
		}
		if err != nil {
			// After a failed fsync the kernel may have dropped the pages: nothing
			// that this process knows of its log is certain any more.
			s.m.fatal(core.ExitError, fmt.Errorf("fsync the log: %w", err))
			return
		}
		s.m.postNow(core.Synced{Last: pos})
		s.m.proposals.synced()
	}
}
