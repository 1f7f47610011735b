package clientapi

import (
	"context"
	"sync"

	"google.golang.org/grpc"
	healthpb "google.golang.org/grpc/health/grpc_health_v1"
)

// service is one of etcd's services, or what a leader does in the background.
type service interface {
	// register adds what it serves to s.
	register(s *grpc.Server)
	// run does its background work until ctx ends; nothing to do is to return.
	run(ctx context.Context)
}

// foreground is for a service without background work.
type foreground struct{}

func (foreground) run(context.Context) {}

// newServices lists what is served, in a file each.
func newServices(a *API) []service {
	services := []service{
		&kvServer{API: a},
		newWatchServer(a),
		&clusterServer{API: a},
		newAuthServer(a),
		&maintenanceServer{API: a},
		newLeaseServer(a),
		&healthService{API: a},
	}
	// These are clients of the others.
	local := newInProcess(a, services)
	return append(services, &lockServer{inProcess: local}, &electionServer{inProcess: local})
}

// healthService is gRPC's own health service.
type healthService struct {
	*API
	foreground
}

func (s *healthService) register(g *grpc.Server) {
	healthpb.RegisterHealthServer(g, s.health)
	s.health.SetServingStatus("", healthpb.HealthCheckResponse_SERVING)
}

// Run does what a leader does besides answering requests, until ctx ends.
func (a *API) Run(ctx context.Context) {
	var wg sync.WaitGroup
	for _, s := range a.services {
		wg.Go(func() { s.run(ctx) })
	}
	wg.Wait()
}
