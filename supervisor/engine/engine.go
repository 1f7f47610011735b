package engine

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"os/signal"
	"path/filepath"
	"sync"
	"sync/atomic"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/hashicorp/go-hclog"
	"go.etcd.io/etcd/client/pkg/v3/transport"
	"go.etcd.io/etcd/client/pkg/v3/types"
	"go.etcd.io/etcd/pkg/v3/featuregate"
	"go.etcd.io/etcd/server/v3/config"
	"go.etcd.io/etcd/server/v3/embed"
	"go.etcd.io/etcd/server/v3/etcdserver"
	"go.etcd.io/etcd/server/v3/features"
	"golang.org/x/sys/unix"

	"github.com/dynast-io/dynast/shared/client/gate"
	"github.com/dynast-io/dynast/shared/host/crash"
	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/host/systemd"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/member/pki"
	"github.com/dynast-io/dynast/shared/observe/logging"
)

// The names of the sockets that an engine gets from its leader.
const (
	SocketClients = member.ClientListener
	SocketPeers   = "peers"
)

// Engine is a running etcd server.
type Engine struct {
	dir       *datadir.Dir
	host      datadir.Host
	settings  Settings
	version   string
	log       hclog.Logger
	logs      *logging.Logs
	authority *pki.Authority
	tokens    *hosts.Tokens
	server    *etcdserver.EtcdServer
	others    *others
	started   time.Time
	removed   atomic.Bool
	served    atomic.Bool // clients are served, or were by an earlier process
	admitting sync.Mutex
	gate      atomic.Pointer[gate.Gate] // of the clients; nil until they are served
	// leaderSeen is when this engine last knew a leader of the hosts, in nanoseconds since 1970.
	leaderSeen atomic.Int64
}

// Run runs the engine of a data directory until it is told to stop. It returns nil if it was told
// to stop, or if the other hosts have removed this one.
func Run(dataDir, version string) error {
	settings, err := settingsFromEnv()
	if err != nil {
		return err
	}
	// etcd would send what it tells the other hosts through the user's web proxy.
	for _, name := range []string{"HTTP_PROXY", "http_proxy", "HTTPS_PROXY", "https_proxy"} {
		if err := os.Unsetenv(name); err != nil {
			return fmt.Errorf("engine: %w", err)
		}
	}
	logs, err := logging.New(logging.Options{Level: settings.LogLevel, Format: settings.LogFormat, Stderr: os.Stderr})
	if err != nil {
		return err
	}
	defer logs.Flush(time.Second)
	dir, err := datadir.Open(dataDir, false)
	if err != nil {
		return err
	}
	host, err := dir.ReadHost()
	if err != nil {
		return err
	}
	if host.Halted {
		return errors.New("engine: the leader of this host is changing its mode; the engine must not run meanwhile")
	}
	e := &Engine{dir: dir, host: host, settings: settings, version: version, log: logs.Logger("engine"), logs: logs,
		tokens: hosts.OpenTokens(dir.Hosts()), started: time.Now()}
	e.served.Store(host.Served)
	if host.Recover {
		if err := completeExchange(dir.HostsPKI()); err != nil {
			return fmt.Errorf("engine: the authority of the new cluster: %w", err)
		}
	}
	if e.authority, err = pki.Load(dir.HostsPKI()); err != nil {
		return err
	}
	e.others = newOthers(e)
	if err := logs.SetAddress(host.Address); err != nil {
		return err
	}
	proc.SetTitle("engine")
	sockets, err := listeners()
	if err != nil {
		return err
	}
	return e.run(sockets)
}

// listeners returns the sockets that the leader has passed.
func listeners() (map[string]net.Listener, error) {
	all, err := activation.ListenersWithNames()
	if err != nil {
		return nil, fmt.Errorf("engine: %w", err)
	}
	out := map[string]net.Listener{}
	for _, name := range []string{SocketClients, SocketPeers} {
		if len(all[name]) != 1 || all[name][0] == nil {
			return nil, fmt.Errorf("engine: the leader passed no socket %q", name)
		}
		out[name] = all[name][0]
	}
	return out, nil
}

