package core

import (
	"fmt"
	"maps"
	"slices"

	"github.com/dynast-io/dynast/shared/rules/roster"
)

// Copies are the checksums of the keys of the leader and its followers at one revision.
type Copies struct {
	Leader roster.ID
	// Own is the leader's checksum, and Others are those of the followers that answered now.
	Own    uint32
	Others map[roster.ID]uint32
	// Agreed is the number of further followers that are known to have the leader's checksum.
	Agreed int
	// Wanted is the number of followers that the cluster has or is going to have.
	Wanted int
}

// Judge returns an event for each member whose keys differ from what they must be. If two or more
// followers agree with each other, and more members have their content than the leader's, the
// leader's copy is the wrong one. Otherwise the leader's copy is right.
//
// But while further copies are still to come, the leader's copy is right only if more members have
// its content. Otherwise a leader with a wrong copy would delete the right one of its first follower.
func (c Copies) Judge(detail string) []ReplicaDiffers {
	votes := map[uint32]int{c.Own: 1 + c.Agreed}
	for _, h := range c.Others {
		votes[h]++
	}
	right := c.Own
	for h, n := range votes {
		if n >= 2 && n > votes[right] {
			right = h
		}
	}
	var differ []ReplicaDiffers
	moreToCome := c.Agreed+len(c.Others) < c.Wanted
	ids := slices.SortedFunc(maps.Keys(c.Others), func(a, b roster.ID) int { return a.Address.Compare(b.Address) })
	for _, id := range ids {
		if h := c.Others[id]; h != c.Own {
			detail += fmt.Sprintf(", %s has %08x", id.Address, h)
			differ = append(differ, ReplicaDiffers{ID: id, Undecided: moreToCome && votes[h] >= votes[c.Own]})
		}
	}
	if right != c.Own {
		differ = []ReplicaDiffers{{ID: c.Leader}} // the next leader finds a follower that differs too
	}
	for i := range differ {
		differ[i].Detail = detail
	}
	return differ
}

// replicaDiffers condemns a replica whose keys differ from what they must be, and ends its
// member: such a replica is worse than none. If the leader's own replica is the wrong one, the
// leader hands over. If nobody can tell yet which replica is wrong, the leader reports that once.
func (c *Core) replicaDiffers(ev ReplicaDiffers) {
	if ev.ID == c.self.ID {
		to, refused := c.successor(roster.Address{})
		c.report(Differs, ev.ID, "%s%s", ev.Detail, prefixed("; the leader stays: ", refused))
		if refused == "" {
			c.handOver(to, handoverState{reason: "the leader's keys differ from those of its followers", condemn: ev.Detail})
		}
		return
	}
	p := c.lead.peer(ev.ID)
	if p == nil || p.killed {
		return
	}
	if ev.Undecided {
		if !p.disputed {
			p.disputed = true
			c.report(Differs, ev.ID, "%s; a further copy has to show which one is wrong", ev.Detail)
		}
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
