package replica

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state"
)

// digestPoll is how often a leader that waits for digests checks which followers are alive.
const digestPoll = 100 * time.Millisecond

// digestPatience is how long a leader waits for the answer to a DigestRequest. A follower
// reads its whole database to answer.
const digestPatience = 2 * time.Minute

// comparison compares the keys of the followers with the leader's from time to time. Each
// member computes a checksum of its own database, all at the same revision. A follower that was
// equal is not compared again until the revision has changed.
type comparison struct {
	*state.Shared
	copies *holder
	links  func() Links

	mu       sync.Mutex
	revision int64 // of the round that is running; 0 when none is
	waiting  map[roster.ID]bool
	answers  map[roster.ID]*wire.Digest
	complete chan struct{} // closed when no answer is missing any more
	compared map[roster.ID]store.Digest
}

// run makes comparisons while this member leads.
func (c *comparison) run() {
	select {
	case <-c.Leads:
	case <-c.Ended():
		return
	}
	tick := time.NewTicker(c.Settings.Start.Store.CompareInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.Ended():
			return
		}
		c.round()
	}
}

// round makes one comparison with all in-sync followers that were not compared at this
// revision.
func (c *comparison) round() {
	ctx, cancel := context.WithTimeout(c.Lifetime(), digestPatience)
	defer cancel()
	revision := c.copies.Current().Store.Revision()
	if c.ask(revision) == 0 {
		return
	}
	own, err := c.copies.Current().Store.Digest(ctx, revision)
	if err != nil {
		c.abandonRound()
		if damaged(err) && ctx.Err() == nil {
			// The pages of the leader's own database cannot be read.
			c.Fatal(core.ExitError, fmt.Errorf("compare replicas: %w", err))
		}
		return
	}
	c.wait(ctx)
	copies := c.finishRound(own)
	detail := fmt.Sprintf("at revision %d (compacted to %d) the leader's hash is %08x", own.Revision, max(own.CompactRevision, 0), own.Hash)
	for _, differs := range copies.Judge(detail) {
		c.Post(differs)
		if differs.Undecided {
			c.forget()
		}
	}
}

// wait waits for the answers of the followers that are alive.
func (c *comparison) wait(ctx context.Context) {
	tick := time.NewTicker(digestPoll)
	defer tick.Stop()
	for {
		select {
		case <-c.complete:
			return
		case <-ctx.Done():
			return
		case <-tick.C:
			c.forgetGone()
		}
	}
}

// forgetGone stops waiting for members that are not in-sync followers any more.
func (c *comparison) forgetGone() {
	r := c.Roster()
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.waiting {
		if m, ok := r.Find(id.Address); !ok || m.ID != id || m.State != roster.InSync {
			c.stopWaitingFor(id)
		}
	}
}

// stopWaitingFor removes id from the members whose answer is missing. The caller holds the lock.
func (c *comparison) stopWaitingFor(id roster.ID) {
	delete(c.waiting, id)
	if len(c.waiting) == 0 {
		close(c.complete)
	}
}

// ask sends a DigestRequest to each follower that has to be compared. It returns how many
// these are.
func (c *comparison) ask(revision int64) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revision, c.complete = revision, make(chan struct{})
	c.waiting, c.answers = map[roster.ID]bool{}, map[roster.ID]*wire.Digest{}
	known := map[roster.ID]store.Digest{}
	for _, mem := range c.Roster().Members {
		if mem.State != roster.InSync || mem.Busy {
			continue
		}
		last, ok := c.compared[mem.ID]
		if ok {
			known[mem.ID] = last
		}
		if ok && last.Revision == revision {
			continue
		}
		if c.links().RequestDigest(mem.ID, revision) {
			c.waiting[mem.ID] = true
		}
	}
	c.compared = known // without the members that are gone
	return len(c.waiting)
}

// answered records the answer of a follower.
func (c *comparison) answered(id roster.ID, d *wire.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.revision == 0 || d.GetRevision() != c.revision || !c.waiting[id] {
		return // the answer belongs to a round that is over
	}
	c.answers[id] = d
	c.stopWaitingFor(id)
}

// abandonRound ends the round without a result.
func (c *comparison) abandonRound() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revision = 0
}

// forget makes the next round ask all followers again. An earlier answer may be of another compaction,
// or the leader's own copy may have changed since.
func (c *comparison) forget() {
	c.mu.Lock()
	defer c.mu.Unlock()
	clear(c.compared)
}

// finishRound ends the round. It returns the copies that can be compared with the leader's; a copy
// cannot be if its member was at another compaction.
func (c *comparison) finishRound(own store.Digest) core.Copies {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revision = 0
	r := c.Roster()
	copies := core.Copies{Leader: c.Self.ID(), Own: own.Hash, Others: map[roster.ID]uint32{}, Wanted: max(r.Followers, len(r.Line()))}
	for _, last := range c.compared {
		if last == own {
			copies.Agreed++ // in an earlier round at this revision
		}
	}
	for id, d := range c.answers {
		switch {
		case d.GetError() != "":
			c.Log.Debug("no digest of a follower", "member", id.Address, "error", d.GetError())
		case d.GetCompactRevision() == own.CompactRevision:
			copies.Others[id] = d.GetHash()
			// A follower with another hash is compared again in the next round.
			if d.GetHash() == own.Hash {
				c.compared[id] = own
			}
		}
	}
	return copies
}

// Digest answers a leader's DigestRequest. It waits until this member has applied the
// revision.
func (r *Replica) Digest(ctx context.Context, revision int64) *wire.Digest {
	out := &wire.Digest{Revision: revision}
	ctx, cancel := context.WithTimeout(ctx, digestPatience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		d, err := r.digestNow(ctx, revision)
		if err == nil {
			out.CompactRevision, out.Hash = d.CompactRevision, d.Hash
			return out
		}
		if !errors.Is(err, mvcc.ErrFutureRev) {
			if ctx.Err() == nil && damaged(err) {
				r.unreadable(err)
			}
			out.Error = err.Error()
			return out
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			out.Error = ctx.Err().Error()
			return out
		}
	}
}

func (r *Replica) digestNow(ctx context.Context, revision int64) (store.Digest, error) {
	h, ctx := r.HoldLong(ctx)
	defer h.Release()
	if h.Store == nil {
		return store.Digest{}, errNoCopy
	}
	return h.Store.Digest(ctx, revision)
}

var errNoCopy = errors.New("there is no copy yet")

// damaged reports whether an error means that the database cannot be read. The other errors
// mean that a digest is not available at the moment.
func damaged(err error) bool {
	for _, other := range []error{context.Canceled, context.DeadlineExceeded, mvcc.ErrCompacted, mvcc.ErrFutureRev, errNoCopy} {
		if errors.Is(err, other) {
			return false
		}
	}
	return true
}

// unreadable ends a follower whose own database cannot be read. The follower that replaces
// it fetches a new copy.
func (r *Replica) unreadable(err error) {
	r.Note(r.Current().Slot.Condemn(err.Error()))
	r.Fatal(core.ExitCorrupt, fmt.Errorf("compare replicas: %w", err))
}