// settle is how long the engine waits for the other hosts before it serves clients all the same.
// Without a majority, clients then get an error instead of no answer.
const settle = 5 * time.Second

// readyPause separates two attempts to read at the start.
const readyPause = 5 * time.Millisecond

func (e *Engine) run(sockets map[string]net.Listener) error {
	signals := make(chan os.Signal, 2)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	if err := e.checkData(); err != nil {
		return err
	}
	if e.host.Recover {
		if err := e.prepareRecovery(); err != nil {
			return err
		}
	}
	if !e.host.HasData && len(e.host.Members) > 1 {
		e.refreshMembers()
	}
	cfg, err := e.config()
	if err != nil {
		return err
	}
	if e.server, err = etcdserver.NewServer(cfg); err != nil {
		return fmt.Errorf("engine: %w", err)
	}
	if err := e.recovered(); err != nil {
		return err
	}
	if !e.host.HasData {
		if err := e.record(func(h *datadir.Host) { h.HasData = true }); err != nil {
			return err
		}
	}
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	peers := e.peerServer()
	e.server.Start()
	failed := make(chan error, 8)
	go func() { failed <- peers.Serve(boundListener{sockets[SocketPeers], e.log}) }()
	local, err := e.serveLocal()
	if err != nil {
		e.server.HardStop()
		return err
	}
	defer local.Close()
	go e.renewCertificates(ctx)
	go e.others.watch(ctx)
	go e.boundOpened(ctx)
	go e.noteLeader(ctx)
	go e.dropStrangers(ctx)
	go e.promoteLearners(ctx)
	go e.watchdog(ctx)
	clients, err := e.clientServer(sockets[SocketClients])
	if err != nil {
		e.server.HardStop()
		return err
	}
	go func() {
		if err := e.awaitMajority(ctx); err != nil {
			if ctx.Err() != nil {
				return
			}
			e.log.Error("no majority of the hosts answers; clients are served, and get an error until it does")
		}
		// From the first client on, the store of the members lacks something.
		crash.At("engine-serve")
		if !e.served.Load() {
			if err := e.record(func(h *datadir.Host) { h.Served = true }); err != nil {
				failed <- err
				return
			}
			e.served.Store(true)
		}
		crash.At("engine-served")
		clients.serve(failed)
		e.say(systemd.Ready)
		e.log.Info("serving clients", "listen", e.settings.Client.Listen)
	}()
	select {
	case sig := <-signals:
		e.log.Info("stopping", "reason", sig.String())
		e.say(systemd.Stopping)
		// Clients move to another host while this one still answers.
		_ = e.server.TryTransferLeadershipOnShutdown()
		clients.stop()
	case <-e.server.StopNotify():
		if e.removed.Load() || e.server.IsIDRemoved(uint64(e.server.MemberID())) || e.removedMeanwhile() {
			return e.leave()
		}
		return errors.New("engine: etcd's server has stopped by itself; its log says why")
	case err := <-failed:
		e.server.HardStop()
		return fmt.Errorf("engine: %w", err)
	}
	_ = peers.Close()
	e.server.Stop()
	return nil
}

