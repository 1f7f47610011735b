package api

import (
	"context"
	"fmt"

	"github.com/coreos/go-semver/semver"
	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"go.etcd.io/etcd/api/v3/version"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
)

// maintenanceServer is the service Maintenance. Clients reach the leader only, so these methods
// describe, defragment and copy the leader's replica.
type maintenanceServer struct {
	*API
	pb.UnsafeMaintenanceServer
	foreground
	backups chan struct{} // bounds how many backups are sent at a time
}

func (s *maintenanceServer) register(g *grpc.Server) { pb.RegisterMaintenanceServer(g, s) }

func (s *maintenanceServer) Status(ctx context.Context, _ *pb.StatusRequest) (*pb.StatusResponse, error) {
	if err := s.requireCaller(ctx); err != nil {
		return nil, toStatus(err)
	}
	applied := s.store.Applied()
	resp := &pb.StatusResponse{
		Header:  &pb.ResponseHeader{},
		Version: version.Version,
		Leader:  s.memberID,
		// An entry that is committed and not applied yet was not acknowledged to anybody.
		RaftIndex: applied.Index, RaftAppliedIndex: applied.Index,
		RaftTerm: s.cluster.Epoch(),
		DbSize:   s.store.Size(), DbSizeInUse: s.store.SizeInUse(), DbSizeQuota: s.store.QuotaBytes(),
		StorageVersion: s.store.Version(),
		DowngradeInfo:  &pb.DowngradeInfo{},
	}
	s.fill(resp.Header)
	for _, alarm := range s.store.Alarms().Get(pb.AlarmType_NONE) {
		resp.Errors = append(resp.Errors, alarm.String())
	}
	return resp, nil
}

func (s *maintenanceServer) Alarm(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	resp, err := s.alarm(ctx, r)
	if err != nil {
		return nil, toStatus(err)
	}
	if resp.Header == nil {
		resp.Header = &pb.ResponseHeader{}
	}
	s.fill(resp.Header)
	return resp, nil
}

func (s *maintenanceServer) alarm(ctx context.Context, r *pb.AlarmRequest) (*pb.AlarmResponse, error) {
	switch r.Action {
	case pb.AlarmRequest_GET:
		// Health checks ask for alarms, so this must work when nothing can be written.
		if err := s.requireCaller(ctx); err != nil {
			return nil, err
		}
		return &pb.AlarmResponse{Alarms: s.store.Alarms().Get(r.Alarm)}, nil
	case pb.AlarmRequest_ACTIVATE, pb.AlarmRequest_DEACTIVATE:
	default:
		return nil, status.Errorf(codes.InvalidArgument, "dynast: unknown alarm action %d", r.Action)
	}
	if err := s.requireAdmin(ctx); err != nil {
		return nil, err
	}
	res, err := s.propose(ctx, &pb.InternalRaftRequest{Alarm: r})
	if err != nil {
		return nil, err
	}
	return res.Resp.(*pb.AlarmResponse), nil
}

// Defragment rewrites the followers' databases one after the other. Then the leader hands over,
// and the follower that takes its slot rewrites the leader's database. Only the caller waits. A
// leader without followers rewrites its own database, and everything waits for that.
func (s *maintenanceServer) Defragment(ctx context.Context, _ *pb.DefragmentRequest) (*pb.DefragmentResponse, error) {
	if err := s.requireAdmin(ctx); err != nil {
		return nil, toStatus(err)
	}
	inPlace, err := s.cluster.Defragment(ctx)
	if err != nil {
		return nil, toStatus(err)
	}
	if !inPlace {
		return &pb.DefragmentResponse{}, nil
	}
	s.logger.Info("defragmentation begins", "size_bytes", s.store.Size(), "in_use_bytes", s.store.SizeInUse())
	if err := s.store.Defrag(); err != nil {
		s.logger.Warn("defragmentation failed", "error", err)
		return nil, toStatus(err)
	}
	s.logger.Info("defragmentation ended", "size_bytes", s.store.Size())
	return &pb.DefragmentResponse{}, nil
}

func (s *maintenanceServer) Hash(ctx context.Context, _ *pb.HashRequest) (*pb.HashResponse, error) {
	if err := s.requireAdmin(ctx); err != nil {
		return nil, toStatus(err)
	}
	hash, revision, err := s.store.KV().HashStorage().Hash()
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.HashResponse{Header: &pb.ResponseHeader{Revision: revision}, Hash: hash}
	s.fill(resp.Header)
	return resp, nil
}

func (s *maintenanceServer) HashKV(ctx context.Context, r *pb.HashKVRequest) (*pb.HashKVResponse, error) {
	if err := s.requireAdmin(ctx); err != nil {
		return nil, toStatus(err)
	}
	hash, revision, err := s.store.KV().HashStorage().HashByRev(r.Revision)
	if err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.HashKVResponse{
		Header: &pb.ResponseHeader{Revision: revision},
		Hash:   hash.Hash, CompactRevision: hash.CompactRevision, HashRevision: hash.Revision,
	}
	s.fill(resp.Header)
	return resp, nil
}

// MoveLeader hands the leadership over. It answers when the hand-over is certain. The
// connection then ends with a GOAWAY, and the next request goes to the new leader.
func (s *maintenanceServer) MoveLeader(ctx context.Context, r *pb.MoveLeaderRequest) (*pb.MoveLeaderResponse, error) {
	if err := s.requireAdmin(ctx); err != nil {
		return nil, toStatus(err)
	}
	if err := s.cluster.MoveLeader(ctx, r.TargetID); err != nil {
		return nil, toStatus(err)
	}
	resp := &pb.MoveLeaderResponse{Header: &pb.ResponseHeader{}}
	s.fill(resp.Header)
	return resp, nil
}

// refuse returns an error which says that a method is not available and what to do instead. It
// checks the caller's permission first.
func (a *API) refuse(ctx context.Context, why string) error {
	if err := a.requireAdmin(ctx); err != nil {
		return toStatus(err)
	}
	return status.Error(codes.Unimplemented, "dynast: "+why)
}

// Downgrade checks what etcd checks. There is no older version to downgrade to, because only
// this version has this format.
func (s *maintenanceServer) Downgrade(ctx context.Context, r *pb.DowngradeRequest) (*pb.DowngradeResponse, error) {
	if err := s.requireAdmin(ctx); err != nil {
		return nil, toStatus(err)
	}
	current := semver.New(version.Version)
	switch r.Action {
	case pb.DowngradeRequest_CANCEL:
		// etcd gives this answer too when there is nothing to cancel.
	case pb.DowngradeRequest_VALIDATE, pb.DowngradeRequest_ENABLE:
		target, err := semver.NewVersion(r.Version)
		if err != nil {
			target, err = semver.NewVersion(r.Version + ".0")
		}
		if err != nil {
			return nil, rpctypes.ErrGRPCWrongDowngradeVersionFormat
		}
		if target.Major != current.Major || target.Minor != current.Minor-1 {
			return nil, rpctypes.ErrGRPCInvalidDowngradeTargetVersion
		}
		return nil, status.Error(codes.Unimplemented,
			"dynast: the data cannot be downgraded; to move it to an older etcd, copy the keys")
	default:
		return nil, status.Error(codes.Unknown, "etcdserver: unknown method")
	}
	resp := &pb.DowngradeResponse{Header: &pb.ResponseHeader{}, Version: fmt.Sprintf("%d.%d", current.Major, current.Minor)}
	s.fill(resp.Header)
	return resp, nil
}
