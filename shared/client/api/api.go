package api

import (
	"context"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hashicorp/go-hclog"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/pkg/v3/idutil"
	"go.etcd.io/etcd/server/v3/etcdserver/apply"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	"google.golang.org/grpc/keepalive"
	"google.golang.org/grpc/metadata"

	"github.com/dynast-io/dynast/shared/observe/meter"
	"github.com/dynast-io/dynast/shared/replica/store"
)

// These defaults are etcd's.
const (
	DefaultMaxRequestBytes = 1536 << 10
	DefaultMaxTxnOps       = 128

	// grpcOverheadBytes is how much larger than its request a message may be.
	grpcOverheadBytes = 512 << 10
	// maxHeaderBytes bounds the metadata of a request, which is a token and a few words.
	maxHeaderBytes = 64 << 10
	// setupTimeout bounds the time until a new connection can make requests. idleTimeout bounds
	// how long a connection may stay without a request. A client whose connection is closed for
	// this connects again by itself.
	setupTimeout = 20 * time.Second
	idleTimeout  = 30 * time.Minute

	// streamWorkers is the number of goroutines that are kept for requests. A new goroutine
	// grows its stack several times for each request, a kept one only once. When all workers
	// are busy, requests get new goroutines.
	streamWorkers = 256

	// streamWindowBytes is how much of a request a client may send before the handler reads it,
	// connWindowBytes how much it may send on a connection before the server reads it. Because
	// they are fixed, gRPC does not estimate them. For its estimate it sends a ping with each
	// request of a client that waits for each answer, which costs both sides a system call more.
	streamWindowBytes = 2 << 20
	connWindowBytes   = 16 << 20

	keepaliveMinTime  = 5 * time.Second
	keepaliveInterval = 2 * time.Hour
	keepaliveTimeout  = 20 * time.Second
)

// Proposer replicates writes.
type Proposer interface {
	// Propose replicates one request and returns when this process has applied it. If the
	// request is invalid, that is in the result. An error is a gRPC status or one of etcd's
	// errors (package rpctypes).
	Propose(ctx context.Context, r *pb.InternalRaftRequest) (*apply.Result, error)
}

// Member is a process of the cluster as clients see it.
type Member struct {
	ID   uint64
	Name string
	// Address is the host:port at which other members reach it.
	Address string
	// ClientURLs is empty for all members except the leader, because clients replace their
	// endpoints by these.
	ClientURLs []string
	IsLeader   bool
}

// Cluster tells clients about the processes. It is called for each response, so it must be
// fast.
type Cluster interface {
	// Epoch is the epoch in which this process leads.
	Epoch() uint64
	// Members lists all processes, including this one as the leader.
	Members() []Member
	// Metadata is what tell attaches to responses. Its version grows when it changes, and is never 0. The
	// caller does not change the metadata.
	Metadata() (md metadata.MD, version uint64)

	// MoveLeader hands the leadership over to a member. It returns when that is certain, before
	// this process stops serving.
	MoveLeader(ctx context.Context, id uint64) error
	// Remove retires a member. If too few are left, the leader starts new ones.
	Remove(ctx context.Context, id uint64) error
	// Defragment rewrites all databases. The leader's own is rewritten after a hand-over.
	// inPlace means that there is no follower, so this process has to rewrite its own.
	Defragment(ctx context.Context) (inPlace bool, err error)
}

// Limits bound what one client may ask for. A zero means the default.
type Limits struct {
	MaxRequestBytes int
	MaxTxnOps       int
	// MaxStreams is the number of concurrent requests of one connection; 0 means no limit.
	MaxStreams uint32
}

// Config is everything that an API needs. Limits and Logger are optional.
type Config struct {
	Store    *store.Store
	Proposer Proposer
	Cluster  Cluster
	Limits   Limits
	Logger   hclog.Logger
	// WatchProgressInterval is how often watchers that asked for it get a progress report. 0
	// means DefaultWatchProgressInterval.
	WatchProgressInterval time.Duration
	// Meter counts the requests. It may be nil.
	Meter *meter.Requests
	// OnDamage is called when a request finds the database damaged.
	OnDamage func(error)
}