// awaitMajority returns nil as soon as a read is possible, which needs a majority. etcd's own signal can
// come seconds later: it waits for a write that is lost if there is no leader yet.
func (e *Engine) awaitMajority(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, settle)
	defer cancel()
	for {
		if e.server.Leader() != 0 {
			try, enough := context.WithTimeout(ctx, time.Second)
			err := e.server.LinearizableReadNotify(try)
			enough()
			if err == nil {
				return nil
			}
		}
		select {
		case <-e.server.ReadyNotify():
			return nil
		case <-time.After(readyPause):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
}

// checkData refuses to start without the data that this host had.
func (e *Engine) checkData() error {
	if !e.host.HasData {
		return nil
	}
	if _, err := os.Stat(filepath.Join(e.dir.Engine(), "member", "wal")); errors.Is(err, os.ErrNotExist) {
		return fmt.Errorf("engine: the data of this host is gone: %s is missing. If other hosts are alive, run 'dynast hosts remove %s' on one of them, "+
			"remove %s here, and join again. Otherwise restore a snapshot", filepath.Join(e.dir.Engine(), "member"), e.host.Name, e.dir.Path())
	}
	return nil
}

// refreshMembers asks the other hosts who is there now. etcd joins only with the exact list, and another
// host may have joined since this one was admitted.
func (e *Engine) refreshMembers() {
	for name, at := range e.host.Members {
		if name == e.host.Name {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		var now hosts.MembersResponse
		err := e.others.client(at).Ask(ctx, hosts.PathMembers, nil, &now)
		cancel()
		if err != nil {
			continue
		}
		now.Members[e.host.Name] = e.host.Address // that host may not have heard of this one yet
		e.host.Members = now.Members
		return
	}
	e.log.Warn("no other host says who is in the cluster now; trying with the list from the time of the join")
}

// removedMeanwhile asks the other hosts whether they have removed this one while it was down. They end its
// server without telling it why.
func (e *Engine) removedMeanwhile() bool {
	self := e.server.MemberID()
	for _, m := range e.server.Cluster().Members() {
		if m.ID == self || len(m.PeerURLs) == 0 {
			continue
		}
		ctx, cancel := context.WithTimeout(context.Background(), askTimeout)
		var r hosts.RemovedResponse
		err := e.others.client(address(m)).Ask(ctx, hosts.PathRemoved, hosts.NameRequest{Name: self.String()}, &r)
		cancel()
		if err == nil && r.Removed {
			return true
		}
	}
	return false
}

// leave records that the other hosts have removed this one. The leader then does not start the
// engine again.
func (e *Engine) leave() error {
	e.log.Warn("the other hosts have removed this host from the cluster; it serves no clients any more")
	return e.record(func(h *datadir.Host) { h.Removed = true })
}

// record changes the host's record.
func (e *Engine) record(change func(*datadir.Host)) error {
	_, err := e.dir.UpdateHost(change)
	if err == nil {
		change(&e.host)
	}
	return err
}

// say reports to the leader of this host.
func (e *Engine) say(words ...string) {
	if err := systemd.Notify(words...); err != nil {
		e.log.Warn("cannot notify the leader of this host", "error", err)
	}
}

// config returns etcd's configuration. What is not named here has etcd's default.
func (e *Engine) config() (config.ServerConfig, error) {
	files, err := e.authority.WriteFiles(e.dir.HostsPKI())
	if err != nil {
		return config.ServerConfig{}, err
	}
	members := map[string]string{}
	for name, address := range e.host.Members {
		members[name] = hosts.URL(address)
	}
	urls, err := types.NewURLsMapFromStringMap(members, ",")
	if err != nil {
		return config.ServerConfig{}, fmt.Errorf("engine: the addresses of the hosts: %w", err)
	}
	scheme := "http://"
	if e.settings.Client.TLS() {
		scheme = "https://"
	}
	clients, err := types.NewURLs([]string{scheme + e.settings.Client.Listen})
	if err != nil {
		return config.ServerConfig{}, fmt.Errorf("engine: the address for clients: %w", err)
	}
	d := embed.NewConfig()
	tick := uint(max(e.settings.Heartbeat.Milliseconds(), 1))
	c := config.ServerConfig{
		Name: e.host.Name, ClientURLs: clients, PeerURLs: urls[e.host.Name], DataDir: e.dir.Engine(),
		SnapshotCount: e.settings.Snapshots, SnapshotCatchUpEntries: d.SnapshotCatchUpEntries,
		MaxSnapFiles: d.MaxSnapFiles, MaxWALFiles: d.MaxWalFiles,
		InitialPeerURLsMap: urls, InitialClusterToken: e.host.Cluster,
		// A host that is alone was restored from a snapshot or starts an empty store. Every other
		// one joins.
		NewCluster:  len(urls) == 1,
		PeerTLSInfo: transport.TLSInfo{CertFile: files.Cert, KeyFile: files.Key, ClientCertFile: files.Cert, ClientKeyFile: files.Key, TrustedCAFile: files.CA, ServerName: pki.ServerName, ClientCertAuth: true},
		TickMs:      tick, ElectionTicks: max(int(e.settings.Election/(time.Duration(tick)*time.Millisecond)), 3),
		InitialElectionTickAdvance: true, PreVote: true, StrictReconfigCheck: true, MaxLearners: maxLearners,
		QuotaBackendBytes: e.settings.Quota, BackendBatchInterval: d.BackendBatchInterval, BackendBatchLimit: d.BackendBatchLimit,
		MaxTxnOps: uint(e.settings.Client.MaxTxnOps), MaxRequestBytes: uint(e.settings.Client.MaxRequest), MaxConcurrentStreams: uint32(e.settings.Client.MaxStreams),
		AuthToken: e.settings.Client.AuthToken, BcryptCost: d.BcryptCost, TokenTTL: d.AuthTokenTTL,
		ClientCertAuthEnabled: e.settings.Client.ClientCAFile != "", CORS: d.CORS, HostWhitelist: d.HostWhitelist,
		CorruptCheckTime: e.settings.Compare, CompactHashCheckTime: d.CompactHashCheckTime,
		CompactionBatchLimit: d.CompactionBatchLimit, CompactionSleepInterval: d.CompactionSleepInterval,
		WatchProgressNotifyInterval: e.settings.Client.WatchProgressInterval, DowngradeCheckTime: d.DowngradeCheckTime,
		WarningApplyDuration: d.WarningApplyDuration, WarningUnaryRequestDuration: d.WarningUnaryRequestDuration,
		V2Deprecation: d.V2DeprecationEffective(), Metrics: d.Metrics,
		ForceNewCluster: e.host.Recover, Logger: e.logs.Zap("etcd"), ServerFeatureGate: d.ServerFeatureGate,
	}
	if err := checkpoints(d.ServerFeatureGate); err != nil {
		return c, err
	}
	switch r := e.settings.Retention; {
	case r.Revisions > 0:
		c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModeRevision, time.Duration(r.Revisions)
	case r.Period > 0:
		c.AutoCompactionMode, c.AutoCompactionRetention = embed.CompactorModePeriodic, r.Period
	}
	return c, nil
}

// checkpoints turns lease checkpoints on. Without them, each change of the leader gives every lease
// its full time again.
func checkpoints(gate featuregate.FeatureGate) error {
	g, ok := gate.(featuregate.MutableFeatureGate)
	if !ok {
		return fmt.Errorf("engine: etcd's feature gate is a %T", gate)
	}
	if err := g.SetFromMap(map[string]bool{string(features.LeaseCheckpoint): true, string(features.LeaseCheckpointPersist): true}); err != nil {
		return fmt.Errorf("engine: lease checkpoints: %w", err)
	}
	return nil
}

// maxLearners is how many hosts can join at the same time.
const maxLearners = 4

// renewCertificates writes new certificate files before the old ones end. etcd reads them at each
// handshake.
func (e *Engine) renewCertificates(ctx context.Context) {
	every(ctx, pki.Renew, func() {
		if _, err := e.authority.WriteFiles(e.dir.HostsPKI()); err != nil {
			e.log.Error("cannot renew the certificate of this host", "error", err)
		}
	})
}

// every calls f in an interval until ctx ends, for the first time after one interval.
func every(ctx context.Context, interval time.Duration, f func()) {
	t := time.NewTicker(interval)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			f()
		case <-ctx.Done():
			return
		}
	}
}

// WatchdogInterval is the time after which the leader of this host kills a hanging engine.
const WatchdogInterval = 3 * time.Second

// watchdog reports that the engine is alive, as long as etcd's server handles questions. It asks only
// for what needs no majority.
func (e *Engine) watchdog(ctx context.Context) {
	every(ctx, WatchdogInterval/6, func() {
		_ = e.server.Cluster().Members() // takes the lock of the membership
		_ = e.server.KV().Rev()          // takes the lock of the store
		e.say(systemd.Watchdog)
	})
}
