package api

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"sync"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/server/v3/storage/mvcc"
	"google.golang.org/grpc"
)

const (
	// DefaultWatchProgressInterval is etcd's default.
	DefaultWatchProgressInterval = 10 * time.Minute
	minWatchProgressInterval     = 100 * time.Millisecond

	// These bound what may wait in a stream's queue. When the queue is full, watchers fall
	// behind and read later events from the store, once the client has caught up.
	watchQueueMessages = 4096
	watchQueueBytes    = 4 << 20
	// These bound what is read from the store at a time.
	watchReadRevisions = 1000
	watchReadBytes     = 1 << 20

	// watchRequestsAhead is how many requests of a stream may be unanswered before no more are
	// read.
	watchRequestsAhead = 16
)

// watchServer is the service Watch.
//
// A watcher is live or behind. Live watchers get their events from the store (mvcc), which
// notifies each watcher within each write. Events that a stream cannot send at once wait
// in its queue. If the queue is full, the watchers whose events do not fit fall behind. A
// watcher that starts in the past is behind from the beginning. Watchers that are behind
// read the missing events from the store, piece by piece and as fast as their client
// takes them. At the end of the history they become live.
//
// So writes never wait for a watcher, a slow client costs a bounded amount of memory, and
// no event is left out.
type watchServer struct {
	*API
	pb.UnsafeWatchServer
	foreground

	queueMessages, queueBytes int
	readRevisions             int64
	readBytes                 int
	fragmentBytes             int
}

func newWatchServer(a *API) *watchServer {
	return &watchServer{
		API: a, queueMessages: watchQueueMessages, queueBytes: watchQueueBytes,
		readRevisions: watchReadRevisions, readBytes: watchReadBytes,
		fragmentBytes: a.limits.MaxRequestBytes + grpcOverheadBytes,
	}
}

func (s *watchServer) register(g *grpc.Server) { pb.RegisterWatchServer(g, s) }

// Watch serves one stream. The handler's goroutine sends. Two more goroutines receive, from the
// client and from the store.
func (s *watchServer) Watch(rpc pb.Watch_WatchServer) error {
	ws := &watchStream{
		watchServer: s, rpc: rpc, live: s.store.NewWatchStream(),
		watchers: map[int64]*watcher{}, registered: map[mvcc.WatchID]*watcher{},
		wake: make(chan struct{}, 1), ahead: make(chan struct{}, watchRequestsAhead), over: make(chan struct{}),
	}
	broken := make(chan error, 1)
	go func() {
		// This goroutine ends after the handler, when there is nothing left to receive from.
		if err := ws.receive(); err != nil {
			broken <- err
		}
	}()
	var pump sync.WaitGroup
	pump.Go(ws.pump)
	err := ws.send(broken)
	ws.close()
	pump.Wait()
	return err
}

// send sends until the stream ends, and returns why it ended.
func (s *watchStream) send(broken <-chan error) error {
	interval, changed := s.progress.get()
	progress := time.NewTicker(interval)
	defer progress.Stop()
	ctx := s.rpc.Context()
	for {
		busy, err := s.sendSome()
		if err != nil {
			return canceledAs(err)
		}
		var idle <-chan struct{} // nil: wait
		if busy {
			idle = alreadyClosed
		}
		select {
		case <-s.stopping:
			return rpctypes.ErrGRPCStopped // Unavailable, so that clients continue at the next leader
		case <-ctx.Done():
			return canceledAs(ctx.Err())
		case err := <-broken:
			return canceledAs(err)
		case <-progress.C:
			s.reportProgress()
		case <-changed:
			interval, changed = s.progress.get()
			progress.Reset(interval)
		case <-s.wake:
		case <-idle:
		}
	}
}

var alreadyClosed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// canceledAs returns etcd's answer to a client that went away.
func canceledAs(err error) error {
	if errors.Is(err, context.Canceled) {
		return rpctypes.ErrGRPCWatchCanceled
	}
	return err
}

// progressPace is how often watchers get progress reports. It can change while they watch.
type progressPace struct {
	mu       sync.Mutex
	interval time.Duration
	changed  chan struct{} // closed at the next change
}

func newProgressPace(d time.Duration) *progressPace {
	p := &progressPace{changed: make(chan struct{})}
	p.set(d)
	return p
}

func (p *progressPace) set(d time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	d = max(d, minWatchProgressInterval)
	if d == p.interval {
		return
	}
	p.interval = d
	close(p.changed)
	p.changed = make(chan struct{})
}

// get returns the interval with a jitter. Without it, all watchers of a client that restarted
// would be reported to at the same moment for ever. The channel is closed when the interval
// changes.
func (p *progressPace) get() (time.Duration, <-chan struct{}) {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.interval + rand.N(p.interval/10), p.changed
}

// SetWatchProgressInterval changes Config.WatchProgressInterval, also for existing watchers.
func (a *API) SetWatchProgressInterval(d time.Duration) { a.progress.set(d) }

// receive handles the client's requests. It passes on a request that may need an answer only
// when there is room for the answer.
func (s *watchStream) receive() error {
	for {
		r, err := s.rpc.Recv()
		if errors.Is(err, io.EOF) {
			return nil // the client sends no more requests and goes on listening
		}
		if err != nil {
			return err
		}
		select {
		case s.ahead <- struct{}{}:
		case <-s.over:
			return nil
		}
		answer := s.handle(r)
		if answer == nil {
			<-s.ahead
		}
	}
}

// handle returns the answer, which is already in the queue, or nil. As with etcd, an unknown
// request gets no answer.
func (s *watchStream) handle(r *pb.WatchRequest) *pb.WatchResponse {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	var answer *pb.WatchResponse
	switch {
	case r.GetCreateRequest() != nil:
		answer = s.create(r.GetCreateRequest())
	case r.GetCancelRequest() != nil:
		answer = s.cancel(r.GetCancelRequest().WatchId)
	case r.GetProgressRequest() != nil:
		s.reportAll()
	}
	if answer != nil {
		s.enqueue(message{answer: answer})
		if w := s.watchers[answer.WatchId]; w != nil && answer.Created && !answer.Canceled {
			w.lastQueued = s.queued // its past events are sent after this answer
		}
	}
	return answer
}
