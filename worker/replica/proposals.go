package replica

import (
	"context"
	"fmt"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"

	"github.com/dynast-io/dynast/shared/host/tick"
	"github.com/dynast-io/dynast/shared/rules/entry"
)

const (
	// proposeTimeout bounds how long a write waits to be acknowledged, as in etcd (5 s and two
	// election timeouts).
	proposeTimeout = 7 * time.Second
	// sweepInterval is how often the writes that wait are looked at. So that is how much later
	// the end of proposeTimeout, or of a client's patience, may be noticed.
	sweepInterval = 250 * time.Millisecond
)

const (
	// A queue of collectEntries or collectBytes is taken at once. A smaller one waits for the
	// end of the running fsync.
	collectEntries = maxBatch
	collectBytes   = 256 << 10
)

// errEnding answers writes that arrive while the process exits. Its code is Unavailable, so
// the client may try again with the next leader.
var errEnding = rpctypes.ErrGRPCStopped

// proposal is a write that is not answered yet.
type proposal struct {
	data []byte
	// request is the decoded form of data, so that this process need not decode it again. It
	// is nil if the caller may still change the request.
	request *pb.InternalRaftRequest
	ctx     context.Context // the client's
	done    chan answer     // holds the answer

	// Proposals.mu guards these fields.
	sweeps   int // how often it was seen waiting
	answered bool
}

// answer is what Propose returns.
type answer struct {
	result *apply.Result
	err    error
}

func (p *Proposals) proposal(ctx context.Context, data []byte, r *pb.InternalRaftRequest) *proposal {
	pr := p.pool.Get().(*proposal)
	*pr = proposal{data: data, ctx: ctx, done: pr.done}
	if r.Put != nil || r.Txn != nil {
		pr.request = r // callers do not change these requests after they proposed them
	}
	return pr
}

// Proposals is the bounded queue between the handlers of client requests and the writer. It
// also lists the proposals that wait for their entry to be applied.
//
// The list waiting is ordered by index and has no gaps, because within an epoch every entry
// but the first is a client's proposal.
//
// While an fsync runs, new proposals are collected. They would have to wait for the next fsync
// anyway, and one large batch costs every process much less than many small ones. Only a large
// queue is written and sent to the followers before the fsync ends.
//
// Each proposal waits for one channel only. A timer, and a look at the client's context, for each
// would cost a few percent of the time of a small write. Instead, one sweep finds those that
// waited for too long. It is repeated as long as a proposal waits.
type Proposals struct {
	guard func(*pb.InternalRaftRequest) error // refuses for lack of disk space
	// pool holds answered proposals, so that a write need not make a channel. A proposal that was
	// answered before its turn is not used again, because it is still in a list.
	pool sync.Pool

	mu sync.Mutex

	maxRequests, maxBytes int

	queue       []*proposal
	waiting     []*proposal
	first       uint64 // index of waiting[0]
	bytes       int    // of queue and waiting
	queuedBytes int
	syncing     bool // the entries that were taken are not durable yet
	sweeping    bool // a sweep is due
	draining    bool
	closed      bool          // take returns no more entries
	idle        chan struct{} // closed when all proposals are answered while draining
	notify      chan struct{}
}

func newProposals(maxRequests, maxBytes int, guard func(*pb.InternalRaftRequest) error) *Proposals {
	return &Proposals{maxRequests: maxRequests, maxBytes: maxBytes, guard: guard,
		pool: sync.Pool{New: func() any { return &proposal{done: make(chan answer, 1)} }},
		idle: make(chan struct{}), notify: make(chan struct{}, 1)}
}

// Limit changes how many requests and bytes may wait.
func (p *Proposals) Limit(maxRequests, maxBytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.maxRequests, p.maxBytes = maxRequests, maxBytes
}

// Propose replicates a request. It returns when this member has applied it. When ctx ends, it
// returns at most sweepInterval later; the request may still be applied.
func (p *Proposals) Propose(ctx context.Context, r *pb.InternalRaftRequest) (*apply.Result, error) {
	if err := p.guard(r); err != nil {
		return nil, err
	}
	data, err := proto.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("marshal request: %w", err)
	}
	pr := p.proposal(ctx, data, r)
	if err := p.enqueue(pr); err != nil {
		return nil, err
	}
	a := <-pr.done
	if a.err == nil {
		*pr = proposal{done: pr.done}
		p.pool.Put(pr)
	}
	return a.result, a.err
}

// answer answers a proposal, unless a sweep has done so. mu is held.
func (p *Proposals) answer(pr *proposal, a answer) {
	if !pr.answered {
		pr.answered = true
		pr.done <- a
	}
}

// sweepLater makes a sweep due, at the moment at which other periodic work of this process is
// due. mu is held.
func (p *Proposals) sweepLater() {
	if !p.sweeping {
		p.sweeping = true
		time.AfterFunc(tick.Until(sweepInterval), p.sweep)
	}
}

