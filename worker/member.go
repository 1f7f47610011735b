package worker

import (
	"context"
	"fmt"
	"math/rand/v2"
	"net"
	"time"

	"github.com/hashicorp/go-hclog"
	"github.com/prometheus/client_golang/prometheus"

	"github.com/dynast-io/dynast/shared/client/api"
	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/pki"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/observe/logging"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/keeper"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/files"
	"github.com/dynast-io/dynast/worker/link"
	"github.com/dynast-io/dynast/worker/operate"
	"github.com/dynast-io/dynast/worker/replica"
	"github.com/dynast-io/dynast/worker/serve"
	"github.com/dynast-io/dynast/worker/state"
)

// Options are the settings that a member is started with.
type Options struct {
	Config  *config.Config
	Version string
	// NewSupervisor creates the supervisor that the member needs as a leader.
	NewSupervisor member.NewSupervisor
	// NewServices creates the supervisor of the user's services.
	NewServices member.NewServices
	// Engine returns the service that is the store of this host in a cluster of several hosts.
	Engine func(*config.Config, datadir.Host) config.Service
	// Again is true in a leader that has executed its program again, and Sockets are those that it
	// had open.
	Again   bool
	Sockets member.Listeners
	// Join makes this host one of a cluster, as the configuration says. It is called before the
	// first leader of the host begins, and does nothing if the host has joined already.
	Join func(context.Context, *config.Config, *datadir.Dir, hclog.Logger) error
	Logs *logging.Logs
	// ConfiguredBy says where the configuration came from, for the log. It may be empty.
	ConfiguredBy string
	// Reload reads the configuration again from where it came from. file names that place
	// in messages.
	Reload func() (cfg *config.Config, file string, err error)
}

// Member is one process of the cluster. It holds the loop and connects the parts.
type Member struct {
	*state.Shared
	loop      *loop
	identity  identity
	history   *eventHistory
	takeover  *takeover
	processes *processes
	replica   *replica.Replica
	links     *link.Links
	clients   *serve.Clients
	operators *operate.Operators
	control   *operate.Control
	reloader  *reloader
	hosts     *hosts
	files     *files.Budget
	sockets   *member.Sockets
	listener  net.Listener // for the other members
}

// parts holds what each way of starting a member finds out before the Member exists.
type parts struct {
	opts      Options
	dir       *datadir.Dir
	authority *pki.Authority
	clusterID uint64
	// services are those of the configuration file, or nil in a follower.
	services []config.Service
	// sockets are the sockets that all members share. listener is this member's own, for
	// the other members.
	sockets  *member.Sockets
	listener net.Listener
	lock     *proc.Lock
}

func newMember(p parts) (*Member, error) {
	boot, err := proc.BootID()
	if err != nil {
		return nil, err
	}
	m := &Member{listener: p.listener, sockets: p.sockets}
	self := state.Self{Process: proc.Self(), Address: p.listener.Addr().(*net.TCPAddr).AddrPort(), BootID: boot, ClusterID: p.clusterID, Version: p.opts.Version}
	if err := p.opts.Logs.SetAddress(self.Address.String()); err != nil {
		return nil, err
	}
	st, settings, fate := state.New(), state.NewSettings(p.opts.Config), state.NewFate(m.ending)
	m.loop = newLoop(fate)
	m.loop.roster, m.loop.do = m.publish, m.do
	m.history = newEventHistory(self, st, settings, p.dir)
	m.Shared = &state.Shared{Self: self, State: st, Fate: fate, Loop: m.loop, Settings: settings, Dir: p.dir,
		Logs: p.opts.Logs, Log: p.opts.Logs.Logger("worker"), Tell: m.history.tell}
	if m.replica, err = replica.New(m.Shared); err != nil {
		return nil, err
	}
	if m.files, err = files.New(m.Shared); err != nil {
		return nil, err
	}
	m.takeover = &takeover{Shared: m.Shared, replica: m.replica, lock: p.lock}
	m.processes = newProcesses(m.Shared, func() (member.Supervisor, error) {
		return p.opts.NewSupervisor(member.Host{
			Config: settings.Now, Dir: p.dir, Logger: m.Logs.Logger("supervisor"), Roster: m.Roster,
			Sockets: p.sockets, Post: m.Post, Version: self.Version,
		})
	})
	m.processes.programs = &programs{Shared: m.Shared, make: p.opts.NewServices, engine: p.opts.Engine, sockets: p.sockets, files: m.files, record: m.history.rec.Record, configured: p.services}
	m.wire(p)
	p.sockets.OnChange(m.links.TellConfig)
	return m, nil
}

