package worker

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"os"
	"slices"

	"github.com/dynast-io/dynast/shared/config"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/pki"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/files"
	"github.com/dynast-io/dynast/worker/operate"
	"github.com/dynast-io/dynast/worker/replica"
	"github.com/dynast-io/dynast/worker/serve"
)

// ErrLocked says that another leader owns the data directory.
var ErrLocked = errors.New("another leader owns the data directory")

// Up runs this process as the leader until it exits.
func Up(opts Options) (core.ExitCode, error) {
	if err := files.Check(opts.Config.Followers, opts.Config.Services); err != nil {
		return member.ExitUsage, err
	}
	activated, err := opts.Sockets.File(member.ClientListener), error(nil)
	if !opts.Again {
		activated, err = takeActivation(&opts)
	}
	if err != nil {
		return core.ExitError, err
	}
	cfg := opts.Config
	dir, err := datadir.Open(cfg.DataDir, true)
	if err != nil {
		return core.ExitError, err
	}
	lock, err := replica.LockWithin(dir.ClusterLock(), proc.ReleaseTime)
	if errors.Is(err, proc.ErrLocked) {
		return core.ExitLocked, lockedError(dir)
	}
	if err != nil {
		return core.ExitError, err
	}
	opts.Logs.Logger("worker").Info("starting", "version", opts.Version, "config", opts.ConfiguredBy, "data_dir", cfg.DataDir)
	if err := operate.DropReadyFile(os.Getenv(member.ReadyFileEnv)); err != nil {
		return core.ExitError, err
	}
	if err := takeBack(dir); err != nil {
		return core.ExitError, err
	}
	clusterID, err := dir.MakeClusterID()
	if err != nil {
		return core.ExitError, err
	}
	authority, err := pki.LoadOrCreate(dir.PKI(), fmt.Sprintf("dynast %x", clusterID))
	if err != nil {
		return core.ExitError, err
	}
	if err := serve.CheckTLS(cfg); err != nil {
		return core.ExitError, err
	}
	if err := opts.Join(context.Background(), cfg, dir, opts.Logs.Logger("hosts")); err != nil {
		return core.ExitError, err
	}
	shared, err := clientListener(opts, dir, activated)
	if err != nil {
		return core.ExitError, err
	}
	var dashboardErr error
	if opts.Again {
		shared = opts.Sockets
	} else {
		var dashboard *os.File
		if dashboard, dashboardErr = listenDashboard(cfg.Dashboard.Listen); dashboard != nil {
			shared = append(shared, member.Listener{Name: member.DashboardListener, File: dashboard})
		}
	}
	listener, err := listenMember(cfg, nil)
	if err != nil {
		return core.ExitError, err
	}
	sockets := member.NewSockets(shared)
	// Followers that are started at once get the sockets of the services too. A socket that
	// cannot be opened is reported when the services start.
	sockets.Open(cfg.Services, dir.Services(), proc.ReleaseTime)
	services := append([]config.Service{}, cfg.Services...)
	if opts.Again {
		services = nil // those of the leader before go on
	}
	m, err := newMember(parts{opts: opts, dir: dir, authority: authority, clusterID: clusterID, services: services,
		sockets: sockets, listener: listener, lock: lock})
	if err != nil {
		return core.ExitError, err
	}
	if dashboardErr != nil {
		m.Log.Warn("cannot serve the dashboard until the next start", "error", dashboardErr)
	}
	if err := dir.SweepSockets(socketAlive); err != nil {
		return core.ExitError, err
	}
	proc.SetTitle(titleLeader)
	m.handleSignals()
	return m.run(0, core.Boot{Lead: true}), nil
}

// clientListener returns the one socket for clients. An engine that outlived all members has it open
// and serves clients on it; then it is taken from the engine.
func clientListener(opts Options, dir *datadir.Dir, activated *os.File) (member.Listeners, error) {
	if activated != nil {
		return member.Listeners{{Name: member.ClientListener, File: activated}}, nil
	}
	if host, err := dir.ReadHost(); err == nil {
		sockets := member.NewSockets(nil)
		errs := sockets.Open([]config.Service{opts.Engine(opts.Config, host)}, dir.Services(), proc.ReleaseTime)
		if len(errs) > 0 {
			return nil, errors.Join(errs...)
		}
		return sockets.All(), nil
	}
	socket, err := listenClients(opts.Config.Client.Listen)
	if err != nil {
		return nil, err
	}
	return member.Listeners{{Name: member.ClientListener, File: socket}}, nil
}