// API serves clients.
type API struct {
	store    *store.Store
	proposer Proposer
	cluster  Cluster
	limits   Limits
	logger   hclog.Logger
	onDamage func(error)

	memberID uint64
	ids      *idutil.Generator
	health   *health.Server
	services []service

	meter    *meter.Requests
	progress *progressPace
	firsts   *firstRenewals
	stopping chan struct{} // closed by Shutdown
	inFlight atomic.Int64  // requests and streams without an answer so far
	raising  sync.Mutex    // held while raising the quota alarm
	stop     func()
}

// New returns an API. It serves once it is registered.
func New(c Config) *API {
	if c.Limits.MaxRequestBytes <= 0 {
		c.Limits.MaxRequestBytes = DefaultMaxRequestBytes
	}
	if c.Limits.MaxTxnOps <= 0 {
		c.Limits.MaxTxnOps = DefaultMaxTxnOps
	}
	if c.Limits.MaxStreams == 0 {
		c.Limits.MaxStreams = math.MaxUint32
	}
	if c.WatchProgressInterval <= 0 {
		c.WatchProgressInterval = DefaultWatchProgressInterval
	}
	if c.Meter == nil {
		c.Meter = &meter.Requests{}
	}
	if c.OnDamage == nil {
		c.OnDamage = func(error) {}
	}
	if c.Logger == nil {
		c.Logger = hclog.NewNullLogger()
	}
	a := &API{
		store: c.Store, proposer: c.Proposer, cluster: c.Cluster, limits: c.Limits, logger: c.Logger, onDamage: c.OnDamage,
		memberID: c.Store.MemberID(), health: health.NewServer(), meter: c.Meter,
		progress: newProgressPace(c.WatchProgressInterval), stopping: make(chan struct{}),
		firsts: newFirstRenewals(firstRenewalTimeout),
	}
	a.stop = sync.OnceFunc(func() { close(a.stopping) })
	for _, m := range c.Cluster.Members() {
		if m.IsLeader {
			a.memberID = m.ID
		}
	}
	// The generator uses 16 bits of the member's id, and the time. So the ids of different
	// leaders differ.
	a.ids = idutil.NewGenerator(uint16(a.memberID), time.Now())
	a.services = newServices(a)
	return a
}

// Register adds all services to s. From now on the health service answers "serving".
func (a *API) Register(s *grpc.Server) {
	for _, sv := range a.services {
		sv.register(s)
	}
}

// Settle waits until Shutdown would not have to wait for any stream's first renewal, or until
// ctx ends. Clients are served meanwhile, so it has to be called before anything is stopped.
func (a *API) Settle(ctx context.Context) { a.firsts.wait(ctx) }

// Shutdown makes the health service report that this process stops serving, and ends streams
// that would never end by themselves. Their errors send the clients to the next leader. Call it
// before a graceful stop, which waits for all streams.
func (a *API) Shutdown() {
	a.health.Shutdown()
	a.stop()
}

// InFlight is the number of requests and streams without an answer so far.
func (a *API) InFlight() int64 { return a.inFlight.Load() }

// ServerOptions are the options for the gRPC server with which the API is registered. Without
// them its metadata and limits are missing.
func (a *API) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(a.unary),
		grpc.ChainStreamInterceptor(a.stream),
		grpc.NumStreamWorkers(streamWorkers),
		grpc.StaticStreamWindowSize(streamWindowBytes),
		grpc.StaticConnWindowSize(connWindowBytes),
		grpc.MaxRecvMsgSize(a.limits.MaxRequestBytes + grpcOverheadBytes),
		grpc.MaxSendMsgSize(math.MaxInt32),
		grpc.MaxConcurrentStreams(a.limits.MaxStreams),
		grpc.KeepaliveEnforcementPolicy(keepalive.EnforcementPolicy{MinTime: keepaliveMinTime}),
		grpc.KeepaliveParams(keepalive.ServerParameters{
			Time: keepaliveInterval, Timeout: keepaliveTimeout, MaxConnectionIdle: idleTimeout,
		}),
		grpc.MaxHeaderListSize(maxHeaderBytes),
		grpc.ConnectionTimeout(setupTimeout),
	}
}

// fill completes a response's header. A handler that answers at a revision of its own has set
// the revision already.
func (a *API) fill(h *pb.ResponseHeader) {
	a.fillWithoutRevision(h)
	if h.Revision == 0 {
		h.Revision = a.store.Revision()
	}
}

func (a *API) fillWithoutRevision(h *pb.ResponseHeader) {
	h.ClusterId = a.store.ClusterID()
	h.MemberId = a.memberID
	h.RaftTerm = a.cluster.Epoch()
}
