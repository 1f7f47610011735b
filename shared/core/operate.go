package core

import (
	"fmt"
	"slices"

	"github.com/dynast-io/dynast/shared/roster"
)

// MaxFollowers is the most that an operator can ask for.
const MaxFollowers = 32

// scaleRequested changes how many followers are kept. The number is part of the
// roster, so the next leader keeps as many.
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
		c.emit(Answer{Ref: ev.Ref, Refused: fmt.Sprintf("%d followers cannot be kept, 0 to %d can", want, MaxFollowers)})
		return
	}
	l.want = want
	c.emit(Answer{Ref: ev.Ref, Before: before, Followers: want})
	if want == before {
		return
	}
	c.report(Scaled, c.self.ID, "%d followers are kept, %d were", want, before)
	c.publish()
	c.trim()
	c.ensureFollowers()
}

// trim retires followers that are too many: first those of another build, then those
// that are not in sync, then the last in line. That there are too many can be left
// over from a leader that died before it had told them.
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

// retire tells a follower to leave; one that does not go is killed.
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
		// The leader leaves by handing over; its place is filled by the next.
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
		c.emit(Answer{Ref: ev.Ref, Refused: ev.Address.String() + " is leaving already"})
	default:
		c.emit(Answer{Ref: ev.Ref, Member: p.member.ID})
		c.retire(p, "removed by an operator")
		c.ensureFollowers()
	}
}

// replicaDiffers: a replica with other keys than it must have is worth less
// than none. Where the leader's own is the odd one, it leads no longer.
func (c *Core) replicaDiffers(ev ReplicaDiffers) {
	if ev.ID == c.self.ID {
		to, refused := c.successor(roster.Address{})
		c.report(Differs, ev.ID, "%s%s", ev.Detail, prefixed("; nothing is done: ", refused))
		if refused == "" {
			c.handOver(to, handoverState{reason: "the leader's keys differ from those of its followers", condemn: ev.Detail})
		}
		return
	}
	p := c.lead.peer(ev.ID)
	if p == nil || p.killed {
		return
	}
	c.report(Differs, ev.ID, "%s", ev.Detail)
	c.emit(Condemn{Slot: p.member.Slot, Reason: ev.Detail})
	c.kill(p, "its keys differ from the leader's")
}

func prefixed(prefix, s string) string {
	if s == "" {
		return ""
	}
	return prefix + s
}
