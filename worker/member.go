package worker

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"runtime/debug"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	"google.golang.org/grpc"
	"google.golang.org/grpc/metadata"

	"github.com/dynast-io/dynast/shared/clienttls"
	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/dashboard"
	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/events"
	"github.com/dynast-io/dynast/shared/keeper"
	"github.com/dynast-io/dynast/shared/logging"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/meter"
	"github.com/dynast-io/dynast/shared/pki"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/store"
	"github.com/dynast-io/dynast/shared/tick"
	"github.com/dynast-io/dynast/shared/wire"
)

// Options is what a member is started with.
type Options struct {
	Config  *config.Config
	Version string
	// NewSupervisor makes the supervisor that the member needs as a leader.
	NewSupervisor member.NewSupervisor
	Logs          *logging.Logs
	// Reload reads the configuration again from where it came from; file is that
	// place, for people.
	Reload func() (cfg *config.Config, file string, err error)
}

// Member is one process of the cluster.
type Member struct {
	cfg       *config.Config // as at the start; config() is what is in force
	opts      Options
	dir       *datadir.Dir
	authority *pki.Authority
	logs      *logging.Logs
	logger    hclog.Logger

	self      proc.Identity
	address   roster.Address
	bootID    string
	clusterID uint64

	// listeners are the sockets that all members share; listener is the
	// own one, for members.
	listeners member.Listeners
	listener  net.Listener

	// startedToLead: by "up", not by a takeover.
	startedToLead bool

	mail    *mailbox
	turn    turn
	core    *core.Core // owned by who has the turn
	started time.Time
	// sawStopped: the leader was stopped when the loop looked last.
	sawStopped bool
	lock       *proc.Lock // cluster.lock; nil until this process leads

	replica     *replica
	writer      *writer
	syncer      *syncer
	applier     *applier
	proposals   *proposals
	upstream    *upstream
	downstream  *downstream
	watches     *watches
	silence     *silence
	space       *space
	supervisor  member.Supervisor
	clients     atomic.Pointer[clientServer] // nil until clients are served
	clientTLS   *clienttls.Reloader          // nil: no TLS
	compaction  *autoCompaction
	comparison  *comparison
	control     *control
	service     *service
	reloading   sync.Mutex // one reload at a time
	live        atomic.Pointer[config.Config]
	adminServer atomic.Pointer[grpc.Server]      // nil until this process leads
	dashboard   atomic.Pointer[dashboard.Server] // nil: not served
	history     *eventHistory
	requests    meter.Requests  // of clients
	fsyncs      meter.Histogram // of the log
	cpu         cpuUsage

	// What other goroutines read of the loop's state.
	leading   atomic.Bool
	opening   atomic.Bool // the copy of a follower, before there is a loop
	epoch     atomic.Uint64
	committed atomic.Uint64
	applied   atomic.Uint64
	keptFrom  atomic.Uint64 // the first index of the log that others may need; 0: not known
	published atomic.Pointer[published]
	deaths    atomic.Pointer[wire.Deaths]
	me        atomic.Pointer[roster.Member]

	// installs counts the snapshots that were received, and what comes in their place.
	installs atomic.Uint64

	leads    chan struct{} // closed when this process becomes leader
	ended    chan struct{} // closed when the process is to end
	endOnce  sync.Once
	exitCode core.ExitCode

	life     context.Context // see lifetime
	lifeOnce sync.Once
}

// published is the current roster with what is made from it once.
type published struct {
	roster   *roster.Roster
	bytes    []byte
	metadata metadata.MD
}

// parts is what the ways of starting a member have found out before it exists.
type parts struct {
	opts      Options
	dir       *datadir.Dir
	authority *pki.Authority
	clusterID uint64
	listeners member.Listeners
	listener  net.Listener
	lock      *proc.Lock
}