// sweep answers the proposals that have waited for proposeTimeout, and those whose clients gave
// up. They stay in their list, because they may still be applied.
func (p *Proposals) sweep() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.sweeping = false
	for _, list := range [][]*proposal{p.waiting, p.queue} {
		for _, pr := range list {
			if pr.answered {
				continue
			}
			pr.sweeps++
			if err := pr.ctx.Err(); err != nil {
				p.answer(pr, answer{err: status.FromContextError(err).Err()})
			} else if pr.sweeps > int(proposeTimeout/sweepInterval) {
				p.answer(pr, answer{err: rpctypes.ErrGRPCTimeout})
			} else {
				p.sweepLater()
			}
		}
	}
}

// Pending counts the writes that are not answered yet.
func (p *Proposals) Pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue) + len(p.waiting)
}

func (p *Proposals) enqueue(pr *proposal) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.draining {
		return errEnding
	}
	if len(p.queue)+len(p.waiting) >= p.maxRequests || p.bytes+len(pr.data) > p.maxBytes {
		return rpctypes.ErrGRPCRequestTooManyRequests
	}
	p.queue = append(p.queue, pr)
	p.bytes += len(pr.data)
	p.queuedBytes += len(pr.data)
	p.wake()
	p.sweepLater()
	return nil
}

// wake notifies the writer if it should take proposals now.
func (p *Proposals) wake() {
	if len(p.queue) == 0 || p.syncing && len(p.queue) < collectEntries && p.queuedBytes < collectBytes {
		return
	}
	select {
	case p.notify <- struct{}{}:
	default:
	}
}

// synced is called when an fsync has ended.
func (p *Proposals) synced() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.syncing = false
	p.wake()
}

// take moves queued proposals to waiting and returns their entries, with indices from next on.
// It takes up to max proposals of together maxBytes, but at least one if the queue is not empty.
func (p *Proposals) take(next, epoch uint64, max, maxBytes int) []entry.Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.closed {
		return nil
	}
	n, bytes := 0, 0
	for ; n < min(len(p.queue), max) && (n == 0 || bytes+len(p.queue[n].data) <= maxBytes); n++ {
		bytes += len(p.queue[n].data)
	}
	if n == 0 {
		return nil
	}
	p.queuedBytes -= bytes
	p.syncing = true
	if len(p.waiting) == 0 {
		p.first = next
	}
	out := make([]entry.Entry, n)
	for i, pr := range p.queue[:n] {
		out[i] = entry.Entry{Index: next + uint64(i), Epoch: epoch, Data: pr.data}
	}
	p.waiting = append(p.waiting, p.queue[:n]...)
	rest := copy(p.queue, p.queue[n:])
	clear(p.queue[rest:])
	p.queue = p.queue[:rest]
	p.wake()
	return out
}

// refuse answers the last n waiting proposals with an error. Their entries were not appended,
// and later entries get their indices. No fsync follows.
func (p *Proposals) refuse(n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	keep := len(p.waiting) - n
	for _, pr := range p.waiting[keep:] {
		p.bytes -= len(pr.data)
		p.answer(pr, answer{result: &apply.Result{Err: err}})
	}
	clear(p.waiting[keep:])
	p.waiting = p.waiting[:keep]
	p.syncing = false
	p.wake()
	p.checkIdle()
}

// requests returns the decoded requests of the n entries from an index on. An element is nil if
// the request is not known without decoding the entry.
func (p *Proposals) requests(index uint64, n int) []*pb.InternalRaftRequest {
	out := make([]*pb.InternalRaftRequest, n)
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range out {
		if at := index + uint64(i); at >= p.first && at-p.first < uint64(len(p.waiting)) {
			out[i] = p.waiting[at-p.first].request
		}
	}
	return out
}

// applied answers the proposal that waits for an index.
func (p *Proposals) applied(index uint64, res *apply.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 0 || index != p.first {
		return // no proposal waits: it is the first entry of the epoch, or an earlier one
	}
	pr := p.waiting[0]
	p.waiting[0] = nil
	p.waiting = p.waiting[1:]
	p.first++
	p.bytes -= len(pr.data)
	p.answer(pr, answer{result: res})
	p.checkIdle()
}

// Drain refuses new proposals from now on. The channel that it returns is closed when all
// accepted proposals are answered.
func (p *Proposals) Drain() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = true
	p.checkIdle()
	return p.idle
}

// Close refuses the proposals that are still queued. After it, take returns no entries.
func (p *Proposals) Close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.closed = true
	for _, pr := range p.queue {
		p.bytes -= len(pr.data)
		p.answer(pr, answer{result: &apply.Result{Err: errEnding}})
	}
	clear(p.queue)
	p.queue, p.queuedBytes = p.queue[:0], 0
	p.checkIdle()
}

func (p *Proposals) checkIdle() {
	if p.draining && len(p.queue)+len(p.waiting) == 0 {
		select {
		case <-p.idle:
		default:
			close(p.idle)
		}
	}
}
