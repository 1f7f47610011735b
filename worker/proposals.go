package worker

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

	"github.com/dynast-io/dynast/shared/entry"
)

// proposeTimeout bounds how long a write waits to be acknowledged, as in
// etcd (5 s and two election timeouts).
const proposeTimeout = 7 * time.Second

const (
	// collectEntries and collectBytes are the size of a queue that does not wait
	// for the fsync that runs.
	collectEntries = maxBatch
	collectBytes   = 256 << 10
)

// errEnding answers writes that come while the process ends. It is
// Unavailable: the client may try again, with the next leader.
var errEnding = rpctypes.ErrGRPCStopped

// proposal is one write on its way.
type proposal struct {
	data []byte
	// request is what data encodes, so that this process need not decode it;
	// nil where somebody may change it.
	request *pb.InternalRaftRequest
	done    chan *apply.Result // one result
	timeout *time.Timer
}

// spare holds proposals that were answered, so that a write does not make a
// channel and a timer each time. One that was given up may still be answered: it is
// not used again.
var spare = sync.Pool{New: func() any {
	t := time.NewTimer(time.Hour)
	t.Stop()
	return &proposal{done: make(chan *apply.Result, 1), timeout: t}
}}

func newProposal(data []byte, r *pb.InternalRaftRequest) *proposal {
	pr := spare.Get().(*proposal)
	pr.data, pr.request = data, nil
	if r.Put != nil || r.Txn != nil {
		pr.request = r // nobody touches those after they were proposed
	}
	return pr
}

// proposals is the bounded queue between the handlers of client requests and
// the writer, and the list of those that wait for their entry to be applied.
//
// waiting is ordered by index and has no gaps: within an epoch every entry
// but the first is somebody's proposal.
//
// While an fsync runs, what comes is collected: it would have to wait for the
// next fsync anyway, and one large batch costs every process much less than many
// small ones. A large queue goes to the kernel and the followers meanwhile.
type proposals struct {
	guard func(*pb.InternalRaftRequest) error // refuses for lack of disk space

	mu sync.Mutex

	maxRequests, maxBytes int

	queue       []*proposal
	waiting     []*proposal
	first       uint64 // index of waiting[0]
	bytes       int    // of queue and waiting
	queuedBytes int
	syncing     bool // what was taken is not durable yet
	draining    bool
	idle        chan struct{} // closed when draining and nothing is left
	notify      chan struct{}
}

func newProposals(maxRequests, maxBytes int, guard func(*pb.InternalRaftRequest) error) *proposals {
	return &proposals{maxRequests: maxRequests, maxBytes: maxBytes, guard: guard,
		idle: make(chan struct{}), notify: make(chan struct{}, 1)}
}

// limit changes how much may wait.
func (p *proposals) limit(maxRequests, maxBytes int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.maxRequests, p.maxBytes = maxRequests, maxBytes
}

// Propose replicates a request and returns when it is applied here.
func (p *proposals) Propose(ctx context.Context, r *pb.InternalRaftRequest) (*apply.Result, error) {
	if err := p.guard(r); err != nil {
		return nil, err
	}
	data, err := proto.Marshal(r)
	if err != nil {
		return nil, fmt.Errorf("marshal request: %w", err)
	}
	pr := newProposal(data, r)
	if err := p.enqueue(pr); err != nil {
		return nil, err
	}
	pr.timeout.Reset(proposeTimeout)
	defer pr.timeout.Stop()
	select {
	case res := <-pr.done:
		pr.data, pr.request = nil, nil
		spare.Put(pr)
		return res, nil
	case <-ctx.Done():
		// The write may still happen; the client gave up before it knew.
		return nil, status.FromContextError(ctx.Err()).Err()
	case <-pr.timeout.C:
		return nil, rpctypes.ErrGRPCTimeout
	}
}

// pending counts the writes that are not answered yet.
func (p *proposals) pending() int {
	p.mu.Lock()
	defer p.mu.Unlock()
	return len(p.queue) + len(p.waiting)
}

func (p *proposals) enqueue(pr *proposal) error {
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
	return nil
}

// wake tells the writer, if there is something that it should take now.
func (p *proposals) wake() {
	if len(p.queue) == 0 || p.syncing && len(p.queue) < collectEntries && p.queuedBytes < collectBytes {
		return
	}
	select {
	case p.notify <- struct{}{}:
	default:
	}
}

// synced says that an fsync has ended.
func (p *proposals) synced() {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.syncing = false
	p.wake()
}

// take moves queued proposals to those that wait, up to max and to maxBytes of
// them but at least one if there is one, gives them the indices from next on, and
// returns their entries.
func (p *proposals) take(next, epoch uint64, max, maxBytes int) []entry.Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
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

// refuse answers the last n of those that wait: their entries were not
// appended, and their indices go to others. No fsync follows.
func (p *proposals) refuse(n int, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	keep := len(p.waiting) - n
	for _, pr := range p.waiting[keep:] {
		p.bytes -= len(pr.data)
		pr.done <- &apply.Result{Err: err}
	}
	clear(p.waiting[keep:])
	p.waiting = p.waiting[:keep]
	p.syncing = false
	p.wake()
	p.checkIdle()
}

// requests returns what the n entries from an index on say, as far as that is
// known without decoding them; nil for the others.
func (p *proposals) requests(index uint64, n int) []*pb.InternalRaftRequest {
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

// applied answers who waits for an index.
func (p *proposals) applied(index uint64, res *apply.Result) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if len(p.waiting) == 0 || index != p.first {
		return // nobody's: the first entry of the epoch, or one from before
	}
	pr := p.waiting[0]
	p.waiting[0] = nil
	p.waiting = p.waiting[1:]
	p.first++
	p.bytes -= len(pr.data)
	pr.done <- res
	p.checkIdle()
}

// drain refuses what comes from now on; the channel is closed when everything
// that was taken is answered.
func (p *proposals) drain() <-chan struct{} {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.draining = true
	p.checkIdle()
	return p.idle
}

func (p *proposals) checkIdle() {
	if p.draining && len(p.queue)+len(p.waiting) == 0 {
		select {
		case <-p.idle:
		default:
			close(p.idle)
		}
	}
}
