package gate

import (
	"container/list"
	"net"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	"github.com/hashicorp/go-hclog"
	"golang.org/x/sys/unix"
)

// reportInterval is how often what was refused is logged at most.
const reportInterval = 10 * time.Second

// Limits of a Gate. Zero is no limit.
type Limits struct {
	// Unproven is how many connections may be on their way to prove themselves.
	Unproven int
	// Total is how many connections there may be.
	Total int
	// Patience is how long a connection may take to prove itself.
	Patience time.Duration
}

// Gate counts the connections of one listener.
type Gate struct {
	name   string
	limits Limits
	logger hclog.Logger

	mu       sync.Mutex
	unproven *list.List // of *Conn, the oldest first
	total    int
	// What happened since the last report, and when that was.
	refused, dropped int
	reported         time.Time
}

// New makes a gate; name says in the log whose it is. The logger may be nil.
func New(name string, l Limits, logger hclog.Logger) *Gate {
	if logger == nil {
		logger = hclog.NewNullLogger()
	}
	return &Gate{name: name, limits: l, logger: logger, unproven: list.New()}
}

// Admit takes a connection in. It is nil when there are too many already and none
// is left that has yet to prove itself; the connection is the caller's then.
func (g *Gate) Admit(c net.Conn) *Conn {
	g.mu.Lock()
	defer g.mu.Unlock()
	full := g.limits.Total > 0 && g.total >= g.limits.Total
	crowded := g.limits.Unproven > 0 && g.unproven.Len() >= g.limits.Unproven
	if full || crowded {
		if !g.dropOne() {
			g.refused++
			g.report()
			return nil
		}
	}
	admitted := &Conn{Conn: c, gate: g}
	admitted.place = g.unproven.PushBack(admitted)
	g.total++
	if g.limits.Patience > 0 {
		admitted.timer = time.AfterFunc(g.limits.Patience, admitted.expire)
	}
	return admitted
}

// dropOne ends the connection that has been silent for longest, or else the one
// that has been unproven for longest; false if there is none. mu is held.
func (g *Gate) dropOne() bool {
	victim := g.unproven.Front()
	for e := victim; e != nil; e = e.Next() {
		if !e.Value.(*Conn).spoke.Load() {
			victim = e
			break
		}
	}
	if victim == nil {
		return false
	}
	g.drop(victim.Value.(*Conn))
	return true
}

// drop ends an unproven connection. mu is held.
func (g *Gate) drop(c *Conn) {
	g.dropped++
	g.forget(c)
	_ = c.Conn.Close() // does not wait: nothing was written that lingers
	g.report()
}

// forget takes a connection out of the books, once. mu is held.
func (g *Gate) forget(c *Conn) {
	if c.gone {
		return
	}
	c.gone = true
	g.total--
	g.settle(c)
}

// settle ends the probation of a connection. mu is held.
func (g *Gate) settle(c *Conn) {
	if c.place != nil {
		g.unproven.Remove(c.place)
		c.place = nil
	}
	if c.timer != nil {
		c.timer.Stop()
	}
}

// report logs what happened, now and then. mu is held.
func (g *Gate) report() {
	if time.Since(g.reported) < reportInterval {
		return
	}
	g.logger.Warn("connections were ended that had not proved themselves, or were too many", "listener", g.name,
		"ended", g.dropped, "refused", g.refused, "open", g.total, "max_open", g.limits.Total, "max_unproven", g.limits.Unproven)
	g.reported, g.refused, g.dropped = time.Now(), 0, 0
}

// Open is how many connections there are, and how many of them have yet to
// prove themselves.
func (g *Gate) Open() (total, unproven int) {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.total, g.unproven.Len()
}

// Conn is an admitted connection.
type Conn struct {
	net.Conn
	gate  *Gate
	spoke atomic.Bool // something was read of it

	// gate.mu guards what follows.
	place *list.Element // nil once it has proved itself
	timer *time.Timer
	gone  bool
}

// Proved ends the probation.
func (c *Conn) Proved() {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	c.gate.settle(c)
}

func (c *Conn) expire() {
	c.gate.mu.Lock()
	defer c.gate.mu.Unlock()
	if c.place != nil {
		c.gate.drop(c)
	}
}

// Read notes that the connection is not silent.
func (c *Conn) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	if n > 0 && !c.spoke.Load() {
		c.spoke.Store(true)
	}
	return n, err
}

// Close ends the connection.
func (c *Conn) Close() error {
	c.gate.mu.Lock()
	c.gate.forget(c)
	c.gate.mu.Unlock()
	return c.Conn.Close()
}

// SyscallConn is for who looks at the first bytes without reading them.
func (c *Conn) SyscallConn() (syscall.RawConn, error) {
	sc, ok := c.Conn.(syscall.Conn)
	if !ok {
		return nil, syscall.EINVAL
	}
	return sc.SyscallConn()
}

// Listener admits what another listener accepts, and closes what is too much.
func (g *Gate) Listener(l net.Listener) net.Listener { return &listener{Listener: l, gate: g} }

type listener struct {
	net.Listener
	gate *Gate
}

func (l *listener) Accept() (net.Conn, error) {
	for {
		c, err := l.Listener.Accept()
		if err != nil {
			return nil, err
		}
		if admitted := l.gate.Admit(c); admitted != nil {
			return admitted, nil
		}
		_ = c.Close()
	}
}

// spareFiles are left to the process by MaxConnections: its log, its database,
// its sockets, and followers that it starts.
const spareFiles = 256

// MaxConnections is a limit for connections that leaves the process enough open
// files for everything else: what is wanted, or what the kernel's limit allows.
func MaxConnections(wanted int) int {
	var limit unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur > 1<<30 {
		return wanted
	}
	return max(min(wanted, int(limit.Cur)-spareFiles), 1)
}