func newMember(p parts) (*Member, error) {
	boot, err := proc.BootID()
	if err != nil {
		return nil, err
	}
	address := p.listener.Addr().(*net.TCPAddr).AddrPort()
	cfg := p.opts.Config
	m := &Member{
		cfg: cfg, opts: p.opts, dir: p.dir, authority: p.authority,
		logs: p.opts.Logs, logger: p.opts.Logs.Logger("worker"),
		self: proc.Self(), address: address, bootID: boot, clusterID: p.clusterID,
		listeners: p.listeners, listener: p.listener, lock: p.lock,
		mail: newMailbox(), started: tick.Origin(), ended: make(chan struct{}), leads: make(chan struct{}),
	}
	m.live.Store(cfg)
	if err := m.logs.SetAddress(address.String()); err != nil {
		return nil, err
	}
	m.replica = &replica{dir: p.dir, cfg: cfg, zap: m.logs.Zap("replica"), clusterID: p.clusterID,
		fatal: func(err error) {
			m.storeFailed(err)
			<-time.After(endTime) // or else it ends the process before the reason is written
		}}
	m.space = newSpace(m)
	m.proposals = newProposals(cfg.Replication.QueueRequests, int(cfg.Replication.QueueBytes), m.space.guard)
	m.writer, m.syncer, m.applier = newWriter(m), newSyncer(m), newApplier(m)
	m.upstream, m.downstream, m.watches = newUpstream(m), newDownstream(m), newWatches(m)
	m.silence = newSilence(m)
	m.control, m.service, m.history = &control{m: m}, newService(m), newEventHistory(m)
	m.clientTLS, m.compaction = newClientTLS(m), newAutoCompaction(m)
	m.comparison = newComparison(m)
	m.deaths.Store(&wire.Deaths{})
	m.publish(&roster.Roster{})
	return m, nil
}

// coreConfig translates the operator's configuration.
func (m *Member) coreConfig(slot int) core.Config {
	return core.Config{
		Self: roster.Member{
			ID:   roster.ID{Address: m.address, PID: m.self.PID, StartTime: m.self.StartTime},
			Slot: slot, Version: m.opts.Version,
		},
		Client:            m.cfg.Client.Listen,
		Followers:         m.cfg.Followers,
		MinSync:           m.cfg.Replication.MinSync,
		HeartbeatInterval: m.cfg.Heartbeat.Interval,
		HeartbeatTimeout:  m.cfg.Heartbeat.Timeout,
		Keeper:            keeper.Config{StartTimeout: m.cfg.Spawn.Timeout},
		Rand:              rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}
}

// run starts the goroutines and the loop, and returns the exit code.
func (m *Member) run(slot int, boot core.Boot) core.ExitCode {
	m.core, m.startedToLead = core.New(m.coreConfig(slot)), boot.Lead
	self := m.coreConfig(slot).Self
	m.me.Store(&self)
	if boot.Roster != nil {
		m.logs.SetEpoch(boot.Roster.Epoch)
		m.publish(boot.Roster)
	}
	for _, f := range []func(){m.writer.run, m.syncer.run, m.applier.run, m.housekeeping, m.comparison.run} {
		go m.guarded(f)
	}
	m.compaction.start()
	if boot.Lead {
		m.history.started()
	}
	m.serveMembers()
	m.post(boot)
	m.guarded(m.loop)
	if s := m.adminServer.Load(); s != nil && m.exitCode == core.ExitDone {
		flushAnswers(s)
	}
	m.compaction.stop()
	m.history.rec.Close(eventsPatience)
	if m.exitCode == core.ExitDone && m.leading.Load() {
		m.leaveNoSockets()
	}
	m.logs.Flush(time.Second)
	return m.exitCode
}

// guarded turns a panic into an end with a reason in the log.
func (m *Member) guarded(f func()) {
	defer func() {
		r := recover()
		if r == nil {
			return
		}
		trace := stack()
		if err := store.FromPanic(r, trace); exitCode(err) == core.ExitCorrupt {
			m.storeFailed(err) // whoever happens to read the page finds it
			return
		}
		m.fatal(core.ExitError, fmt.Errorf("broken invariant: %v\n%s", r, trace))
	}()
	debug.SetPanicOnFault(true) // of a database that has become shorter
	f()
}

