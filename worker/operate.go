package worker

import (
	"context"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/roster"
)

// request hands an operator's request to the loop and waits for the answer. The
// error is a gRPC status.
func (m *Member) request(ctx context.Context, event func(ref chan core.Answer) core.Event) (core.Answer, error) {
	ref := make(chan core.Answer, 1)
	m.post(event(ref))
	select {
	case answer := <-ref:
		if answer.Refused != "" {
			return answer, status.Error(codes.FailedPrecondition, "dynast: "+answer.Refused)
		}
		return answer, nil
	case <-ctx.Done():
		return core.Answer{}, status.FromContextError(ctx.Err()).Err()
	case <-m.ended:
		return core.Answer{}, status.Error(codes.Unavailable, "dynast: the leader is ending")
	}
}

// byID finds the member that clients know by a number.
func (c *clusterView) byID(id uint64) (roster.Member, bool) {
	for _, m := range c.m.roster().Members {
		if memberID(m.Address) == id {
			return m, true
		}
	}
	return roster.Member{}, false
}

// MoveLeader hands over. To the leader itself there is nothing to do, as in etcd.
func (c *clusterView) MoveLeader(ctx context.Context, id uint64) error {
	to, ok := c.byID(id)
	if !ok {
		return rpctypes.ErrGRPCBadLeaderTransferee
	}
	if to.Address == c.m.address {
		return nil
	}
	_, err := c.m.request(ctx, func(ref chan core.Answer) core.Event {
		return core.HandoverRequested{To: to.Address, Reason: "a client moves the leader", Ref: ref}
	})
	return err
}

// Remove retires a member.
func (c *clusterView) Remove(ctx context.Context, id uint64) error {
	member, ok := c.byID(id)
	if !ok {
		return rpctypes.ErrGRPCMemberNotFound
	}
	_, err := c.m.request(ctx, func(ref chan core.Answer) core.Event {
		return core.RemoveRequested{Address: member.Address, Ref: ref}
	})
	return err
}

// Defragment has all members defragment.
func (c *clusterView) Defragment(ctx context.Context) (inPlace bool, err error) {
	answer, err := c.m.request(ctx, func(ref chan core.Answer) core.Event {
		return core.DefragmentRequested{Ref: ref}
	})
	return answer.InPlace, err
}
