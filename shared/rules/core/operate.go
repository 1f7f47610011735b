package core

import (
	"fmt"
	"slices"

	"github.com/dynast-io/dynast/shared/rules/plural"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// MaxFollowers is the largest number of followers that an operator can ask for.
const MaxFollowers = 32

// scaleRequested changes how many followers the leader keeps. The number is part of the roster,
// so the next leader keeps the same number.
func (c *Core) scaleRequested(ev ScaleRequested) {
	l := c.lead
	want, before := ev.Followers, l.want
	if ev.Relative {
		want += before
	}
	switch busy := c.occupied(); {
	case busy != "":
		c.emit(Answer{Ref: ev.Ref, Refused: busy})
		return
	case want < 0 || want > MaxFollowers:
		c.emit(Answer{Ref: ev.Ref, Refused: fmt.Sprintf("invalid follower count %d: must be between 0 and %d", want, MaxFollowers)})
		return
	}
	l.want = want
	c.emit(Answer{Ref: ev.Ref, Before: before, Followers: want})
	if want == before {
		return
	}
	c.report(Scaled, c.self.ID, "keeping %s instead of %d", plural.Count(want, "follower"), before)
	c.publish()
	c.trim()
	c.ensureFollowers()
}

// trim retires followers if there are too many. It begins with those of another build, then
// takes those that are not in sync, then the last in line. There can also be too many because
// an earlier leader died before it told them to leave.
func (c *Core) trim() {
	line := c.roster.Line()
	slices.Reverse(line)
	slices.SortStableFunc(line, func(a, b roster.Address) int {
		foreign := func(a roster.Address) int {
			if m, _ := c.roster.Find(a); m.Version != c.self.Version {
				return 0
			}
			return 1
		}
		return foreign(a) - foreign(b)
	})
	for _, a := range line {
		if c.active() <= c.lead.want {
			break
		}
		if p := c.lead.peers[a]; p != nil && !p.member.ByHand && !p.killed {
			c.retire(p, "fewer followers are wanted")
		}
	}
	over := c.active() + len(c.pendingSpawns()) - c.lead.want
	for _, slot := range c.pendingSpawns() {
		if over--; over < 0 {
			break
		}
		c.emit(AbortSpawn{Slot: slot, Reason: "fewer followers are wanted"})
	}
}

// retire tells a follower to leave. If it does not leave in time, it is killed.
func (c *Core) retire(p *peer, reason string) {
	p.member.State = roster.Leaving
	p.leaveBy = c.now + c.cfg.StopTimeout
	c.report(MemberLeaving, p.member.ID, "%s", reason)
	c.publish()
	c.commit()
	c.emit(Dismiss{ID: p.member.ID, Reason: reason})
}

func (c *Core) removeRequested(ev RemoveRequested) {
	if ev.Address == c.self.Address {
		// The leader is removed by a hand-over. The next leader fills its place.
		c.handoverRequested(HandoverRequested{Reason: "the leader is removed", Ref: ev.Ref})
		return
	}
	p := c.lead.peers[ev.Address]
	switch busy := c.occupied(); {
	case busy != "":
		c.emit(Answer{Ref: ev.Ref, Refused: busy})
	case p == nil:
		c.emit(Answer{Ref: ev.Ref, Refused: "there is no member " + ev.Address.String()})
	case p.member.State == roster.Leaving || p.killed:
		c.emit(Answer{Ref: ev.Ref, Refused: ev.Address.String() + " is already leaving"})
	default:
		c.emit(Answer{Ref: ev.Ref, Member: p.member.ID})
		c.retire(p, "removed by an operator")
		c.ensureFollowers()
	}
}
