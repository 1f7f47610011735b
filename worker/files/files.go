package files

import (
	"context"
	"fmt"
	"net"
	"sync"
	"sync/atomic"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/client/gate"
	"github.com/dynast-io/dynast/shared/client/web"
	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/openfiles"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/plural"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state"
)

// Most is the largest share of each listener, for when the limit of open files is high enough.
// Strangers are connections to the member port that have not shown a certificate of the cluster
// yet. Others are commands of users other than root and the user who runs the cluster. They
// have places of their own, so that they cannot take the places of those two.
var Most = openfiles.Shares{Strangers: 128, Commands: 256, Others: 32, Browsers: 256, Handoffs: 64}

// maxClientStrangers bounds the client connections that have sent nothing yet.
const maxClientStrangers = 1024

// waitOver is how long no client must have waited before the wait is reported as over.
const waitOver = 10 * time.Second

// ServicesOf counts what services need descriptors for.
func ServicesOf(services []config.Service) openfiles.Services {
	var out openfiles.Services
	opens := func(c *config.Check) bool {
		return c != nil && c.Kind != config.CheckNotify && c.Kind != config.CheckDelay
	}
	for _, s := range services {
		out.Instances += s.Instances
		out.Sockets += len(s.Listen)
		if opens(s.Ready) || opens(s.Alive) {
			out.Checked += s.Instances
		}
	}
	return out
}

// Check raises the limit of open files. It returns an error if the limit is too low for a
// leader with this many followers and these services.
func Check(followers int, services []config.Service) error {
	return check(followers, ServicesOf(services))
}

func check(followers int, s openfiles.Services) error {
	limit, err := openfiles.Raise()
	if err != nil {
		return err
	}
	return openfiles.Check(limit, followers, s)
}

// Budget keeps client connections from using the descriptors that members need.
type Budget struct {
	*state.Shared
	// Shares are the shares of this process's listeners. Its field Clients is not used, because
	// that share changes.
	Shares openfiles.Shares

	// scaling allows one change of the number of followers at a time. promised is the new
	// number; clients make room for it before the followers start.
	scaling  sync.Mutex
	promised atomic.Int64

	gate  atomic.Pointer[gate.Gate] // of clients; nil until they are served
	queue atomic.Pointer[net.TCPListener]
	// services are those that run now. It is nil until they are known; then those of the
	// configuration count.
	services atomic.Pointer[openfiles.Services]

	waiting bool      // the wait of clients was reported; only housekeeping uses it
	waited  time.Time // when a client was last seen waiting
}

// New divides the limit of open files among the listeners.
func New(sh *state.Shared) (*Budget, error) {
	limit, err := openfiles.Raise()
	if err != nil {
		return nil, err
	}
	return &Budget{Shared: sh, Shares: openfiles.Split(limit-ServicesOf(sh.Settings.Start.Services).Needed(), sh.Settings.Start.Followers, core.MaxFollowers, Most)}, nil
}

// servicesNow returns what the services need descriptors for.
func (b *Budget) servicesNow() openfiles.Services {
	if now := b.services.Load(); now != nil {
		return *now
	}
	return ServicesOf(b.Settings.Start.Services)
}

// Fit returns an error if the limit is too low for these services and the followers.
func (b *Budget) Fit(services []config.Service) error {
	return Check(b.followers(), services)
}

// Use makes room for services, which replace those before.
func (b *Budget) Use(services []config.Service) {
	now := ServicesOf(services)
	b.services.Store(&now)
	b.adapt()
}

// followers returns how many followers this leader needs descriptors for: the configured
// number, and those that an operator started in addition.
func (b *Budget) followers() int {
	return int(max(Followers(b.Roster()), b.promised.Load()))
}

// Followers returns how many followers the leader of a roster needs descriptors for: the
// configured number, and those that an operator started in addition.
func Followers(r *roster.Roster) int64 {
	n := int64(r.Followers)
	for _, m := range r.Members {
		if m.ByHand && m.Address != r.Leader {
			n++
		}
	}
	return n
}

