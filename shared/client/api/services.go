package api

import (
	"context"
	"sync"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc"
	"google.golang.org/grpc/health"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// service is one of etcd's services, or a background task of the leader.
type service interface {
	// register adds the service to s.
	register(s *grpc.Server)
	// run does the background work until ctx ends. It returns at once if there is none.
	run(ctx context.Context)
}

// foreground is embedded in services without background work.
type foreground struct{}

func (foreground) run(context.Context) {}

// newServices returns all services. Each has a file of its own.
func newServices(a *API) []service {
	services := []service{
		&kvServer{API: a},
		newWatchServer(a),
		&clusterServer{API: a},
		newAuthServer(a),
		&maintenanceServer{API: a, backups: make(chan struct{}, maxBackups)},
		newLeaseServer(a),
		&healthService{API: a},
		&quotaKeeper{API: a},
	}
	// Lock and Election are clients of the other services.
	local := newInProcess(a, services)
	return append(services, &lockServer{inProcess: local}, &electionServer{inProcess: local})
}

// healthService is gRPC's own health service.
type healthService struct {
	*API
	foreground
}

func (s *healthService) register(g *grpc.Server) {
	healthpb.RegisterHealthServer(g, &mortalHealth{Server: s.health, stopping: s.stopping})
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
}

// mortalHealth ends health watches when serving stops. They would never end by themselves, and
// a graceful stop waits for them.
type mortalHealth struct {
	*health.Server
	stopping <-chan struct{}
}

func (s *mortalHealth) Watch(r *healthpb.HealthCheckRequest, stream healthpb.Health_WatchServer) error {
	ctx, cancel := context.WithCancel(stream.Context())
	defer cancel()
	go func() {
		select {
		case <-s.stopping:
			cancel()
		case <-ctx.Done():
		}
	}()
	err := s.Server.Watch(r, &mortalWatch{Health_WatchServer: stream, ctx: ctx})
	if ctx.Err() != nil && stream.Context().Err() == nil {
		return rpctypes.ErrGRPCStopped // the client continues at the next leader
	}
	return err
}

type mortalWatch struct {
	healthpb.Health_WatchServer
	ctx context.Context
}

func (w *mortalWatch) Context() context.Context { return w.ctx }

// Run does the leader's background work until ctx ends.
func (a *API) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range a.services {
		wg.Go(func() { s.run(ctx) })
	}
	wg.Wait()
}
