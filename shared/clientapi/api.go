package clientapi

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

	"github.com/dynast-io/dynast/shared/meter"
	"github.com/dynast-io/dynast/shared/store"
)

// The defaults are etcd's.
const (
	DefaultMaxRequestBytes = 1536 << 10
	DefaultMaxTxnOps       = 128

	// grpcOverheadBytes is what a message may be larger than its request.
	grpcOverheadBytes = 512 << 10
	// maxHeaderBytes bounds the metadata of a request: a token and a few words.
	maxHeaderBytes = 64 << 10
	// setupTimeout is how long a connection may take until requests can be made,
	// idleTimeout how long it may last without one. A client that is sent away
	// so comes back by itself.
	setupTimeout = 20 * time.Second
	idleTimeout  = 30 * time.Minute

	// streamWorkers are kept for requests. A new goroutine grows its stack several
	// times in each; a kept one does so once. More requests than workers get goroutines.
	streamWorkers = 256

	keepaliveMinTime  = 5 * time.Second
	keepaliveInterval = 2 * time.Hour
	keepaliveTimeout  = 20 * time.Second
)

// Proposer replicates writes.
type Proposer interface {
	// Propose replicates one request and returns when it is applied by this
	// process. What the request did wrong is in the result; an error is a gRPC
	// status or one of etcd's (package rpctypes).
	Propose(ctx context.Context, r *pb.InternalRaftRequest) (*apply.Result, error)
}

// Member is a process of the cluster as clients see it.
type Member struct {
	ID   uint64
	Name string
	// Address is the host:port for other members.
	Address string
	// ClientURLs is empty for all but the leader: clients replace their
	// endpoints by these.
	ClientURLs []string
	IsLeader   bool
}

// Cluster is what clients are told about the processes. It is asked for each
// response, so it must be quick.
type Cluster interface {
	// Epoch is the leadership of this process.
	Epoch() uint64
	// Members lists all processes, this one among them as the leader.
	Members() []Member
	// Metadata is attached to each response. It is not changed afterwards.
	Metadata() metadata.MD

	// MoveLeader hands the leadership over to a member. It returns when that is
	// certain, before this process stops serving.
	MoveLeader(ctx context.Context, id uint64) error
	// Remove retires a member. Too few of them are made up for by new ones.
	Remove(ctx context.Context, id uint64) error
	// Defragment has all databases rewritten, the leader's after a hand-over.
	// inPlace: there is no follower; this process is to rewrite its own.
	Defragment(ctx context.Context) (inPlace bool, err error)
}

// Limits bound what one client may ask for. Zeros are the defaults.
type Limits struct {
	MaxRequestBytes int
	MaxTxnOps       int
	// MaxStreams is the number of concurrent requests of one connection; 0 is
	// no limit.
	MaxStreams uint32
}

// Config is all that an API needs. Limits and Logger may be left out.
type Config struct {
	Store    *store.Store
	Proposer Proposer
	Cluster  Cluster
	Limits   Limits
	Logger   hclog.Logger
	// WatchProgressInterval is how often watchers that want it are told their
	// progress; 0 is DefaultWatchProgressInterval.
	WatchProgressInterval time.Duration
	// Meter counts the requests; nil: nobody asks.
	Meter *meter.Requests
	// OnDamage is told when a request found the database damaged.
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

	meter         *meter.Requests
	watchProgress time.Duration
	stopping      chan struct{} // closed by Shutdown
	inFlight      atomic.Int64  // requests and streams that are not answered yet
	raising       sync.Mutex    // held by who raises the alarm of the quota
	stop          func()
}

// New returns an API that serves once it is registered.
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
		watchProgress: max(c.WatchProgressInterval, minWatchProgressInterval), stopping: make(chan struct{}),
	}
	a.stop = sync.OnceFunc(func() { close(a.stopping) })
	for _, m := range c.Cluster.Members() {
		if m.IsLeader {
			a.memberID = m.ID
		}
	}
	// The generator takes 16 bits of the member and the time: ids of different
	// leaders differ.
	a.ids = idutil.NewGenerator(uint16(a.memberID), time.Now())
	a.services = newServices(a)
	return a
}

// Register adds all services to s, and says "serving" to who asks for health.
func (a *API) Register(s *grpc.Server) {
	for _, sv := range a.services {
		sv.register(s)
	}
}

// Shutdown tells those who watch the health that this process stops serving,
// and ends streams that would never end by themselves, in a way that sends
// their clients to the next leader. To be called before a graceful stop, which
// waits for all streams.
func (a *API) Shutdown() {
	a.health.Shutdown()
	a.stop()
}

// InFlight is how many requests and streams are not answered yet.
func (a *API) InFlight() int64 { return a.inFlight.Load() }

// ServerOptions are the options of the gRPC server that the API is registered
// with; without them it lacks its metadata and limits.
func (a *API) ServerOptions() []grpc.ServerOption {
	return []grpc.ServerOption{
		grpc.ChainUnaryInterceptor(a.unary),
		grpc.ChainStreamInterceptor(a.stream),
		grpc.NumStreamWorkers(streamWorkers),
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

// fill completes a response's header. A handler that answers at a revision of
// its own has set it.
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
