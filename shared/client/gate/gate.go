package gate

import (
	"container/list"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
)

// reportInterval is the minimum time between two log lines about refused connections.
const reportInterval = 10 * time.Second

// Limits are the limits of a Gate. Zero means no limit.
type Limits struct {
	// Unproven is how many connections may be unproven at the same time.
	Unproven int
	// Total is how many connections there may be.
	Total int
	// Patience is how long a connection may take to prove itself.
	Patience time.Duration
	// Wait leaves connections beyond the limits in the kernel's queue instead of refusing them.
	// An admitted connection then has waitGrace to prove itself before it can be ended in
	// favour of another.
	Wait bool
}

// waitGrace is longer than a process under load needs to look at the first bytes of a
// connection from the queue, where these bytes have been waiting.
const waitGrace = time.Second

// Gate counts the connections of one listener.
type Gate struct {
	name   string
	logger hclog.Logger
	room   chan struct{} // holds an element when there may be a free place

	mu       sync.Mutex
	limits   Limits
	unproven *list.List // of *Conn, the oldest first
	proven   *list.List // of *Conn, in the order in which they were proved
	// These are the counts since the last report, and its time.
	refused, dropped int
	reported         time.Time
}

// New makes a gate. name identifies the listener in the log. The logger may be nil.
func New(name string, l Limits, logger hclog.Logger) *Gate {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	return &Gate{name: name, limits: l, logger: logger, room: make(chan struct{}, 1), unproven: list.New(), proven: list.New()}
}

// total is the number of connections. mu is held.
func (g *Gate) total() int { return g.unproven.Len() + g.proven.Len() }

// full reports whether one more connection would exceed a limit. mu is held.
func (g *Gate) full() bool {
	return g.limits.Total > 0 && g.total() >= g.limits.Total || g.limits.Unproven > 0 && g.unproven.Len() >= g.limits.Unproven
}

// Limits returns the current limits.
func (g *Gate) Limits() Limits {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.limits
}

// Full reports whether all places are taken.
func (g *Gate) Full() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.full()
}

// Await returns true when there is a place for one more connection. Without Limits.Wait it
// returns at once. It returns false if stop is closed first. Only the goroutine that accepts
// may call it.
func (g *Gate) Await(stop <-chan struct{}) bool {
	for {
		again, ok := g.place()
		if ok {
			return true
		}
		var grown <-chan time.Time
		if again > 0 {
			timer := time.NewTimer(again)
			defer timer.Stop()
			grown = timer.C
		}
		select {
		case <-g.room:
		case <-grown:
		case <-stop:
			return false
		}
	}
}

// place reports whether there is a place, or a connection that may be ended to make one. If
// not, again is when one of the present connections may be ended; 0 means never.
func (g *Gate) place() (again time.Duration, ok bool) {
	g.mu.Lock()
	defer g.mu.Unlock()
	if !g.limits.Wait || !g.full() || g.victim() != nil {
		return 0, true
	}
	if oldest := g.unproven.Front(); oldest != nil {
		return max(waitGrace-time.Since(oldest.Value.(*Conn).since), time.Millisecond), false
	}
	return 0, false
}

// Enter waits for a place for an accepted connection, and admits it. Without Limits.Wait it
// does not wait, and returns nil if there is no place; the caller then still owns the
// connection. If stop is closed meanwhile, Enter admits the connection without a place: it is
// only one, and whoever stops serving ends it in order.
func (g *Gate) Enter(c net.Conn, stop <-chan struct{}) *Conn {
	for g.Await(stop) {
		if admitted := g.Admit(c); admitted != nil || !g.Limits().Wait {
			return admitted
		}
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.add(c)
}

// SetLimits changes the limits. If there are too many connections then, it ends some: first
// unproven ones, then those that were proved last.
func (g *Gate) SetLimits(l Limits) {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.limits = l
	ended := 0
	for l.Total > 0 && g.total() > l.Total {
		victim := g.unproven.Back()
		if victim == nil {
			victim = g.proven.Back()
		}
		c := victim.Value.(*Conn)
		g.forget(c)
		_ = c.Conn.Close()
		ended++
	}
	if ended > 0 {
		g.logger.Warn("connections were ended because fewer are possible now", "listener", g.name, "ended", ended, "max_open", l.Total)
	}
	g.tellRoom()
}

func (g *Gate) tellRoom() {
	select {
	case g.room <- struct{}{}:
	default:
	}
}

// Admit admits a connection. It returns nil if the limits are reached and no unproven
// connection can be ended; the caller then still owns the connection.
func (g *Gate) Admit(c net.Conn) *Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.full() {
		victim := g.victim()
		if victim == nil {
			if !g.limits.Wait {
				g.refused++
				g.report()
			}
			return nil
		}
		g.drop(victim)
	}
	return g.add(c)
}

