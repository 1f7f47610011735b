package core

import (
	"time"

	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// View is a snapshot of what the leader knows about its cluster.
type View struct {
	Roster    *roster.Roster
	Deaths    []Death
	Role      Role
	Appended  entry.Position
	Committed uint64
	Degraded  bool
	Stopping  bool
	Followers map[roster.Address]FollowerView
}

// FollowerView is what the leader knows about one follower.
type FollowerView struct {
	Match        uint64
	HeartbeatAge time.Duration
}

// View returns a copy that later steps do not change. now is the time as in Step.
func (c *Core) View(now time.Duration) View {
	v := View{
		Roster: c.roster, Deaths: c.deaths, Role: c.role,
		Appended: c.appended, Committed: c.committed,
	}
	if c.lead == nil {
		return v
	}
	v.Degraded = c.lead.degraded
	v.Stopping = c.lead.stop.phase != stopNot
	v.Followers = make(map[roster.Address]FollowerView, len(c.lead.peers))
	for a, p := range c.lead.peers {
		v.Followers[a] = FollowerView{Match: p.match, HeartbeatAge: max(now-p.lastHeard, 0)}
	}
	return v
}
