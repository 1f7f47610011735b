package core

import (
	"time"

	"github.com/dynast-io/dynast/shared/entry"
	"github.com/dynast-io/dynast/shared/roster"
)

// View is what a leader can tell of its cluster at one moment.
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

// FollowerView is what the leader knows of one follower.
type FollowerView struct {
	Match        uint64
	HeartbeatAge time.Duration
}

// View returns a copy that stays as it is. now is the time as for Step.
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
		v.Followers[a] = FollowerView{Match: p.match, HeartbeatAge: max(now-p.heard, 0)}
	}
	return v
}
