package replica

import (
	"context"
	"fmt"
	"sync/atomic"
	"time"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/meter"
	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state"
)

// Links is the part of the links to other members that a replica uses.
type Links interface {
	// Appended is called by a leader whose log grew by entries of this many bytes.
	Appended(bytes int)
	// Resync reopens the stream to the leader, from the end of the log on.
	Resync(reason string)
	// Needed returns the index after which a follower needs the log. It returns false if the
	// follower has no stream.
	Needed(roster.ID) (after uint64, ok bool)
	// RequestDigest asks a follower for a checksum. It returns false if the follower has no
	// stream.
	RequestDigest(id roster.ID, revision int64) bool
}

// Replica is a member's copy of the data, with the goroutines that work on it.
type Replica struct {
	*state.Shared
	*holder
	// Proposals are the clients' writes that are not answered yet.
	Proposals *Proposals
	Space     *Space
	Memory    *Memory

	writer     *writer
	syncer     *syncer
	applier    *applier
	comparison *comparison
	retention  *retention
	readAhead  *readAhead
	fsyncs     meter.Histogram
	links      Links

	// installs counts the received snapshots, and the events that supersede them.
	installs atomic.Uint64
}

// New makes a replica that has no slot yet.
func New(sh *state.Shared) (*Replica, error) {
	deadlines, err := store.OpenDeadlines(sh.Dir.LeaseDeadlines(), sh.Self.ClusterID)
	if err != nil {
		return nil, err
	}
	cfg := sh.Settings.Start
	memory := newMemory(cfg.Followers, sh.Log)
	return assemble(sh, &holder{Shared: sh, zap: sh.Logs.Zap("replica"), memory: memory, deadlines: deadlines}, memory), nil
}

// assemble makes the parts and connects them.
func assemble(sh *state.Shared, copies *holder, memory *Memory) *Replica {
	r := &Replica{Shared: sh, holder: copies, Memory: memory}
	links := func() Links { return r.links }
	r.Space = &Space{Shared: sh, memory: memory}
	queue := sh.Settings.Start.Replication
	r.Proposals = newProposals(queue.QueueRequests, r.queueBytes(sh.Settings.Start), r.Space.guard)
	r.syncer = &syncer{Shared: sh, copies: copies, proposals: r.Proposals, times: &r.fsyncs, kick: make(chan struct{}, 1)}
	r.writer = &writer{Shared: sh, copies: copies, proposals: r.Proposals, syncer: r.syncer, space: r.Space, memory: memory,
		links: links, kick: make(chan struct{}, 1)}
	r.readAhead = newReadAhead(sh)
	r.applier = newApplier(sh, copies, r.Proposals)
	r.comparison = &comparison{Shared: sh, copies: copies, links: links}
	r.retention = &retention{Shared: sh, copies: copies, links: links, ends: map[opening]uint64{}}
	return r
}

// Connect gives the replica the links. It is called once, before Start.
func (r *Replica) Connect(l Links) { r.links = l }

// Start starts the goroutines. They end with the process.
func (r *Replica) Start() {
	for _, run := range []func(){r.writer.run, r.syncer.run, r.applier.run, r.comparison.run, r.readAhead.run} {
		go r.Guarded(run)
	}
}

// Lead makes the writer append proposals from now on, in this epoch.
func (r *Replica) Lead(epoch uint64) {
	r.Current().Log.BoundTail(r.Memory.bound(leaderTailBytes, 16))
	r.writer.lead(epoch)
}

// Append appends the leader's entries if they follow the own log without a gap.
func (r *Replica) Append(es []entry.Entry) { r.writer.appendReceived(es) }

// BeginEpoch appends the first entry of an epoch.
func (r *Replica) BeginEpoch(epoch uint64) { r.writer.beginEpoch(epoch) }

// Behind calls do after the writer has finished all earlier appends.
func (r *Replica) Behind(do func()) { r.writer.do(do) }

// RosterChanged makes a follower that is named the successor read the leader's log ahead.
func (r *Replica) RosterChanged(now *roster.Roster) { r.readAhead.rosterChanged(now) }

// ReadAhead makes the heir read the leader's log ahead of a takeover.
func (r *Replica) ReadAhead() { r.readAhead.look() }

// Sync makes the log durable.
func (r *Replica) Sync() { r.syncer.sync() }

// Commit allows entries up to an index to be applied.
func (r *Replica) Commit(index uint64) { r.applier.commit(index) }

// Pause makes a follower apply nothing for a moment, because another member takes over and needs the
// processors.
func (r *Replica) Pause() { r.applier.pause() }

