package operate

import (
	"context"
	"os"
	"sync/atomic"
	"time"

	"github.com/dynast-io/dynast/shared/host/openfiles"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/observe/meter"
	"github.com/dynast-io/dynast/shared/observe/tree"
	"github.com/dynast-io/dynast/shared/operator/dashboard"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/replica"
	"github.com/dynast-io/dynast/worker/state"
)

// Replica is what operators see of the member's copy of the data.
type Replica interface {
	Pending() int
	Fsyncs() meter.Counts
	Full() (disk, memory bool)
	MemoryStatus() replica.MemoryStatus
	// Describe describes the store. It returns false if there is none at the moment.
	Describe() (tree.Store, bool)
}

// Clients is what operators see of the clients, and a way to try a client's read.
type Clients interface {
	Requests() meter.Load
	Read(context.Context) error
	TLS() bool
	AuthEnabled() bool
}

// Files divides the limit of open files.
type Files interface {
	// Promise makes room for this many followers until the returned function is called.
	Promise(followers int) (release func(), err error)
	// Scale changes the number of followers.
	Scale(ctx context.Context, followers int, relative bool) (core.Answer, error)
	// Connections counts the connections of clients.
	Connections() (open, most, waiting int)
	// ClientsWait reports whether one more client connection would have to wait.
	ClientsWait() bool
}

// Config holds what New needs.
type Config struct {
	Shared   *state.Shared
	Replica  Replica
	Clients  Clients
	Sockets  *member.Sockets
	Files    Files
	Shares   openfiles.Shares // the limit of each listener
	Recorder *events.Recorder
	// View returns the core's view of the cluster. It is false if the process exits first.
	View func() (core.View, bool)
	// Describe returns this member as it introduces itself.
	Describe func() roster.Member
	// Reload reads the configuration again and applies it.
	Reload func(ctx context.Context, why string, dry bool) (*wire.ReloadResponse, error)
	// Services returns the supervisor of the user's services. If there is none, it makes one or
	// returns nil.
	Services func(create bool) (member.Services, error)
	// Hosts carries out a command about the cluster of hosts; see package hosts.
	Hosts func(ctx context.Context, path string, body []byte) ([]byte, error)
	// Stop stops the cluster. keep leaves the user's programs running.
	Stop func(reason string, keep bool)
}

// Operators serves operators while this member leads: commands, the dashboard, the service
// manager, and processes that want to join.
type Operators struct {
	*state.Shared
	replica         Replica
	clients         Clients
	files           Files
	shares          openfiles.Shares
	sockets         *member.Sockets
	dashboardSocket *os.File // nil: the dashboard is off
	recorder        *events.Recorder
	view            func() (core.View, bool)
	describe        func() roster.Member
	reload          func(ctx context.Context, why string, dry bool) (*wire.ReloadResponse, error)
	services        func(create bool) (member.Services, error)
	hosts           func(ctx context.Context, path string, body []byte) ([]byte, error)
	stop            func(reason string, keep bool)

	service     *service
	cpu         cpuUsage
	adminServer atomic.Pointer[adminServer]      // nil until this process leads
	dashboard   atomic.Pointer[dashboard.Server] // nil while the dashboard is not served
}

// New creates Operators, which serve nothing before Open.
func New(c Config) *Operators {
	o := &Operators{Shared: c.Shared, replica: c.Replica, clients: c.Clients, files: c.Files, shares: c.Shares, sockets: c.Sockets,
		dashboardSocket: c.Sockets.File(member.DashboardListener), recorder: c.Recorder,
		view: c.View, describe: c.Describe, reload: c.Reload, services: c.Services, hosts: c.Hosts, stop: c.Stop}
	o.service = newService(o)
	return o
}

// Open serves commands and joining processes. It is called once clients are served.
func (o *Operators) Open() {
	o.warnOfExposure()
	o.waitForRoom(o.serveAdmin)
	o.waitForRoom(o.serveHandoff)
}

// OpenMore serves what is not urgent in a takeover.
func (o *Operators) OpenMore() {
	o.serveDashboard()
	go o.Guarded(o.service.lead)
}

// waitForRoom opens a socket in the data directory. A new name may need room on the disk. If
// the disk is full, waitForRoom tries again every second, while clients are served.
func (o *Operators) waitForRoom(open func() error) {
	err := open()
	if err == nil {
		return
	}
	if !proc.NoSpace(err) {
		o.Fatal(core.ExitError, err)
		return
	}
	o.Log.Warn("disk full: waiting for room to create a socket", "error", err)
	time.AfterFunc(time.Second, func() {
		select {
		case <-o.Ended():
		default:
			o.waitForRoom(open)
		}
	})
}

// RosterChanged tells the service manager about a changed roster.
func (o *Operators) RosterChanged() { o.service.rosterChanged() }

// Stopping tells the service manager and scripts that the cluster is stopping. It is called once.
func (o *Operators) Stopping() { o.service.stop() }

// Say sends messages to the service manager, in order.
func (o *Operators) Say(words ...string) { o.service.say(words...) }

// NoteUsage reads the processor time of the processes, if it is time for it.
func (o *Operators) NoteUsage(now time.Time, pids []int) { o.cpu.note(now, pids) }

const (
	// flushTimeout is how long answers may take to reach their commands when the process exits.
	flushTimeout = 200 * time.Millisecond
	// flushLinger is how long an answer may take to be written after its handler returned.
	flushLinger = 20 * time.Millisecond
)

// Flush lets answers reach their commands before the process exits.
func (o *Operators) Flush() {
	if s := o.adminServer.Load(); s != nil {
		s.flush(flushTimeout)
	}
}