// wire creates the parts and gives each part what it needs from the others.
func (m *Member) wire(p parts) {
	m.reloader = &reloader{Shared: m.Shared, read: p.opts.Reload, scale: m.files.Scale, services: m.processes.programs}
	m.control = operate.NewControl(m.Shared, m.describe, m.endIfOpening)
	m.links = link.New(link.Config{Shared: m.Shared, Replica: m.replica, Authority: p.authority, Describe: m.describe, MaxStrangers: m.files.Shares.Strangers,
		Sockets: p.sockets, Configure: m.configureAs, Rebuilt: m.history.rebuilds})
	m.replica.Connect(m.links)
	m.history.lastHeard = m.links.LastHeard
	m.clients = serve.New(serve.Config{Shared: m.Shared, Replica: m.replica, Proposer: m.replica.Proposals,
		Socket: p.sockets.File(member.ClientListener), Gate: m.files.Serve, Metrics: func() prometheus.Gatherer { return m.operators.Metrics() }})
	m.hosts = &hosts{Shared: m.Shared, replica: m.replica, clients: m.clients, programs: m.processes.programs, sockets: p.sockets}
	m.operators = operate.New(operate.Config{Hosts: m.hosts.do, Shared: m.Shared, Replica: m.replica, Clients: m.clients, Sockets: p.sockets, Files: m.files, Shares: m.files.Shares,
		Recorder: m.history.rec, View: m.loop.view, Describe: m.describe, Reload: m.reloader.reload, Services: m.processes.programs.get, Stop: m.processes.programs.stop})
	m.reloader.replica, m.reloader.clients, m.reloader.links, m.reloader.say = m.replica, m.clients, m.links, m.operators.Say
}

// warm prepares this follower for the first requests of clients.
func (m *Member) warm() {
	if err := api.Warm(); err != nil {
		m.Log.Warn("a takeover by this member may take a millisecond longer", "error", err)
	}
}

// configureAs applies what the leader sends.
func (m *Member) configureAs(leaders []byte, sockets []string) error {
	m.processes.programs.share(sockets)
	return m.reloader.configureAs(leaders, m.identity.byHand())
}

// coreConfig translates the operator's configuration for the core.
func (m *Member) coreConfig(slot int) core.Config {
	cfg := m.Settings.Start
	return core.Config{
		Self:              roster.Member{ID: m.Self.ID(), Slot: slot, Version: m.Self.Version},
		Client:            cfg.Client.Listen,
		Followers:         cfg.Followers,
		MinSync:           cfg.Replication.MinSync,
		HeartbeatInterval: cfg.Heartbeat.Interval,
		HeartbeatTimeout:  cfg.Heartbeat.Timeout,
		Keeper:            keeper.Config{StartTimeout: cfg.Spawn.Timeout, AtOnce: m.replica.Memory.StartsAtOnce()},
		Rand:              rand.New(rand.NewPCG(rand.Uint64(), rand.Uint64())),
	}
}

// run starts the goroutines, runs the loop, and returns the exit code.
func (m *Member) run(slot int, boot core.Boot) core.ExitCode {
	cfg := m.coreConfig(slot)
	m.loop.core = core.New(cfg)
	if boot.Lead {
		m.identity.set(cfg.Self)
	}
	if boot.Roster != nil {
		m.Logs.SetEpoch(boot.Roster.Epoch)
		m.State.Publish(boot.Roster)
	}
	m.replica.Start()
	go m.Guarded(m.housekeeping)
	m.clients.Start()
	if boot.Lead {
		m.history.started()
	} else {
		m.Note(replica.PreferForOOM(true))
		go m.Guarded(m.warm)
	}
	m.links.Serve(m.listener)
	m.Post(boot)
	m.Guarded(m.loop.run)
	code := m.Code()
	m.processes.programs.release()
	if code == core.ExitDone {
		m.operators.Flush()
	}
	m.clients.Close()
	m.history.rec.Close(eventsTimeout)
	if code == core.ExitDone && m.Leading.Load() {
		m.leaveNoSockets()
	}
	if code == core.ExitDone && m.Leading.Load() && m.processes.programs.again.Load() {
		err := m.beginAgain()
		m.Log.Error("cannot begin again; 'dynast up' goes on with it", "error", err)
		code = core.ExitError
	}
	m.Logs.Flush(time.Second)
	return code
}

// publish makes r the current roster, unless it is already.
func (m *Member) publish(r *roster.Roster) {
	if r == m.Roster() {
		return
	}
	if r.Epoch != m.Roster().Epoch {
		m.Logs.SetEpoch(r.Epoch)
	}
	m.State.Publish(r)
	m.operators.RosterChanged()
	if !m.Leading.Load() {
		m.links.KeepWarm(r)
		m.replica.RosterChanged(r)
	}
}

// ending logs and records why the process exits.
func (m *Member) ending(code core.ExitCode, reason string) {
	if code != core.ExitDone {
		m.Log.Error("exiting", "exit_code", int(code), "reason", reason)
		m.history.tell(events.Ended, fmt.Sprintf("exit code %d: %s", code, reason))
		return
	}
	m.Log.Info("exiting", "reason", reason)
	if m.Leading.Load() {
		m.history.tell(events.Stopped, reason)
	}
}
