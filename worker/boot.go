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
	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/datadir"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/pki"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/wire"
)

// ErrLocked says that another leader owns the data directory.
var ErrLocked = errors.New("another leader owns the data directory")

// Up runs this process as the leader, until the end.
func Up(opts Options) (core.ExitCode, error) {
	activated, err := takeActivation(&opts)
	if err != nil {
		return core.ExitError, err
	}
	cfg := opts.Config
	dir, err := datadir.Open(cfg.DataDir, true)
	if err != nil {
		return core.ExitError, err
	}
	lock, err := lockWithin(dir.ClusterLock(), lockWait)
	if errors.Is(err, proc.ErrLocked) {
		return core.ExitLocked, lockedError(dir)
	}
	if err != nil {
		return core.ExitError, err
	}
	if err := dropReadyFile(os.Getenv(member.ReadyFileEnv)); err != nil {
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
	if err := checkClientTLS(cfg); err != nil {
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
	m, err := newMember(parts{opts: opts, dir: dir, authority: authority, clusterID: clusterID,
		listeners: shared, listener: listener, lock: lock})
	if err != nil {
		return core.ExitError, err
	}
	if noDashboard != nil {
		m.logger.Warn("there is no dashboard until the next start", "error", noDashboard)
	}
	if err := dir.SweepSockets(socketAlive); err != nil {
		return core.ExitError, err
	}
	proc.SetTitle(titleLeader)
	m.handleSignals()
	return m.run(0, core.Boot{Lead: true}), nil
}

// lockedError names the leader that is there.
func lockedError(dir *datadir.Dir) error {
	s, err := dir.ReadSuccession()
	if err != nil {
		return fmt.Errorf("%w: %s is locked by a process that has not named itself yet", ErrLocked, dir.ClusterLock())
	}
	return fmt.Errorf("%w: %s, pid %d, clients at %s (data directory %s)", ErrLocked, s.Leader.Address, s.Leader.PID, s.Client, dir.Path())
}

// SpawnedArgs are the arguments of a process that a leader started.
type SpawnedArgs struct {
	Address roster.Address
	Slot    int
}

// Spawned runs this process as a follower that its leader started. The exit
// codes before the handshake tell the leader why.
func Spawned(opts Options, args SpawnedArgs) (core.ExitCode, error) {
	raw, err := base64.StdEncoding.DecodeString(os.Getenv(member.RosterEnv))
	if err != nil {
		return core.ExitError, fmt.Errorf("%s: %w", member.RosterEnv, err)
	}
	ros, err := wire.DecodeRoster(raw)
	if err != nil {
		return core.ExitError, fmt.Errorf("%s: %w", member.RosterEnv, err)
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

// follow runs a follower, spawned or joined, until the end.
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
	m, err := newMember(parts{opts: opts, dir: dir, authority: authority, clusterID: clusterID, listeners: shared, listener: listener})
	if err != nil {
		return core.ExitError, err
	}
	proc.SetTitle(titleFollower)
	m.handleSignals()
	self := m.coreConfig(slot).Self
	self.ByHand = byHand
	m.me.Store(&self)
	m.opening.Store(true)
	err = m.replica.claim(dir.Slot(slot), asCopy)
	if errors.Is(err, proc.ErrLocked) {
		return member.ExitSlotBusy, err
	}
	// The leader hears of this process before the copy is open: that takes the
	// longer the more there is in it, and the slot is this process's already.
	if err == nil {
		if byHand {
			m.control.serveJoined()
		} else {
			m.control.serve()
		}
		err = m.replica.openClaimed(m.self, m.address.String(), asCopy)
	}
	if proc.NoSpace(err) {
		return member.ExitDisk, err
	}
	if err != nil {
		return core.ExitCorrupt, err
	}
	m.opening.Store(false)
	last := m.replica.last()
	return m.run(slot, core.Boot{Roster: ros, HasCopy: !last.IsZero(), Last: last}), nil
}

// listenClients opens the one socket for clients. It is passed to every
// member and never closed while one of them lives.
func listenClients(address string) (*os.File, error) {
	f, err := listenShared(address)
	if err != nil {
		return nil, fmt.Errorf("clients cannot be served: %w", bindError(address, err, "client.listen (--client-listen)"))
	}
	return f, nil
}

// listenShared opens a listening socket that is passed on from member to member.
func listenShared(address string) (*os.File, error) {
	l, err := net.Listen("tcp", address)
	// Processes that were just killed let go of their sockets a moment later
	// than of their locks.
	for deadline := time.Now().Add(lockWait); errors.Is(err, syscall.EADDRINUSE) && time.Now().Before(deadline); {
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
	// The copy keeps the socket open. Nothing accepts on it before this member leads.
	return f, l.Close()
}

// bindError says why an address cannot be listened on, and what to change.
func bindError(address string, err error, setting string) error {
	switch {
	case errors.Is(err, syscall.EADDRINUSE):
		holder := "another process"
		if pid, comm, ok := proc.WhoListens(address); ok {
			holder = fmt.Sprintf("%s (pid %d)", comm, pid)
		}
		return fmt.Errorf("%s is taken by %s: stop it, or set %s to another address", address, holder, setting)
	case errors.Is(err, syscall.EADDRNOTAVAIL):
		return fmt.Errorf("%s is no address of this host: set %s to one", address, setting)
	case errors.Is(err, syscall.EACCES):
		return fmt.Errorf("%s is not for this user to listen on (ports below 1024 are root's): set %s to another address", address, setting)
	}
	return fmt.Errorf("listen on %s (%s): %w", address, setting, err)
}

// listenMember opens the member address: the first port that is free, in the
// order in which members get theirs.
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
		return nil, fmt.Errorf("every port of %d-%d is a member's: set member.ports (--member-ports) to more", rng.First, rng.Last)
	}
	return nil, fmt.Errorf("no port of %d-%d is free for a member; the last one: %w", rng.First, rng.Last, last)
}

// handleSignals: an interrupt or a termination ends in order, the second one
// at once; a hangup reads the configuration again, and a closed terminal so ends nothing;
// writing to a closed pipe is an error, not a death.
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
				if m.leading.Load() {
					go m.guarded(m.reloadForSignal)
				}
			case s := <-ends:
				m.logger.Info("signal", "signal", s.String())
				m.endIfOpening("signal: " + s.String())
				m.post(core.StopRequested{Reason: "signal: " + s.String()})
			case <-m.ended:
				return
			}
		}
	}()
}

// endIfOpening ends a follower that opens its copy and has no loop yet that
// could end it in order. There is nothing to lose: what a follower opens is whole at any
// moment, or is fetched anew.
func (m *Member) endIfOpening(reason string) {
	if !m.opening.Load() {
		return
	}
	m.logger.Info("ends", "reason", reason+", while the copy was being opened")
	m.logs.Flush(time.Second)
	os.Exit(int(core.ExitDone))
}

// socketAlive reports whether somebody listens on a Unix socket.
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
	// Address is the own address; zero: the next free one.
	Address roster.Address
}

// Join runs this process as a follower of the leader that it is told.
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

// joinConfig is the leader's configuration, so that this follower would lead
// in the same way; what concerns only this process stays its own.
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
	_ = c.SetDeadline(time.Now().Add(handoffTimeout))
	b, err := proto.Marshal(req)
	if err != nil {
		return nil, nil, err
	}
	if err := proc.SendFiles(c, b); err != nil {
		return nil, nil, fmt.Errorf("join: %w", err)
	}
	b, files, err := proc.ReceiveFiles(c, handoffMax)
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
