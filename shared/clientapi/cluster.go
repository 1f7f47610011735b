package clientapi

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/auth"
	"google.golang.org/grpc"
)

// clusterServer is the service Cluster. Members come and go by themselves
// here, so there is nothing to add or remove: those methods are unimplemented.
type clusterServer struct {
	*API
	pb.UnimplementedClusterServer
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