// add admits a connection. mu is held.
func (g *Gate) add(c net.Conn) *Conn {
	admitted := &Conn{Conn: c, gate: g, since: time.Now(), peer: &Peer{Addr: c.RemoteAddr()}}
	admitted.place = g.unproven.PushBack(admitted)
	if g.limits.Patience > 0 {
		admitted.timer = time.AfterFunc(g.limits.Patience, admitted.expire)
	}
	return admitted
}

// victim returns the connection that has been silent for the longest time, or else the one that
// has been unproven for the longest time. It returns nil if none may be ended. mu is held.
func (g *Gate) victim() *Conn {
	var first *Conn
	for e := g.unproven.Front(); e != nil; e = e.Next() {
		c := e.Value.(*Conn)
		if g.limits.Wait && time.Since(c.since) < waitGrace {
			break // all later ones are younger
		}
		if !c.spoke.Load() {
			return c
		}
		if first == nil {
			first = c
		}
	}
	return first
}

// drop ends an unproven connection. mu is held.
func (g *Gate) drop(c *Conn) {
	g.dropped++
	g.forget(c)
	_ = c.Conn.Close() // does not wait, because nothing was written
	g.report()
}

// forget removes a connection from the lists, once. mu is held.
func (g *Gate) forget(c *Conn) {
	if c.gone {
		return
	}
	c.gone = true
	g.unproven.Remove(c.place) // it is in one of the two lists
	g.proven.Remove(c.place)
	g.settle(c)
}

// settle ends the time limit of a connection. mu is held.
func (g *Gate) settle(c *Conn) {
	g.tellRoom()
	if c.timer != nil {
		c.timer.Stop()
	}
}

// report logs the counts from time to time. mu is held.
func (g *Gate) report() {
	if time.Since(g.reported) < reportInterval {
		return
	}
	g.logger.Warn("ended or refused connections that were unproven or too many", "listener", g.name,
		"ended", g.dropped, "refused", g.refused, "open", g.total(), "max_open", g.limits.Total, "max_unproven", g.limits.Unproven)
	g.reported, g.refused, g.dropped = time.Now(), 0, 0
}

// Open returns how many connections there are, and how many of them are unproven.
func (g *Gate) Open() (total, unproven int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.total(), g.unproven.Len()
}

// Conn is an admitted connection.
type Conn struct {
	net.Conn
	gate  *Gate
	peer  *Peer
	since time.Time   // when it was admitted
	spoke atomic.Bool // something was read from it

	// gate.mu guards these fields.
	place  *list.Element // in one of the gate's lists
	proved bool
	timer  *time.Timer
	gone   bool
}

// Proved marks the connection as proven.
func (c *Conn) Proved() {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if c.gone || c.proved {
		return
	}
	c.proved = true
	c.gate.unproven.Remove(c.place)
	c.place = c.gate.proven.PushBack(c)
	c.gate.settle(c)
}

func (c *Conn) expire() {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if !c.proved && !c.gone {
		c.gate.drop(c)
	}
}

// Read also records that the connection is not silent.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.spoke.Load() {
		c.spoke.Store(true)
	}
	return n, err
}

// Close closes the connection.
func (c *Conn) Close() error {
	c.gate.mu.Lock()
	c.gate.forget(c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}

// RemoteAddr returns the connection's Peer.
func (c *Conn) RemoteAddr() net.Addr { return c.peer }

// SyscallConn allows the caller to look at the first bytes without reading them.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, syscall.EINVAL
	}
	return sc.SyscallConn()
}

// Listener returns a listener that admits the connections of l. Connections beyond the limits
// are closed, or stay in the kernel's queue.
func (g *Gate) Listener(l net.Listener) net.Listener {
	return &listener{Listener: l, gate: g, closed: make(chan struct{})}
}

type listener struct {
	net.Listener
	gate   *Gate
	once   sync.Once
	closed chan struct{}
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		if !l.gate.Await(l.closed) {
			return nil, net.ErrClosed
		}
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		admitted := l.gate.Enter(c, l.closed)
		if admitted == nil {
			_ = c.Close()
			continue
		}
		select {
		case <-l.closed:
			_ = admitted.Close()
			return nil, net.ErrClosed
		default:
			return admitted, nil
		}
	}
}

func (l *listener) Close() error {
	l.once.Do(func() { close(l.closed) })
	return l.Listener.Close()
}
