package worker

import (
	"context"
	"fmt"
	"net"
	"strings"
	"time"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/txn"
	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"
	"google.golang.org/grpc/metadata"

	"github.com/dynast-io/dynast/shared/clientapi"
	"github.com/dynast-io/dynast/shared/clienthttp"
	"github.com/dynast-io/dynast/shared/clienttls"
	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/gate"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/store"
	"github.com/dynast-io/dynast/shared/wire"
)

// drainTimeout bounds how long a stopping leader waits for requests under way.
const drainTimeout = 3 * time.Second

const (
	// sortTimeout is how long a connection may take to say its first word when
	// the leader stops serving.
	sortTimeout = 200 * time.Millisecond
	// lingerTimeout is how long a client without requests may take to go.
	lingerTimeout = 300 * time.Millisecond
	// farewellTimeout is how long HTTP clients that keep their connections may
	// take to hear that they have to go; everybody is served meanwhile.
	farewellTimeout = 30 * time.Millisecond
	// maxStrangers bounds the connections that have not shown a certificate of the
	// cluster yet, strangerPatience the time that they have for it. One more ends
	// the oldest that says nothing: who belongs here speaks at once.
	maxStrangers     = 128
	strangerPatience = 5 * time.Second
	// A member needs one stream, with little to say before it.
	maxMemberStreams     = 16
	maxMemberHeaderBytes = 16 << 10
	// maxClientStrangers bounds the connections on the clients' address that have
	// said nothing yet.
	maxClientStrangers = 1024
)

// serveMembers accepts other members on the own address. Only a leader takes
// their streams; accepting early means that a survivor's attempt is answered,
// not refused by a closed port.
func (m *Member) serveMembers() {
	limits := gate.Limits{Unproven: maxStrangers, Total: gate.MaxConnections(wire.MaxMembers), Patience: strangerPatience}
	s := grpc.NewServer(append(wire.GuardServer(),
		grpc.Creds(gate.Credentials(credentials.NewTLS(m.authority.ServerTLS()))),
		grpc.MaxConcurrentStreams(maxMemberStreams), grpc.MaxHeaderListSize(maxMemberHeaderBytes),
		grpc.MaxRecvMsgSize(maxMemberMessage),
		grpc.InitialWindowSize(8<<20), grpc.InitialConnWindowSize(8<<20),
		grpc.ConnectionTimeout(strangerPatience),
	)...)
	wire.RegisterMemberServer(s, m.downstream)
	go func() {
		if err := s.Serve(gate.New("members", limits, m.logger).Listener(m.listener)); err != nil {
			m.fatal(core.ExitError, fmt.Errorf("serve members on %s: %w", m.address, err))
		}
	}()
}

// clientServer serves clients; it exists in the leader only.
type clientServer struct {
	api  *clientapi.API
	grpc *grpc.Server
	http *clienthttp.Server
	// split is where both get their connections from.
	split *clienthttp.Split
}

// beginServing runs on the applying goroutine, right after everything up to
// the begin of the epoch is applied: leases come to life, and the shared
// listening socket, in whose queue clients may be waiting since the last
// leader died, is accepted from.
func (m *Member) beginServing() {
	m.applier.settle()
	m.space.look() // before the first write is taken
	m.replica.current().store.Promote(m.cfg.Heartbeat.Timeout)
	l, err := net.FileListener(m.listeners.File(member.ClientListener))
	if err != nil {
		m.fatal(core.ExitError, fmt.Errorf("accept clients on %s: %w", m.cfg.Client.Listen, err))
		return
	}
	api := clientapi.New(clientapi.Config{
		Store:    m.replica.current().store,
		Proposer: m.proposals,
		Cluster:  &clusterView{m: m},
		Limits:   clientapi.Limits{MaxRequestBytes: int(m.cfg.Client.MaxRequest), MaxStreams: uint32(m.cfg.Client.MaxStreams)},
		Logger:   m.logs.Logger("client"),
		Meter:    &m.requests,
		OnDamage: m.storeFailed,
	})
	options, split := append(wire.GuardServer(), api.ServerOptions()...), m.splitClients(l)
	if m.clientTLS != nil {
		options = append(options, grpc.Creds(clienttls.Credentials()))
	}
	server := grpc.NewServer(options...)
	api.Register(server)
	web := clienthttp.New(clienthttp.Config{Node: clientNode{m}, GRPC: server, Metrics: m.metrics(), Logger: m.logs.Logger("http"),
		MaxRequestBytes: int(m.cfg.Client.MaxRequest)})
	m.clients.Store(&clientServer{api: api, grpc: server, http: web, split: split})
	go m.guarded(func() { api.Run(m.lifetime()) })
	for _, serve := range []func() error{split.Serve, func() error { return server.Serve(split.GRPC()) }} {
		go func() {
			if err := serve(); err != nil {
				m.fatal(core.ExitError, fmt.Errorf("serve clients: %w", err))
			}
		}()
	}
	m.logger.Info("serves clients", "listen", m.cfg.Client.Listen)
	m.history.serving(m.replica.current().slot.Number)
	m.patiently(m.serveAdmin)
	m.patiently(m.serveHandoff)
	// After all that a takeover is in a hurry for; gRPC clients are served.
	go m.guarded(func() {
		if err := web.Serve(split.HTTP()); err != nil {
			m.fatal(core.ExitError, err)
		}
	})
	m.serveDashboard()
	m.compaction.lead()
	go m.guarded(m.service.lead)
	go m.guarded(m.keepReaper)
}

