package clientapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/auth"
	"google.golang.org/grpc"
)

// clusterServer is the service Cluster. Members come and go by themselves
// here, so there is nothing to add or remove: those methods say what to do instead.
type clusterServer struct {
	*API
	pb.UnsafeClusterServer
	foreground
}

func (s *clusterServer) register(g *grpc.Server) { pb.RegisterClusterServer(g, s) }

func (s *clusterServer) MemberList(ctx context.Context, _ *pb.MemberListRequest) (*pb.MemberListResponse, error) {
	if err := s.requireCaller(ctx); err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.MemberListResponse{Header: &pb.ResponseHeader{}}
	s.fillWithoutRevision(resp.Header)
	for _, m := range s.cluster.Members() {
		resp.Members = append(resp.Members, &pb.Member{
			ID: m.ID, Name: m.Name, PeerURLs: []string{"https://" + m.Address}, ClientURLs: m.ClientURLs,
		})
	}
	return resp, nil
}

func (s *clusterServer) MemberAdd(ctx context.Context, _ *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	return nil, s.refuse(ctx, "members are not added by hand; set \"followers\" in the configuration to how many the leader is to keep, or start one more with \"dynast join\"")
}

func (s *clusterServer) MemberRemove(ctx context.Context, _ *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	return nil, s.refuse(ctx, "members are not removed by hand; end a follower's process with SIGTERM, and the leader replaces it if \"followers\" in the configuration wants it")
}

func (s *clusterServer) MemberUpdate(ctx context.Context, _ *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	return nil, s.refuse(ctx, "members have no URLs to update; the leader gives them their addresses from \"member.host\" and \"member.ports\" of the configuration")
}

func (s *clusterServer) MemberPromote(ctx context.Context, _ *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	return nil, s.refuse(ctx, "there are no learners to promote; a follower counts by itself as soon as it is in sync")
}

// requireCaller refuses a nobody while there are users.
func (a *API) requireCaller(ctx context.Context) error {
	if !a.store.Auth().IsAuthEnabled() {
		return nil
	}
	who, err := a.caller(ctx)
	if err == nil && who == nil {
		err = auth.ErrUserEmpty
	}
	return err
}
