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

// digestPatience is how long an answer to a DigestRequest is waited for: a
// follower reads its whole database for it.
const digestPatience = 2 * time.Minute

// comparison compares the keys of the followers with the leader's, now and
// then: all at one revision, by a checksum that each makes of its own database. Nothing is
// compared again that has not changed since.
type comparison struct {
	m    *Member
	kick chan struct{}

	mu       sync.Mutex
	revision int64 // asked for; 0 when no round is under way
	waiting  map[roster.ID]bool
	answers  map[roster.ID]*wire.Digest
	complete chan struct{} // closed when nobody is waited for any more
	compared map[roster.ID]store.Digest
}

func newComparison(m *Member) *comparison {
	return &comparison{m: m, kick: make(chan struct{}, 1)}
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
	asked := c.ask(revision)
	if len(asked) == 0 {
		return
	}
	own, err := c.m.replica.current().store.Digest(ctx, revision)
	if err != nil {
		c.give(nil)
		if !errors.Is(err, mvcc.ErrCompacted) && ctx.Err() == nil {
			// The pages of the leader's own database cannot be read.
			c.m.fatal(core.ExitError, fmt.Errorf("compare replicas: %w", err))
		}
		return
	}
	select {
	case <-c.complete:
	case <-ctx.Done():
	}
	c.judge(own, c.give(&own))
}

// ask asks the followers that have something to compare.
func (c *comparison) ask(revision int64) map[roster.ID]bool {
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
	return c.waiting
}

// answered takes the answer of a follower.
func (c *comparison) answered(id roster.ID, d *wire.Digest) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.revision == 0 || d.GetRevision() != c.revision || !c.waiting[id] {
		return // of a round that is over
	}
	delete(c.waiting, id)
	c.answers[id] = d
	if len(c.waiting) == 0 {
		close(c.complete)
	}
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
			c.compared[id] = *own
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
		return store.Digest{}, errors.New("there is no copy yet")
	}
	return h.store.Digest(ctx, revision)
}
