package api

import (
	"context"
	"fmt"
	"math/rand/v2"
	"testing"

	pb "go.etcd.io/etcd/api/v3/etcdserverpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3election/v3electionpb"
	"go.etcd.io/etcd/server/v3/etcdserver/api/v3lock/v3lockpb"
	"google.golang.org/grpc"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
)

const lockRequests = 400

// TestLocksSameAsEtcd sends the same random requests of the services Lock and Election to a
// real etcd and to an API, with leases that come and go, and compares the answers. There is one
// lease at a time, so no lease waits for another.
func TestLocksSameAsEtcd(t *testing.T) {
	seed := newSeed(t)
	ours := serve(t, nil)
	grantLease(t, ours) // as startEtcd does
	their, our := dial(t, spawnEtcd(t)), dial(t, ours.address)
	g := &lockGenerator{Rand: rand.New(rand.NewPCG(seed, 4)), won: &v3electionpb.LeaderKey{}}
	kinds := map[string]int{}
	for i := range lockRequests {
		kind, s := g.next()
		_, want := compare(t, fmt.Sprintf("seed %d step %d: %s", seed, i, s.what), kindOfStep{s, kind}, our, their)
		kinds[kind+": "+status.Convert(want.err).Message()]++
		if r, ok := want.msg.(*v3electionpb.CampaignResponse); ok && want.err == nil {
			g.won = r.Leader
		}
	}
	for kind, n := range kinds {
		t.Logf("%5d %s", n, kind)
	}
}

type lockGenerator struct {
	*rand.Rand
	// won is the result of the last campaign, which may be over for long.
	won *v3electionpb.LeaderKey
}

func (g *lockGenerator) next() (kind string, s step) {
	name := fmt.Appendf(nil, "n%d", g.IntN(3))
	lease := int64(leaseID)
	if g.IntN(10) == 0 {
		lease = 7 // none
	}
	key := fmt.Appendf(nil, "%s/%x", name, lease)
	won := proto.Clone(g.won).(*v3electionpb.LeaderKey)
	value := fmt.Append(nil, g.IntN(3))
	request := func(kind string, send func(context.Context, *grpc.ClientConn) (proto.Message, error)) (string, step) {
		return kind, step{fmt.Sprintf("%s of %s by %d, won %v", kind, name, lease, won), send}
	}
	switch g.IntN(9) {
	case 0, 1:
		return request("lock", func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			return v3lockpb.NewLockClient(c).Lock(ctx, &v3lockpb.LockRequest{Name: name, Lease: lease})
		})
	case 2:
		return request("unlock", func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			return v3lockpb.NewLockClient(c).Unlock(ctx, &v3lockpb.UnlockRequest{Key: key})
		})
	case 3, 4:
		return request("campaign", func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			return v3electionpb.NewElectionClient(c).Campaign(ctx, &v3electionpb.CampaignRequest{Name: name, Lease: lease, Value: value})
		})
	case 5:
		return request("proclaim", func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			return v3electionpb.NewElectionClient(c).Proclaim(ctx, &v3electionpb.ProclaimRequest{Leader: won, Value: value})
		})
	case 6:
		return request("leader", func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			return v3electionpb.NewElectionClient(c).Leader(ctx, &v3electionpb.LeaderRequest{Name: name})
		})
	case 7:
		return request("resign", func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
			return v3electionpb.NewElectionClient(c).Resign(ctx, &v3electionpb.ResignRequest{Leader: won})
		})
	}
	return request("the lease anew", func(ctx context.Context, c *grpc.ClientConn) (proto.Message, error) {
		leases := pb.NewLeaseClient(c)
		if _, err := leases.LeaseRevoke(ctx, &pb.LeaseRevokeRequest{ID: leaseID}); err != nil {
			return nil, err
		}
		return leases.LeaseGrant(ctx, &pb.LeaseGrantRequest{ID: leaseID, TTL: 3600})
	})
}
