package gate

import (
	"net"
	"sync"
	"sync/atomic"
	"time"
)

// repeatAfter is the time after which a client is told again what it was told before. The
// answer with which it was told may have been lost, because the client gave up on its request.
const repeatAfter = time.Second

// Peer is the other end of an admitted connection. gRPC passes it to the handler of each
// request. It remembers which version of something the client was told, so that not every
// answer has to tell it.
type Peer struct {
	net.Addr

	telling sync.Mutex    // orders what is sent
	version atomic.Uint64 // what the client was told; 0: nothing
	at      atomic.Int64  // when, in nanoseconds since 1970
}

// Knows reports whether the client was told a version a short time ago.
func (p *Peer) Knows(version uint64, now time.Time) bool {
	return p.version.Load() == version && now.UnixNano()-p.at.Load() < int64(repeatAfter)
}

// Tell calls send, which sends the newest version and returns it. No two calls on a connection
// run at the same time, so the version that is sent last is the newest.
func (p *Peer) Tell(now time.Time, send func() (version uint64, err error)) {
	p.telling.Lock()
	defer p.telling.Unlock()
	if version, err := send(); err == nil {
		p.at.Store(now.UnixNano())
		p.version.Store(version)
	}
}
