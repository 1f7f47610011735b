package worker

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/signal"
	"slices"
	"strings"
	"syscall"
	"time"

	"google.golang.org/protobuf/proto"

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
	if err := files.Check(opts.Config.Followers); err != nil {
		return member.ExitUsage, err
	}
	activated, err := takeActivation(&opts)
	if err != nil {
		return core.ExitError, err
	}
	cfg := opts.Config
	dir, err := datadir.Open(cfg.DataDir, true)
	if err != nil {
		return core.ExitError, err
	}
	lock, err := replica.LockWithin(dir.ClusterLock(), replica.LockWait)
	if errors.Is(err, proc.ErrLocked) {
		return core.ExitLocked, lockedError(dir)
	}
	if err != nil {
		return core.ExitError, err
	}
	if err := operate.DropReadyFile(os.Getenv(member.ReadyFileEnv)); err != nil {
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
	socket := activated
	if socket == nil {
		if socket, err = listenClients(cfg.Client.Listen); err != nil {
			return core.ExitError, err
		}
	}
	shared := member.Listeners{{Name: member.ClientListener, File: socket}}
	dashboard, noDashboard := listenDashboard(cfg.Dashboard.Listen)
	if dashboard != nil {
		shared = append(shared, member.Listener{Name: member.DashboardListener, File: dashboard})
	}
	listener, err := listenMember(cfg, nil)
	if err != nil {
		return core.ExitError, err
	}
	sockets := member.NewSockets(shared)
	// Followers that are started at once get the sockets of the services too. A socket that
	// cannot be opened is reported when the services start.
	sockets.Open(cfg.Services)
	m, err := newMember(parts{opts: opts, dir: dir, authority: authority, clusterID: clusterID, services: append([]config.Service{}, cfg.Services...),
		sockets: sockets, listener: listener, lock: lock})
	if err != nil {
		return core.ExitError, err
	}
	if noDashboard != nil {
		m.Log.Warn("cannot serve the dashboard until the next start", "error", noDashboard)
	}
	if err := dir.SweepSockets(socketAlive); err != nil {
		return core.ExitError, err
	}
	proc.SetTitle(titleLeader)
	m.handleSignals()
	return m.run(0, core.Boot{Lead: true}), nil
}

// lockedError returns ErrLocked with the name of the running leader.
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
	if err := files.Check(ros.Followers); err != nil {
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

// follow runs a follower, spawned or joined, until it exits.
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

// listenClients opens the one socket for clients. Every member gets a copy, so the socket
// stays open while any member lives.
func listenClients(address string) (*os.File, error) {
	f, err := listenShared(address)
	if err != nil {
		return nil, fmt.Errorf("clients cannot be served: %w", bindError(address, err, "client.listen (--client-listen)"))
	}
	return f, nil
}

// listenDashboard opens the dashboard's socket, which every member gets too. It returns nil if
// the dashboard is off. The leader also starts without a dashboard, so it only logs the error.
func listenDashboard(address string) (*os.File, error) {
	if address == config.Off {
		return nil, nil
	}
	f, err := listenShared(address)
	if err != nil {
		return nil, fmt.Errorf("the dashboard: %w", bindError(address, err, "dashboard.listen (--dashboard-listen)"))
	}
	return f, nil
}

// listenShared opens a listening socket that is passed on from leader to leader.
func listenShared(address string) (*os.File, error) {
	l, err := net.Listen("tcp", address)
	// A process that was just killed releases its sockets slightly later than its locks.
	for deadline := time.Now().Add(replica.LockWait); errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(deadline); {
		time.Sleep(5 * time.Millisecond)
		l, err = net.Listen("tcp", address)
	}
	if err != nil {
		return nil, err
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return nil, errors.Join(err, l.Close())
	}
	// The duplicate keeps the socket open. No process accepts on it until this member leads.
	return f, l.Close()
}

// bindError says why listening on an address failed, and which setting to change.
func bindError(address string, err error, setting string) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		holder := "another process"
		if pid, comm, ok := proc.WhoListens(address); ok {
			holder = fmt.Sprintf("%s (pid %d)", comm, pid)
		}
		return fmt.Errorf("%s is in use by %s: stop it, or set %s to another address", address, holder, setting)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s is not an address of this host: set %s to an address of this host", address, setting)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("this user may not listen on %s (ports below 1024 need root): set %s to another address", address, setting)
	}
	return fmt.Errorf("listen on %s (%s): %w", address, setting, err)
}