// GoOn ends a pause.
func (r *Replica) GoOn() { r.applier.goOn() }

// Apply calls do on the applier's goroutine, between two entries.
func (r *Replica) Apply(do func()) { r.applier.do(do) }

// Settle applies everything that is committed. Only a function that Apply runs may call it.
func (r *Replica) Settle() { r.applier.settle() }

// Supersede gives up snapshots that wait for room.
func (r *Replica) Supersede() { r.installs.Add(1) }

// Answered records a follower's answer to a DigestRequest.
func (r *Replica) Answered(id roster.ID, d *wire.Digest) { r.comparison.answered(id, d) }

// Fsyncs returns the durations of the log's fsyncs.
func (r *Replica) Fsyncs() meter.Counts { return r.fsyncs.Snapshot() }

// Pending counts the writes that are not answered yet.
func (r *Replica) Pending() int { return r.Proposals.Pending() }

// Full reports whether writes are refused because the disk is full or memory is scarce.
func (r *Replica) Full() (disk, memory bool) { return r.Space.Full() }

// MemoryStatus returns the memory limit and its use.
func (r *Replica) MemoryStatus() MemoryStatus { return r.Memory.Status() }

// Configure puts a new configuration into force.
func (r *Replica) Configure(cfg *config.Config) {
	r.Proposals.Limit(cfg.Replication.QueueRequests, r.queueBytes(cfg))
}

// queueBytes is how many bytes of writes may wait.
func (r *Replica) queueBytes(cfg *config.Config) int {
	return int(r.Memory.bound(int64(cfg.Replication.QueueBytes), 4))
}

// Compact removes the part of the log that no member needs any more.
func (r *Replica) Compact() error { return r.compact(r.retention.from(), r.retention.spareBytes) }

// Contains reports whether a position is in the log. It also returns true for a position that
// is too old to be checked. After a data loss a follower's log can have other entries than the
// leader's at the same indices, and more of them.
func (r *Replica) Contains(p entry.Position) bool {
	log := r.Current().Log
	if p.Index > log.Last().Index {
		return false
	}
	epoch, ok := log.EpochAt(p.Index)
	return !ok || epoch == p.Epoch
}

// Snapshot takes a snapshot on the applier's goroutine. The caller closes it.
func (r *Replica) Snapshot(ctx context.Context) (store.Snapshot, error) {
	type result struct {
		snap store.Snapshot
		err  error
	}
	done := make(chan result, 1)
	r.applier.do(func() {
		snap, err := r.Current().Store.Snapshot()
		done <- result{snap, err}
	})
	select {
	case res := <-done:
		return res.snap, res.err
	case <-ctx.Done():
		go func() {
			if res := <-done; res.err == nil {
				res.snap.Close()
			}
		}()
		return store.Snapshot{}, ctx.Err()
	case <-r.Ended():
		return store.Snapshot{}, context.Canceled
	}
}

// Defragment rewrites the database on the applier's goroutine and calls done with the result.
// Entries are still appended and acknowledged meanwhile.
func (r *Replica) Defragment(done func(error)) {
	r.applier.do(func() {
		h := r.Hold()
		defer h.Release()
		done(defragment(h))
	})
}

func defragment(h Held) error {
	if h.Store == nil {
		return errNoCopy
	}
	if err := h.Store.Defrag(); err != nil {
		return err
	}
	return h.Slot.PaidDefrag()
}

// Close refuses new writes and waits at most patience until the accepted ones are answered.
// Then it calls done with the last position in the log.
func (r *Replica) Close(patience time.Duration, done func(last entry.Position)) {
	select {
	case <-r.Proposals.Drain():
	case <-time.After(patience):
	}
	r.Proposals.Close()
	// The writer's goroutine calls done, so that entries that it took are in the log by then.
	r.writer.do(func() { done(r.Last()) })
}

// diskFull ends the process if the error means that the disk is full. Then no data is missing.
func (r *Replica) diskFull(err error) bool {
	if !proc.NoSpace(err) {
		return false
	}
	r.Fatal(member.ExitDisk, fmt.Errorf("the disk of %s is full: make room and start again: %w", r.Dir.Path(), err))
	return true
}

// endTime is longer than a process takes to exit after the decision to do so.
const endTime = 5 * time.Second

// fatal ends the process because its store cannot continue.
func (r *holder) fatal(err error) {
	r.StoreFailed(err)
	<-time.After(endTime) // otherwise the store ends the process before the reason is logged
}
