package serve

import (
	"context"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	"google.golang.org/grpc/metadata"

	"github.com/dynast-io/dynast/shared/client/api"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state"
)

// byID finds a member by the ID that clients know.
func (c *cluster) byID(id uint64) (roster.Member, bool) {
	for _, m := range c.Roster().Members {
		if memberID(m.Address) == id {
			return m, true
		}
	}
	return roster.Member{}, false
}

// MoveLeader hands over the leadership. A move to the leader itself does nothing, as in etcd.
func (c *cluster) MoveLeader(ctx context.Context, id uint64) error {
	to, ok := c.byID(id)
	if !ok {
		return rpctypes.ErrGRPCBadLeaderTransferee
	}
	if to.Address == c.Self.Address {
		return nil
	}
	_, err := c.Request(ctx, func(ref chan core.Answer) core.Event {
		return core.HandoverRequested{To: to.Address, Reason: "a client moves the leader", Ref: ref}
	})
	return err
}

// Remove retires a member.
func (c *cluster) Remove(ctx context.Context, id uint64) error {
	member, ok := c.byID(id)
	if !ok {
		return rpctypes.ErrGRPCMemberNotFound
	}
	_, err := c.Request(ctx, func(ref chan core.Answer) core.Event {
		return core.RemoveRequested{Address: member.Address, Ref: ref}
	})
	return err
}

// Defragment makes all members defragment.
func (c *cluster) Defragment(ctx context.Context) (inPlace bool, err error) {
	answer, err := c.Request(ctx, func(ref chan core.Answer) core.Event {
		return core.DefragmentRequested{Ref: ref}
	})
	return answer.InPlace, err
}

// cluster is the cluster as clients see it.
type cluster struct{ *state.Shared }

var _ api.Cluster = (*cluster)(nil)

func (c *cluster) Epoch() uint64 { return c.State.Epoch.Load() }

// Metadata names the leader, the heir and the members.
func (c *cluster) Metadata() (md metadata.MD, version uint64) {
	p := c.Published()
	return p.Metadata, p.Version
}

// Members lists the roster for stock clients. Only the leader has a client URL, so that a
// client which replaces its endpoints by the list keeps the one address.
func (c *cluster) Members() []api.Member {
	r := c.Roster()
	out := make([]api.Member, 0, len(r.Members))
	for _, mem := range r.Members {
		cm := api.Member{ID: memberID(mem.Address), Name: mem.Address.String(), Address: mem.Address.String()}
		if mem.Address == r.Leader {
			cm.IsLeader = true
			cm.ClientURLs = []string{c.scheme() + r.Client}
		}
		out = append(out, cm)
	}
	return out
}

func (c *cluster) scheme() string {
	if c.Settings.Start.Client.TLS() {
		return "https://"
	}
	return "http://"
}

// memberID computes a member's ID from its address. It is the same in every process.
func memberID(a roster.Address) uint64 {
	const offset, prime = 14695981039346656037, 1099511628211 // FNV-1a, 64 bit
	h := uint64(offset)
	for _, b := range []byte(a.String()) {
		h = (h ^ uint64(b)) * prime
	}
	return h
}