// lockedError returns ErrLocked with the address, the pid and the data directory of the
// running leader.
func lockedError(dir *datadir.Dir) error {
	s, err := dir.ReadSuccession()
	if err != nil {
		return fmt.Errorf("%w: a process holds %s, but succession.json does not name it yet", ErrLocked, dir.ClusterLock())
	}
	return fmt.Errorf("%w: %s, pid %d, clients at %s (data directory %s)", ErrLocked, s.Leader.Address, s.Leader.PID, s.Client, dir.Path())
}

// SpawnedArgs are the arguments of a process that a leader started.
type SpawnedArgs struct {
	Address roster.Address
	Slot    int
}

// Spawned runs this process as a follower that its leader started. If it exits before the
// handshake, its exit code tells the leader why.
func Spawned(opts Options, args SpawnedArgs) (core.ExitCode, error) {
	raw, err := base64.StdEncoding.DecodeString(os.Getenv(member.RosterEnv))
	if err != nil {
		return core.ExitError, fmt.Errorf("%s: %w", member.RosterEnv, err)
	}
	ros, err := wire.DecodeRoster(raw)
	if err != nil {
		return core.ExitError, fmt.Errorf("%s: %w", member.RosterEnv, err)
	}
	if err := files.Check(ros.Followers, opts.Config.Services); err != nil {
		return member.ExitUsage, err
	}
	inherited, err := member.Inherited()
	if err != nil {
		return core.ExitError, err
	}
	own := inherited.File(member.OwnListener)
	if own == nil {
		return core.ExitError, fmt.Errorf("%s has no %q", member.ListenersEnv, member.OwnListener)
	}
	listener, err := net.FileListener(own)
	if err != nil {
		return core.ExitError, fmt.Errorf("inherited listener of %s: %w", args.Address, err)
	}
	_ = own.Close()
	shared := slices.DeleteFunc(inherited, func(l member.Listener) bool { return l.Name == member.OwnListener })
	return follow(opts, ros, args.Slot, shared, listener, false)
}

// follow runs a follower until it exits. byHand tells whether an operator started it with
// "dynast join"; otherwise its leader started it.
func follow(opts Options, ros *roster.Roster, slot int, shared member.Listeners, listener net.Listener, byHand bool) (core.ExitCode, error) {
	dir, err := datadir.Open(opts.Config.DataDir, false)
	if err != nil {
		return core.ExitError, err
	}
	authority, err := pki.Load(dir.PKI())
	if err != nil {
		return core.ExitError, err
	}
	clusterID, err := dir.ClusterID()
	if err != nil {
		return core.ExitError, err
	}
	if shared.File(member.ClientListener) == nil {
		return core.ExitError, errors.New("the leader passed on no listening socket for clients")
	}
	m, err := newMember(parts{opts: opts, dir: dir, authority: authority, clusterID: clusterID, sockets: member.NewSockets(shared), listener: listener})
	if proc.NoSpace(err) {
		return member.ExitDisk, err
	}
	if err != nil {
		return core.ExitError, err
	}
	proc.SetTitle(titleFollower)
	m.handleSignals()
	self := m.coreConfig(slot).Self
	self.ByHand = byHand
	m.identity.set(self)
	m.identity.opening.Store(true)
	err = m.replica.Claim(dir.Slot(slot))
	if errors.Is(err, proc.ErrLocked) {
		return member.ExitSlotBusy, err
	}
	// The leader learns about this process before the copy is open. Opening takes longer the
	// larger the copy is, and this process already owns the slot.
	if err == nil {
		if byHand {
			m.control.ServeJoined()
		} else {
			m.control.Serve()
		}
		err = m.replica.OpenClaimed()
	}
	if proc.NoSpace(err) {
		return member.ExitDisk, err
	}
	if err != nil {
		return core.ExitCorrupt, err
	}
	m.identity.opening.Store(false)
	last := m.replica.Last()
	return m.run(slot, core.Boot{Roster: ros, HasCopy: !last.IsZero(), Last: last}), nil
}
