package api

import (
	"context"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/auth"
	"google.golang.org/grpc"
)

// clusterServer is the service Cluster. The leader starts and replaces members by itself. A
// member can be removed, and is replaced if too few are left. The other methods return an error
// that says what to do instead.
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
	resp.Members = s.members(0)
	return resp, nil
}

// members lists all members except one.
func (s *clusterServer) members(but uint64) []*pb.Member {
	var out []*pb.Member
	for _, m := range s.cluster.Members() {
		if m.ID == but {
			continue
		}
		out = append(out, &pb.Member{
			ID: m.ID, Name: m.Name, PeerURLs: []string{"https://" + m.Address}, ClientURLs: m.ClientURLs,
		})
	}
	return out
}

func (s *clusterServer) MemberAdd(ctx context.Context, _ *pb.MemberAddRequest) (*pb.MemberAddResponse, error) {
	return nil, s.refuse(ctx, "the leader starts its members by itself: use \"dynast add\" for one more follower, or \"dynast join\" to start one by hand")
}

// MemberRemove retires a follower. For the leader it is a hand-over.
func (s *clusterServer) MemberRemove(ctx context.Context, r *pb.MemberRemoveRequest) (*pb.MemberRemoveResponse, error) {
	if err := s.requireAdmin(ctx); err != nil {
		return nil, toStatus(err)
	}
	if err := s.cluster.Remove(ctx, r.ID); err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.MemberRemoveResponse{Header: &pb.ResponseHeader{}, Members: s.members(r.ID)}
	s.fillWithoutRevision(resp.Header)
	return resp, nil
}

func (s *clusterServer) MemberUpdate(ctx context.Context, _ *pb.MemberUpdateRequest) (*pb.MemberUpdateResponse, error) {
	return nil, s.refuse(ctx, "members have no URLs to update; the leader assigns their addresses from \"member.host\" and \"member.ports\" of the configuration")
}

func (s *clusterServer) MemberPromote(ctx context.Context, _ *pb.MemberPromoteRequest) (*pb.MemberPromoteResponse, error) {
	return nil, s.refuse(ctx, "there are no learners to promote; a follower counts by itself as soon as it is in sync")
}

// requireCaller refuses an anonymous caller if authentication is enabled.
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
