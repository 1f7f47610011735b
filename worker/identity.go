package worker

import (
	"sync/atomic"

	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/rules/roster"
)

// identity is how this member introduces itself.
type identity struct {
	me atomic.Pointer[roster.Member]
	// opening says that a follower is opening its copy and has no loop yet.
	opening atomic.Bool
}

// set is called before the member sends anything to another process.
func (i *identity) set(m roster.Member) { i.me.Store(&m) }

func (i *identity) byHand() bool { return i.me.Load().ByHand }

// lead makes this member introduce itself as the leader.
func (i *identity) lead() {
	self := *i.me.Load()
	self.Role, self.State = roster.Leader, roster.Serving
	i.me.Store(&self)
}

// describe returns this member as it introduces itself.
func (m *Member) describe() roster.Member {
	self := *m.identity.me.Load()
	slot := m.replica.Current().Slot
	self.Slot, self.OwesDefrag = slot.Number, slot.OwesDefrag()
	self.Plugin = m.control.Socket()
	if self.ByHand {
		self.Protocol = member.ControlProtocol // it had no handshake that could negotiate a version
	}
	return self
}
