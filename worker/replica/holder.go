package replica

import (
	"context"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/worker/state"
)

// Copy is an open replica: one slot, its log and its store. Log and Store are nil while a
// follower opens its slot, and between two copies.
type Copy struct {
	Slot  datadir.Slot
	Log   *replog.Log
	Store *store.Store
	lock  *proc.Lock
}

// holder owns the open copy and exchanges it as a whole, when a follower takes over a dead
// leader's slot or installs a snapshot. A caller that uses the copy across several calls holds
// it, and an exchange waits until no caller does.
type holder struct {
	*state.Shared
	zap       *zap.Logger
	memory    *Memory
	deadlines *store.Deadlines // of leases

	mu  sync.RWMutex
	cur Copy
	// interrupt, if set, is a channel that tells the callers of HoldLong that the copy is to
	// be exchanged.
	interrupt atomic.Pointer[chan struct{}]
}

// Held is a copy that is not exchanged before its holder calls Release.
type Held struct {
	Copy
	Release func()
}

// Hold returns the open copy, which is not exchanged until it is released.
func (r *holder) Hold() Held {
	r.mu.RLock()
	return Held{Copy: r.cur, Release: r.mu.RUnlock}
}

// HoldLong is Hold for work that takes long. The context that it returns ends when the copy is
// to be exchanged, or when ctx ends.
func (r *holder) HoldLong(ctx context.Context) (Held, context.Context) {
	ctx, cancel := context.WithCancel(ctx)
	h := r.Hold()
	interrupt := r.interruptChannel()
	done := make(chan struct{})
	go func() {
		defer cancel()
		select {
		case <-interrupt:
		case <-done:
		}
	}()
	release := h.Release
	h.Release = func() { close(done); release() }
	return h, ctx
}

func (r *holder) interruptChannel() chan struct{} {
	for {
		if c := r.interrupt.Load(); c != nil {
			return *c
		}
		c := make(chan struct{})
		r.interrupt.CompareAndSwap(nil, &c)
	}
}

// exclude waits until no caller holds the copy. It interrupts the callers of HoldLong, also
// those that begin to hold the copy while it waits.
func (r *holder) exclude() (release func()) {
	if c := r.interrupt.Swap(&interrupted); c != nil && c != &interrupted {
		close(*c)
	}
	r.mu.Lock()
	r.interrupt.Store(nil)
	return r.mu.Unlock
}

// interrupted is a closed channel: a hold that sees it ends at once.
var interrupted = func() chan struct{} {
	c := make(chan struct{})
	close(c)
	return c
}()

// Current returns the open copy. The writer may use it, because it does the exchanges. Others
// may use it once the process leads, because a leader does not exchange its copy.
func (r *holder) Current() Copy {
	r.mu.RLock()
	defer r.mu.RUnlock()
	return r.cur
}

// Last returns the last position in the log, or zero while no log is open.
func (r *holder) Last() entry.Position {
	h := r.Hold()
	defer h.Release()
	if h.Log == nil {
		return entry.Position{}
	}
	return h.Log.Last()
}

func (r *holder) sync() (entry.Position, error) {
	h := r.Hold()
	defer h.Release()
	if h.Log == nil {
		return entry.Position{}, nil
	}
	return h.Log.Sync()
}

// minRetainedBytes and maxRetainedBytes bound the log that is kept on disk for other members. Between
// them the bound is half of the database's size: for a follower that lacks more than that, a
// snapshot is cheaper.
const (
	minRetainedBytes = 64 << 20
	maxRetainedBytes = 512 << 20
)

// compact removes the part of the log that the database holds durably and that lies before
// keepFrom, the first index that other members need. It keeps at most spareBytes() bytes for them;
// spareBytes is called only if there is something to keep.
func (r *holder) compact(keepFrom uint64, spareBytes func() int64) error {
	h := r.Hold()
	defer h.Release()
	if h.Log == nil {
		return nil
	}
	first := h.Log.First()
	if keepFrom < first {
		keepFrom = max(keepFrom, h.Log.Youngest(min(spareBytes(), max(minRetainedBytes, h.Store.Size()/2), maxRetainedBytes)))
	}
	return h.Log.Compact(min(keepFrom, first), h.Store.Durable())
}

// leave closes the open copy and frees its slot.
func (r *holder) leave() {
	defer r.exclude()()
	r.cur.close()
}