// clientLimits returns the limits of client connections. If client.max_connections is the lower
// bound, one more connection gets an error. If the descriptors are, it waits until one is free.
func (b *Budget) clientLimits() gate.Limits {
	most := b.Settings.Start.Client.MaxConnections
	l := gate.Limits{Unproven: maxClientStrangers, Total: most}
	limit, err := openfiles.Raise() // an operator may have raised it since (prlimit)
	if err != nil {
		return l
	}
	share := openfiles.Split(limit-b.servicesNow().Needed(), b.followers(), core.MaxFollowers, Most).Clients
	if share < most+web.Refusing {
		l.Total, l.Wait = min(share, most), true
	}
	return l
}

// Serve creates the gate for clients, whose connections wait in the queue of l.
func (b *Budget) Serve(l net.Listener) *gate.Gate {
	limits := b.clientLimits()
	if most := b.Settings.Start.Client.MaxConnections; limits.Total < most {
		b.Log.Warn("the limit of open files (ulimit -n) allows fewer client connections than client.max_connections",
			"connections", limits.Total, "max_connections", most)
	}
	if err := check(b.followers(), b.servicesNow()); err != nil {
		b.Log.Error("this leader may not be able to start followers", "error", err)
	}
	g := gate.New("clients", limits, b.Logs.Logger("client"))
	b.gate.Store(g)
	if t, ok := l.(*net.TCPListener); ok {
		b.queue.Store(t)
	}
	return g
}

// adapt updates the limits of client connections if they have changed.
func (b *Budget) adapt() {
	g := b.gate.Load()
	if g == nil {
		return
	}
	if l := b.clientLimits(); l != g.Limits() {
		g.SetLimits(l)
	}
}

// Promise makes room for this many followers until the returned function is called.
func (b *Budget) Promise(followers int) (release func(), err error) {
	b.scaling.Lock()
	if followers > b.followers() {
		if err := check(followers, b.servicesNow()); err != nil {
			b.scaling.Unlock()
			return nil, err
		}
	}
	b.promised.Store(int64(followers))
	b.adapt()
	return func() {
		b.promised.Store(0)
		b.adapt()
		b.scaling.Unlock()
	}, nil
}

// ClientsWait reports whether one more client connection would have to wait.
func (b *Budget) ClientsWait() bool {
	g := b.gate.Load()
	return g != nil && g.Limits().Wait && g.Full()
}

// Connections counts the connections of clients.
func (b *Budget) Connections() (open, most, waiting int) {
	g := b.gate.Load()
	if g == nil {
		return 0, 0, 0
	}
	open, _ = g.Open()
	if q := b.queue.Load(); q != nil {
		waiting, _ = proc.Waiting(q)
	}
	return open, g.Limits().Total, waiting
}

// Look is called by housekeeping. It adapts the limits to the members that joined and left, and
// reports when clients start and stop waiting for a descriptor.
func (b *Budget) Look(now time.Time) {
	b.adapt()
	g := b.gate.Load()
	if g == nil {
		return
	}
	open, most, waiting := b.Connections()
	if waiting > 0 && b.ClientsWait() {
		b.waited = now
		if !b.waiting {
			b.waiting = true
			b.Log.Error("clients wait to be accepted: the limit of open files (ulimit -n) allows no more connections",
				"connections", open, "waiting", waiting)
			b.Tell(events.ClientsWait, fmt.Sprintf("%s of clients, the limit of open files allows no more, and %d wait", plural.Count(open, "connection"), waiting))
		}
		return
	}
	if b.waiting && now.Sub(b.waited) >= waitOver {
		b.waiting = false
		b.Log.Info("clients no longer wait to be accepted", "connections", open, "max_connections", most)
		b.Tell(events.ClientsAccepted, fmt.Sprintf("%s of clients, %d possible", plural.Count(open, "connection"), most))
	}
}

// Scale changes the number of followers to n, or by n if relative is set. Clients make room
// first. The error is a gRPC status.
func (b *Budget) Scale(ctx context.Context, n int, relative bool) (core.Answer, error) {
	r := b.Roster()
	want := n
	if relative {
		want += r.Followers
	}
	byHand := int(Followers(r)) - r.Followers
	if want > core.MaxFollowers {
		want = r.Followers // the core answers with the reason
	}
	release, err := b.Promise(max(want, r.Followers) + byHand)
	if err != nil {
		return core.Answer{}, status.Error(codes.FailedPrecondition, "dynast: "+err.Error())
	}
	defer release()
	return b.Request(ctx, func(ref chan core.Answer) core.Event {
		return core.ScaleRequested{Followers: n, Relative: relative, Ref: ref}
	})
}
