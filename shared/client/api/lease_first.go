package api

import (
	"context"
	"sync"
	"time"
)

// firstRenewalTimeout is how long after its beginning a stream of renewals is expected to send
// its first request. A client that renews a lease once opens a stream and sends the request at
// once. A client that keeps leases alive opens a stream and sends the first request when a
// lease is due, which can be minutes later. Until then the two look the same.
const firstRenewalTimeout = 200 * time.Millisecond

// firstRenewals tracks the streams whose first request is expected. Ending such a stream
// would make a single renewal fail in etcd's client. So a process that stops serving waits
// for it; but meanwhile nobody is served, because the next leader waits for this one.
// Therefore a stream counts as expected only for a short time after its beginning, and the
// leader waits for a moment without expected streams before it stops serving.
type firstRenewals struct {
	patience time.Duration

	mu       sync.Mutex
	expected int
	none     chan struct{} // closed when expected becomes 0; nil if nobody waits
}

func newFirstRenewals(patience time.Duration) *firstRenewals {
	return &firstRenewals{patience: patience}
}

// expect registers a stream that has begun. over is closed when forget is called or when the
// time is over.
func (f *firstRenewals) expect() (over <-chan struct{}, forget func()) {
	done := make(chan struct{})
	once := sync.OnceFunc(func() {
		f.leave()
		close(done)
	})
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expected++
	timer := time.AfterFunc(f.patience, once)
	return done, func() { timer.Stop(); once() }
}

func (f *firstRenewals) leave() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.expected--
	if f.expected == 0 && f.none != nil {
		close(f.none)
		f.none = nil
	}
}

// wait returns when no stream is expected to send its first request, or when ctx ends.
func (f *firstRenewals) wait(ctx context.Context) {
	f.mu.Lock()
	if f.expected == 0 {
		f.mu.Unlock()
		return
	}
	if f.none == nil {
		f.none = make(chan struct{})
	}
	none := f.none
	f.mu.Unlock()
	select {
	case <-none:
	case <-ctx.Done():
	}
}
