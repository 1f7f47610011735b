package clientapi

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
	// DefaultWatchProgressInterval is etcd's.
	DefaultWatchProgressInterval = 10 * time.Minute
	minWatchProgressInterval     = 100 * time.Millisecond

	// What a stream may have waiting to be sent before its watchers have to
	// read what follows from the store, when the client has caught up.
	watchQueueMessages = 4096
	watchQueueBytes    = 4 << 20
	// What is read from the store at a time.
	watchReadRevisions = 1000
	watchReadBytes     = 1 << 20

	// watchRequestsAhead is how many requests of a stream may be unanswered
	// before no more are taken.
	watchRequestsAhead = 16
)

// watchServer is the service Watch.
//
// A watcher is live or behind. Events for those that are live come from
// etcd's store (mvcc), which calls on each watcher within each write. What a stream
// cannot send at once waits in its queue; if that is full, the watchers whose
// events find no room fall behind, and so does one that starts in the past.
// Those that are behind read from the store what they lack, piece by piece
// and as fast as their client takes it, and come to life at its end.
//
// So the writes never wait for a watcher, a client that reads slowly costs a
// bounded amount of memory, and nothing is left out.
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

// Watch serves one stream. The handler's goroutine sends; two more receive,
// from the client and from the store.
func (s *watchServer) Watch(rpc pb.Watch_WatchServer) error {
	ws := &watchStream{
		watchServer: s, rpc: rpc, live: s.store.NewWatchStream(),
		watchers: map[int64]*watcher{}, registered: map[mvcc.WatchID]*watcher{},
		wake: make(chan struct{}, 1), ahead: make(chan struct{}, watchRequestsAhead), over: make(chan struct{}),
	}
	broken := make(chan error, 1)
	go func() {
		// It ends after the handler, when there is nothing to receive from any more.
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

// send sends until the stream ends, and says why it does.
func (s *watchStream) send(broken <-chan error) error {
	progress := time.NewTicker(s.progressInterval())
	defer progress.Stop()
	ctx := s.rpc.Context()
	for {
		busy, err := s.sendSome()
		if err != nil {
			return canceledAs(err)
		}
		var idle <-chan struct{} // nil: do not wait
		if busy {
			idle = alreadyClosed
		}
		select {
		case <-s.stopping:
			return rpctypes.ErrGRPCStopped // Unavailable: clients go on with the next leader
		case <-ctx.Done():
			return canceledAs(ctx.Err())
		case err := <-broken:
			return canceledAs(err)
		case <-progress.C:
			s.reportProgress()
		case <-s.wake:
		case <-idle:
		}
	}
}

var alreadyClosed = func() chan struct{} { c := make(chan struct{}); close(c); return c }()

// canceledAs is etcd's answer to a client that went away.
func canceledAs(err error) error {
	if errors.Is(err, context.Canceled) {
		return rpctypes.ErrGRPCWatchCanceled
	}
	return err
}

// progressInterval has a jitter, or all watchers made by a client that
// restarted would be told at the same moment for ever.
func (s *watchServer) progressInterval() time.Duration {
	d := s.watchProgress
	return d + rand.N(d/10)
}

// receive serves the client's requests. One that may need an answer is taken
// only when there is room for it.
func (s *watchStream) receive() error {
	for {
		r, err := s.rpc.Recv()
		if errors.Is(err, io.EOF) {
			return nil // it asks for nothing more, and goes on listening
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

// handle returns the answer, which is in the queue, or nil. What is no known
// request gets none, as with etcd.
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
			w.lastQueued = s.queued // its past is sent after the word that it is there
		}
	}
	return answer
}