// listenMember opens the member address on the first free port, in the order in which members
// get their ports.
func listenMember(cfg *config.Config, used []uint16) (net.Listener, error) {
	rng := roster.PortRange{First: uint16(cfg.Member.Ports.First), Last: uint16(cfg.Member.Ports.Last)}
	host, err := netip.ParseAddr(cfg.Member.Host)
	if err != nil {
		return nil, fmt.Errorf("member.host %q: %w", cfg.Member.Host, err)
	}
	var last error
	for _, port := range rng.Candidates(used) {
		address := netip.AddrPortFrom(host, port).String()
		l, err := net.Listen("tcp", address)
		if err == nil {
			return l, nil
		}
		if !errors.Is(err, syscall.EADDRINUSE) {
			return nil, fmt.Errorf("members cannot be served: %w", bindError(address, err, "member.host (--member-host)"))
		}
		last = bindError(address, err, "member.ports (--member-ports)")
	}
	if last == nil {
		return nil, fmt.Errorf("members use every port in %d-%d: set member.ports (--member-ports) to a larger range", rng.First, rng.Last)
	}
	return nil, fmt.Errorf("no free port for a member in %d-%d; the last one: %w", rng.First, rng.Last, last)
}

// handleSignals handles the signals of this process. SIGTERM and SIGINT stop the cluster in
// order, and a second one ends the process at once. SIGHUP reloads the configuration, so a
// closed terminal ends nothing. SIGPIPE is ignored: writing to a closed pipe returns an error.
func (m *Member) handleSignals() {
	ignored := make(chan os.Signal, 1)
	signal.Notify(ignored, syscall.SIGPIPE)
	hangups := make(chan os.Signal, 1)
	signal.Notify(hangups, syscall.SIGHUP)
	signal.Ignore(syscall.SIGTTOU)
	ends := make(chan os.Signal, 4)
	signal.Notify(ends, syscall.SIGTERM, syscall.SIGINT)
	go func() {
		for {
			select {
			case <-ignored:
			case <-hangups:
				if m.Leading.Load() {
					go m.Guarded(m.reloader.reloadForSignal)
				}
			case s := <-ends:
				m.Log.Info("received a signal", "signal", s.String())
				m.endIfOpening("signal: " + s.String())
				m.stop("signal: " + s.String())
			case <-m.Ended():
				return
			}
		}
	}()
}

// stop stops the cluster if this member leads, and otherwise this member.
func (m *Member) stop(reason string) {
	if m.Leading.Load() {
		m.processes.programs.stop(reason, false)
		return
	}
	m.Post(core.StopRequested{Reason: reason})
}

// endIfOpening ends a follower that is still opening its copy. It has no loop yet that could
// end it in order. Nothing is lost: the copy is complete at any moment, or is fetched again.
func (m *Member) endIfOpening(reason string) {
	if !m.identity.opening.Load() {
		return
	}
	m.Log.Info("exiting", "reason", reason+", while the copy was being opened")
	m.Logs.Flush(time.Second)
	os.Exit(int(core.ExitDone))
}

// socketAlive reports whether a process listens on a Unix socket.
func socketAlive(path string) bool {
	c, err := net.DialTimeout("unix", path, 100*time.Millisecond)
	if err != nil {
		return false
	}
	_ = c.Close()
	return true
}

// JoinArgs are the arguments of a follower that an operator starts.
type JoinArgs struct {
	Leader roster.Address
	// Address is this member's address; the zero value means the next free port.
	Address roster.Address
}