// flushAnswers lets the commands that were answered hear it before the process
// ends, or they would ask the next leader.
func flushAnswers(s *grpc.Server) {
	done := make(chan struct{})
	go func() { s.GracefulStop(); close(done) }()
	select {
	case <-done:
	case <-time.After(flushTimeout):
	}
}

const flushTimeout = 200 * time.Millisecond

func (m *Member) post(ev core.Event) { m.mail.post(mail{event: ev}) }

// endTime is more than a process takes from the decision to its end.
const endTime = 5 * time.Second

// storeFailed ends the process because of its store. If it is the file that is
// damaged, the next process fetches another.
func (m *Member) storeFailed(err error) { m.fatal(exitCode(err), err) }

func exitCode(err error) core.ExitCode {
	if errors.Is(err, store.ErrCorrupt) {
		return core.ExitCorrupt
	}
	return core.ExitError
}

// fatal ends the process for a reason that it cannot account for.
func (m *Member) fatal(code core.ExitCode, err error) {
	m.end(code, "fatal: "+err.Error())
}

func (m *Member) end(code core.ExitCode, reason string) {
	m.endOnce.Do(func() {
		m.exitCode = code
		if code == core.ExitDone {
			m.logger.Info("ends", "reason", reason)
			if m.leading.Load() {
				m.history.tell(events.Stopped, reason)
			}
		} else {
			m.logger.Error("ends", "exit_code", int(code), "reason", reason)
			m.history.tell(events.Ended, fmt.Sprintf("exit code %d: %s", code, reason))
		}
		close(m.ended)
		m.mail.post(mail{ask: func() {}})
	})
}

func (m *Member) publish(r *roster.Roster) {
	m.published.Store(&published{roster: r, bytes: wire.EncodeRoster(r), metadata: rosterMetadata(r)})
	m.service.rosterChanged()
}

func (m *Member) roster() *roster.Roster { return m.published.Load().roster }
func (m *Member) rosterBytes() []byte    { return m.published.Load().bytes }
func (m *Member) deathsMessage() *wire.Deaths {
	return m.deaths.Load()
}

// selfMember is this member as it introduces itself.
func (m *Member) selfMember() roster.Member {
	self := *m.me.Load()
	self.Slot = m.replica.current().slot.Number
	self.Plugin = m.control.socket()
	if self.ByHand {
		self.Protocol = member.ControlProtocol // nobody shook hands with it
	}
	self.OwesDefrag = m.replica.current().slot.OwesDefrag()
	return self
}

// otherHost says why a process on another host can't be a member.
func (m *Member) otherHost(peer roster.Address) error {
	if m.address.Addr().IsLoopback() {
		return fmt.Errorf("%s is on another host, and this cluster's members are on loopback: %s names a process on this host only. "+
			"Followers share the data directory with their leader; set member.host to a routable address for members on several hosts", peer, m.address.Addr())
	}
	return fmt.Errorf("%s is on another host: followers share the data directory %s with their leader", peer, m.cfg.DataDir)
}

// takeSnapshot asks the applying goroutine for a snapshot.
func (m *Member) takeSnapshot(ctx context.Context) (store.Snapshot, error) {
	type result struct {
		snap store.Snapshot
		err  error
	}
	done := make(chan result, 1)
	m.applier.do(func() {
		snap, err := m.replica.current().store.Snapshot()
		done <- result{snap, err}
	})
	select {
	case r := <-done:
		return r.snap, r.err
	case <-ctx.Done():
		go func() {
			if r := <-done; r.err == nil {
				r.snap.Close()
			}
		}()
		return store.Snapshot{}, ctx.Err()
	case <-m.ended:
		return store.Snapshot{}, context.Canceled
	}
}