// reaperPause keeps who ends reapers again and again from costing much.
const reaperPause = time.Second

// keepReaper sees to it that this process's memory, however much, does not hold up
// the next leader when this one dies.
func (m *Member) keepReaper() {
	for {
		reaper, err := proc.StartReaper()
		if err != nil {
			m.logger.Warn("a takeover from this leader takes longer, the more memory it uses", "error", err)
			return
		}
		select {
		case <-reaper.Done():
			m.logger.Warn("the reaper of this process was ended: another one is started", "pid", reaper.Identity().PID)
			if err := proc.Bury(reaper); err != nil {
				m.logger.Warn("bury the reaper", "error", err)
			}
		case <-m.ended:
			_ = reaper.Close()
			return
		}
		select {
		case <-time.After(reaperPause):
		case <-m.ended:
			return
		}
	}
}

// splitClients has gRPC and HTTP on the one address for clients.
func (m *Member) splitClients(l net.Listener) *clienthttp.Split {
	most := gate.MaxConnections(m.cfg.Client.MaxConnections)
	if most < m.cfg.Client.MaxConnections {
		m.logger.Warn("fewer connections of clients than client.max_connections: the limit of open files (ulimit -n) allows no more",
			"connections", most, "max_connections", m.cfg.Client.MaxConnections)
	}
	g := gate.New("clients", gate.Limits{Unproven: maxClientStrangers, Total: most}, m.logs.Logger("client"))
	if m.clientTLS == nil {
		return clienthttp.NewSplit(l, nil, g)
	}
	return clienthttp.NewSplit(l, m.clientTLS.Config(), g)
}

// patiently opens a socket of the data directory. Its name may need room on a
// disk that is full: that is waited for, while clients are served.
func (m *Member) patiently(open func() error) {
	err := open()
	if err == nil {
		return
	}
	if !proc.NoSpace(err) {
		m.fatal(core.ExitError, err)
		return
	}
	m.logger.Warn("waits for room on the disk", "error", err)
	time.AfterFunc(time.Second, func() {
		select {
		case <-m.ended:
		default:
			m.patiently(open)
		}
	})
}

// lifetime ends with the process. It is one for all: each costs a goroutine
// until then.
func (m *Member) lifetime() context.Context {
	m.lifeOnce.Do(func() {
		var cancel context.CancelFunc
		m.life, cancel = context.WithCancel(context.Background())
		go func() { <-m.ended; cancel() }()
	})
	return m.life
}

// stopServing takes no more from clients and answers what was taken. The
// listening socket stays open for whoever leads next.
func (m *Member) stopServing() {
	go func() {
		go m.stopDashboard()
		if c := m.clients.Load(); c != nil {
			c.stop()
		}
		select {
		case <-m.proposals.drain():
		case <-time.After(drainTimeout):
		}
		m.post(core.ServingStopped{})
	}()
}

