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

// errEnding answers writes that come while the process ends. It is
// Unavailable: the client may try again, with the next leader.
var errEnding = rpctypes.ErrGRPCStopped

// proposal is one write on its way.
type proposal struct {
	data []byte
	done chan *apply.Result // one result, or closed when the process ends
}

// proposals is the bounded queue between the handlers of client requests and
// the writer, and the list of those that wait for their entry to be applied.
//
// waiting is ordered by index and has no gaps: within an epoch every entry
// but the first is somebody's proposal.
type proposals struct {
	guard func(*pb.InternalRaftRequest) error // refuses for lack of disk space

	mu sync.Mutex

	maxRequests, maxBytes int

	queue    []*proposal
	waiting  []*proposal
	first    uint64 // index of waiting[0]
	bytes    int    // of queue and waiting
	draining bool
	idle     chan struct{} // closed when draining and nothing is left
	notify   chan struct{}
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
	pr := &proposal{data: data, done: make(chan *apply.Result, 1)}
	if err := p.enqueue(pr); err != nil {
		return nil, err
	}
	timeout := time.NewTimer(proposeTimeout)
	defer timeout.Stop()
	select {
	case res, ok := <-pr.done:
		if !ok {
			return nil, errEnding
		}
		return res, nil
	case <-ctx.Done():
		// The write may still happen; the client gave up before it knew.
		return nil, status.FromContextError(ctx.Err()).Err()
	case <-timeout.C:
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
	select {
	case p.notify <- struct{}{}:
	default:
	}
	return nil
}

// take moves queued proposals to those that wait, up to max and to maxBytes of
// them but at least one if there is one, gives them the indices from next on, and
// returns their entries.
func (p *proposals) take(next, epoch uint64, max, maxBytes int) []entry.Entry {
	p.mu.Lock()
	defer p.mu.Unlock()
	n := 0
	for bytes := 0; n < min(len(p.queue), max) && (n == 0 || bytes+len(p.queue[n].data) <= maxBytes); n++ {
		bytes += len(p.queue[n].data)
	}
	if n == 0 {
		return nil
	}
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
	if rest > 0 {
		select {
		case p.notify <- struct{}{}:
		default:
		}
	}
	return out
}

// refuse answers the last n of those that wait: their entries were not
// appended, and their indices go to others.
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
	p.checkIdle()
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
