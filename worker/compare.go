package worker

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"

	"go.etcd.io/etcd/server/v3/storage/mvcc"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/store"
	"github.com/dynast-io/dynast/shared/wire"
)

// digestPoll is how often a leader that waits for answers looks who lives.
const digestPoll = 100 * time.Millisecond

// digestPatience is how long an answer to a DigestRequest is waited for: a
// follower reads its whole database for it.
const digestPatience = 2 * time.Minute

// comparison compares the keys of the followers with the leader's, now and
// then: all at one revision, by a checksum that each makes of its own database. Nothing is
// compared again that has not changed since.
type comparison struct {
	m *Member

	mu       sync.Mutex
	revision int64 // asked for; 0 when no round is under way
	waiting  map[roster.ID]bool
	answers  map[roster.ID]*wire.Digest
	complete chan struct{} // closed when nobody is waited for any more
	compared map[roster.ID]store.Digest
}

func newComparison(m *Member) *comparison {
	return &comparison{m: m}
}

// run compares while this member leads.
func (c *comparison) run() {
	select {
	case <-c.m.leads:
	case <-c.m.ended:
		return
	}
	tick := time.NewTicker(c.m.cfg.Store.CompareInterval)
	defer tick.Stop()
	for {
		select {
		case <-tick.C:
		case <-c.m.ended:
			return
		}
		c.round()
	}
}

// round makes one comparison with all followers in sync that were not compared
// at this revision.
func (c *comparison) round() {
	ctx, cancel := context.WithTimeout(c.m.lifetime(), digestPatience)
	defer cancel()
	revision := c.m.replica.current().store.Revision()
	if c.ask(revision) == 0 {
		return
	}
	own, err := c.m.replica.current().store.Digest(ctx, revision)
	if err != nil {
		c.give(nil)
		if damaged(err) && ctx.Err() == nil {
			// The pages of the leader's own database cannot be read.
			c.m.fatal(core.ExitError, fmt.Errorf("compare replicas: %w", err))
		}
		return
	}
	c.wait(ctx)
	c.judge(own, c.give(&own))
}

// wait waits for the answers of those who live.
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
			c.forget()
		}
	}
}

// forget waits no longer for those who are no followers in sync any more.
func (c *comparison) forget() {
	r := c.m.roster()
	c.mu.Lock()
	defer c.mu.Unlock()
	for id := range c.waiting {
		if m, ok := r.Find(id.Address); !ok || m.ID != id || m.State != roster.InSync {
			c.got(id)
		}
	}
}

// got: id is not waited for any more. The lock is held.
func (c *comparison) got(id roster.ID) {
	delete(c.waiting, id)
	if len(c.waiting) == 0 {
		close(c.complete)
	}
}

// ask asks the followers that have something to compare, and returns how many
// these are.
func (c *comparison) ask(revision int64) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revision, c.complete = revision, make(chan struct{})
	c.waiting, c.answers = map[roster.ID]bool{}, map[roster.ID]*wire.Digest{}
	known := map[roster.ID]store.Digest{}
	for _, mem := range c.m.roster().Members {
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
		if c.m.downstream.requestDigest(mem.ID, revision) {
			c.waiting[mem.ID] = true
		}
	}
	c.compared = known // without those who are gone
	return len(c.waiting)
}

// answered takes the answer of a follower.
func (c *comparison) answered(id roster.ID, d *wire.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.revision == 0 || d.GetRevision() != c.revision || !c.waiting[id] {
		return // of a round that is over
	}
	c.answers[id] = d
	c.got(id)
}

// give ends the round and returns the answers that can be compared with the
// leader's: a compaction may have come between.
func (c *comparison) give(own *store.Digest) map[roster.ID]uint32 {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.revision = 0
	comparable := map[roster.ID]uint32{}
	for id, d := range c.answers {
		switch {
		case own == nil:
		case d.GetError() != "":
			c.m.logger.Debug("no digest of a follower", "member", id.Address, "error", d.GetError())
		case d.GetCompactRevision() == own.CompactRevision:
			comparable[id] = d.GetHash()
			if d.GetHash() == own.Hash { // or it is compared again, should nothing come of it
				c.compared[id] = *own
			}
		}
	}
	return comparable
}

// judge reports who differs. Two followers or more that agree with each other
// and not with the leader are right: then it is the leader's copy that is wrong.
func (c *comparison) judge(own store.Digest, hashes map[roster.ID]uint32) {
	if id, detail, differs := oddOne(c.m.selfMember().ID, own, hashes); differs {
		for _, i := range id {
			c.m.post(core.ReplicaDiffers{ID: i, Detail: detail})
		}
	}
}

// oddOne names the replicas that are wrong.
func oddOne(self roster.ID, own store.Digest, hashes map[roster.ID]uint32) (odd []roster.ID, detail string, differs bool) {
	votes := map[uint32]int{own.Hash: 1}
	for _, h := range hashes {
		votes[h]++
	}
	right := own.Hash
	for h, n := range votes {
		if n >= 2 && n > votes[right] {
			right = h
		}
	}
	detail = fmt.Sprintf("at revision %d (compacted to %d) the leader's hash is %08x", own.Revision, max(own.CompactRevision, 0), own.Hash)
	for id, h := range hashes {
		if h != own.Hash {
			detail += fmt.Sprintf(", %s has %08x", id.Address, h)
		}
		if h != right && right == own.Hash {
			odd = append(odd, id)
		}
	}
	if right != own.Hash {
		odd = []roster.ID{self} // a follower that differs too is found by the next leader
	}
	return odd, detail, len(odd) > 0
}

// digest answers a leader's DigestRequest when this member has applied that
// much.
func (m *Member) digest(ctx context.Context, revision int64) *wire.Digest {
	out := &wire.Digest{Revision: revision}
	ctx, cancel := context.WithTimeout(ctx, digestPatience)
	defer cancel()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		d, err := m.digestNow(ctx, revision)
		if err == nil {
			out.CompactRevision, out.Hash = d.CompactRevision, d.Hash
			return out
		}
		if !errors.Is(err, mvcc.ErrFutureRev) {
			if ctx.Err() == nil && damaged(err) {
				m.unreadable(err)
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

func (m *Member) digestNow(ctx context.Context, revision int64) (store.Digest, error) {
	h, ctx := m.replica.holdLong(ctx)
	defer h.release()
	if h.store == nil {
		return store.Digest{}, errNoCopy
	}
	return h.store.Digest(ctx, revision)
}

var errNoCopy = errors.New("there is no copy yet")

// damaged tells a database that cannot be read from a digest that cannot be
// had just now.
func damaged(err error) bool {
	for _, other := range []error{context.Canceled, context.DeadlineExceeded, mvcc.ErrCompacted, mvcc.ErrFutureRev, errNoCopy} {
		if errors.Is(err, other) {
			return false
		}
	}
	return true
}

// unreadable ends a follower whose own database cannot be read: what differs
// would be found, and this is worse. Its copy is fetched anew.
func (m *Member) unreadable(err error) {
	m.note(m.replica.current().slot.Condemn(err.Error()))
	m.fatal(core.ExitCorrupt, fmt.Errorf("compare replicas: %w", err))
}