// stop answers what was taken, of both protocols, within drainTimeout. Streams
// that would never end by themselves are told to end, also those that serve the gateway.
// Clients are told to go (GOAWAY) and their next requests wait in the listening
// socket's queue for whoever leads next: none fails.
func (c *clientServer) stop() {
	last, enough := context.WithTimeout(context.Background(), farewellTimeout)
	c.http.Farewell(last)
	enough()
	ctx, cancel := context.WithTimeout(context.Background(), drainTimeout)
	defer cancel()
	last, enough = context.WithTimeout(ctx, sortTimeout)
	c.split.Drain(last)
	enough()
	c.api.Shutdown()
	// First: a request over HTTP needs the gRPC server.
	last, enough = quiet(ctx, c.http.InFlight)
	c.http.Settle(last)
	c.http.Shutdown(last)
	enough()
	done := make(chan struct{})
	go func() {
		defer close(done)
		c.grpc.GracefulStop()
	}()
	// Counted from here on: before, no client knew that it has to go.
	last, enough = quiet(ctx, c.api.InFlight)
	defer enough()
	select {
	case <-done:
	case <-last.Done():
		go c.grpc.Stop()
		select {
		case <-done:
		case <-time.After(lingerTimeout): // the end of the process ends what is left
		}
	}
}

// quiet ends when no request has been under way for lingerTimeout, or with
// ctx: a client that hangs never says that it has gone, and shall not hold up the others.
func quiet(ctx context.Context, inFlight func() int64) (context.Context, context.CancelFunc) {
	ctx, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		tick := time.NewTicker(lingerTimeout / 10)
		defer tick.Stop()
		for idle := 0; idle < 10; idle++ {
			select {
			case <-tick.C:
			case <-ctx.Done():
				return
			}
			if inFlight() > 0 {
				idle = 0
			}
		}
	}()
	return ctx, cancel
}

// clientNode is this process as health checks see it.
type clientNode struct{ m *Member }

var _ clienthttp.Node = clientNode{}

func (n clientNode) store() *store.Store { return n.m.replica.current().store }

func (n clientNode) Alarms() []*pb.AlarmMember {
	return n.store().Alarms().Get(pb.AlarmType_NONE)
}

// Read reads the first key as a request would, past the permissions.
func (n clientNode) Read(ctx context.Context) error {
	st := n.store()
	_, _, err := txn.Range(ctx, st.Logger(), st.KV(), &pb.RangeRequest{Key: []byte{0}, RangeEnd: []byte{0}, KeysOnly: true, Limit: 1}, false)
	return err
}

func (n clientNode) AuthEnabled() bool { return n.store().Auth().IsAuthEnabled() }

// startSupervisor makes the supervisor, which a leader must have before the
// first effect that needs it.
func (m *Member) startSupervisor() error {
	s, err := m.opts.NewSupervisor(member.Host{
		Config: m.config, Dir: m.dir, Logger: m.logs.Logger("supervisor"), Roster: m.roster,
		Listeners: m.listeners, Post: m.post, Version: m.opts.Version,
	})
	m.supervisor = s
	return err
}

// clusterView is the cluster as clients are told.
type clusterView struct{ m *Member }

var _ clientapi.Cluster = (*clusterView)(nil)

func (c *clusterView) Epoch() uint64 { return c.m.epoch.Load() }

// Metadata rides on every response: who leads, who is next, who there is.
func (c *clusterView) Metadata() metadata.MD { return c.m.published.Load().metadata }

// Members lists the roster for stock clients. The one client address is the
// leader's, so that a client which replaces its endpoints by it keeps exactly that.
func (c *clusterView) Members() []clientapi.Member {
	r := c.m.roster()
	out := make([]clientapi.Member, 0, len(r.Members))
	for _, mem := range r.Members {
		cm := clientapi.Member{ID: memberID(mem.Address), Name: mem.Address.String(), Address: mem.Address.String()}
		if mem.Address == r.Leader {
			cm.IsLeader = true
			cm.ClientURLs = []string{c.scheme() + r.Client}
		}
		out = append(out, cm)
	}
	return out
}

func (c *clusterView) scheme() string {
	if c.m.cfg.Client.TLS() {
		return "https://"
	}
	return "http://"
}

// memberID makes a number of an address, the same in every process.
func memberID(a roster.Address) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a, 64 bit
	h := uint64(offset)
	for _, b := range []byte(a.String()) {
		h = (h ^ uint64(b)) * prime
	}
	return h
}

func rosterMetadata(r *roster.Roster) metadata.MD {
	heir := ""
	if a, ok := r.Heir(); ok {
		heir = a.String()
	}
	members := make([]string, 0, len(r.Members))
	for _, m := range r.Members {
		members = append(members, m.Address.String()+"="+m.State.String())
	}
	leader := ""
	if r.Leader.IsValid() {
		leader = r.Leader.String()
	}
	return metadata.Pairs(
		"dynast-leader", leader,
		"dynast-heir", heir,
		"dynast-members", strings.Join(members, ","),
		"dynast-epoch", fmt.Sprint(r.Epoch),
	)
}