// Join runs this process as a follower of the leader that args names.
func Join(opts Options, args JoinArgs) (core.ExitCode, error) {
	dir, err := datadir.Open(opts.Config.DataDir, false)
	if err != nil {
		if errors.Is(err, os.ErrNotExist) {
			err = fmt.Errorf("%w; a follower shares the data directory with its leader: give the leader's with --data-dir", err)
		}
		return core.ExitUnreachable, err
	}
	c, err := dir.DialHandoff(context.Background())
	if err != nil {
		return core.ExitUnreachable, fmt.Errorf("no leader serves the data directory %s ('dynast up' starts one): %w", dir.Path(), err)
	}
	defer c.Close()
	resp, _, err := requestHandoff(c, &wire.HandoffRequest{})
	if err != nil {
		return core.ExitUnreachable, err
	}
	ros, err := wire.DecodeRoster(resp.Roster)
	if err != nil {
		return core.ExitError, err
	}
	if ros.Leader != args.Leader {
		return core.ExitUnreachable, fmt.Errorf("%s does not lead the cluster in %s: its leader is %s", args.Leader, dir.Path(), ros.Leader)
	}
	if opts.Config, err = joinConfig(opts.Config, resp.Config); err != nil {
		return core.ExitError, err
	}
	if err := os.Setenv(member.SourceEnv, resp.Source); err != nil {
		return core.ExitError, err
	}
	if err := files.Check(int(files.Followers(ros)) + 1); err != nil {
		return member.ExitUsage, err
	}
	listener, err := joinListener(opts.Config, ros, args.Address)
	if err != nil {
		return core.ExitError, err
	}
	boot, err := proc.BootID()
	if err != nil {
		return core.ExitError, err
	}
	self := proc.Self()
	me := roster.Member{ID: roster.ID{Address: listener.Addr().(*net.TCPAddr).AddrPort(), PID: self.PID, StartTime: self.StartTime}, Version: opts.Version}
	resp, files, err := requestHandoff(c, &wire.HandoffRequest{Member: wire.FromMember(me), BootId: boot})
	if err != nil {
		return core.ExitUnreachable, err
	}
	names := resp.Listeners
	if len(files) < len(names) {
		return core.ExitError, fmt.Errorf("join: the leader passed on %d descriptors for %q", len(files), names)
	}
	shared, err := member.NameListeners(names, files[:len(names)])
	if err != nil {
		return core.ExitError, fmt.Errorf("join: %w", err)
	}
	if ros, err = wire.DecodeRoster(resp.Roster); err != nil {
		return core.ExitError, err
	}
	if err := setSocketDir(dir); err != nil {
		return core.ExitError, err
	}
	return follow(opts, ros, int(resp.Slot), shared, listener, true)
}

// joinConfig returns the leader's configuration, so that this follower would lead in the same
// way. The member host and the log settings stay this process's own.
func joinConfig(own *config.Config, leaders []byte) (*config.Config, error) {
	cfg, err := config.Decode(leaders)
	if err != nil {
		return nil, fmt.Errorf("join: the leader's configuration: %w", err)
	}
	cfg.Member.Host, cfg.Log = own.Member.Host, own.Log
	return cfg, nil
}

func joinListener(cfg *config.Config, ros *roster.Roster, want roster.Address) (net.Listener, error) {
	if want.IsValid() {
		l, err := net.Listen("tcp", want.String())
		if err != nil {
			return nil, fmt.Errorf("join: %w", bindError(want.String(), err, "--address"))
		}
		return l, nil
	}
	var used []uint16
	for _, m := range ros.Members {
		used = append(used, m.Address.Port())
	}
	return listenMember(cfg, used)
}

func requestHandoff(c *net.UnixConn, req *wire.HandoffRequest) (*wire.HandoffResponse, []*os.File, error) {
	_ = c.SetDeadline(time.Now().Add(operate.HandoffTimeout))
	b, err := proto.Marshal(req)
	if err != nil {
		return nil, nil, err
	}
	if err := proc.SendFiles(c, b); err != nil {
		return nil, nil, fmt.Errorf("join: %w", err)
	}
	b, files, err := proc.ReceiveFiles(c, operate.HandoffMax)
	if err != nil {
		return nil, nil, fmt.Errorf("join: %w", err)
	}
	var resp wire.HandoffResponse
	if err := proto.Unmarshal(b, &resp); err != nil {
		return nil, nil, fmt.Errorf("join: %w", err)
	}
	if resp.Error != "" {
		return nil, nil, fmt.Errorf("join: refused: %s", strings.TrimSpace(resp.Error))
	}
	return &resp, files, nil
}
