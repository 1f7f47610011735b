package link

import (
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state"
)

// leadWait is how long a follower's stream may wait until this member leads.
const leadWait = time.Second

// downstream is the leader's side: a session for each follower's stream.
type downstream struct {
	wire.UnimplementedMemberServer
	*state.Shared
	replica Replica
	silence *silence
	rebuilt func(roster.ID, string)
	sockets *member.Sockets

	mu       sync.Mutex
	sessions map[roster.ID]*session
	waiting  []*session // used by pace, kept here to be reused
	pace     *pace
}

func newDownstream(c Config, silence *silence) *downstream {
	d := &downstream{Shared: c.Shared, replica: c.Replica, silence: silence, rebuilt: c.Rebuilt, sockets: c.Sockets, sessions: map[roster.ID]*session{}}
	d.pace = newPace(d)
	return d
}

func (d *downstream) find(id roster.ID) *session {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.sessions[id]
}

// each calls f for every session.
func (d *downstream) each(f func(*session)) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, s := range d.sessions {
		f(s)
	}
}

func (d *downstream) replicate() { d.each((*session).notify) }
func (d *downstream) beat()      { d.each(func(s *session) { s.update(func() { s.beat = true }) }) }
func (d *downstream) tellDeaths() {
	d.each(func(s *session) { s.update(func() { s.deaths = true }) })
}

// sendFrom sends the entries after the position that the follower reported when it connected.
// It does nothing if after is another position: then it was meant for an earlier stream.
func (d *downstream) sendFrom(id roster.ID, after uint64) {
	s := d.find(id)
	if s == nil {
		return
	}
	s.update(func() {
		if s.sent.Index == after {
			s.mode, s.snapshot = modeEntries, false
		}
	})
}

func (d *downstream) sendSnapshot(id roster.ID) {
	if s := d.find(id); s != nil {
		s.update(func() { s.mode, s.snapshot, s.copy, s.copied = modeSnapshot, true, nil, false })
	}
}

// dismiss tells a follower to leave. It returns false if the follower has no stream.
func (d *downstream) dismiss(id roster.ID, reason string) bool {
	s := d.find(id)
	if s != nil {
		s.update(func() { s.leave = &reason })
	}
	return s != nil
}

// requestDigest asks a follower for a checksum. It returns false if the follower has no stream.
func (d *downstream) requestDigest(id roster.ID, revision int64) bool {
	s := d.find(id)
	if s != nil {
		s.update(func() { s.digest = &revision })
	}
	return s != nil
}

// defragment asks a follower to rewrite its database. The core asks again when a follower
// without a stream joins.
func (d *downstream) defragment(id roster.ID) {
	if s := d.find(id); s != nil {
		s.update(func() { s.defrag = true })
	}
}

// Follow serves a follower's stream. It makes no calls: it posts events, and sends what the
// loop says.
func (d *downstream) Follow(stream wire.Member_FollowServer) error {
	// A surviving follower connects to the next in line as soon as the old leader is dead.
	// That may be before this member leads.
	select {
	case <-d.Leads:
	case <-stream.Context().Done():
		return stream.Context().Err()
	case <-time.After(leadWait):
		return status.Error(codes.Unavailable, "this member does not lead")
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	peer, hello, err := d.checkHello(first.GetHello())
	if err != nil {
		d.Log.Warn("refused a follower", "error", err)
		return err
	}
	s := &session{id: peer.ID, d: d, stream: stream, wake: make(chan struct{}, 1), gone: make(chan struct{}), deaths: true, config: true}
	d.mu.Lock()
	old := d.sessions[peer.ID]
	d.sessions[peer.ID] = s
	d.mu.Unlock()
	if old != nil {
		old.end()
	}
	defer d.drop(s)
	defer s.closeReader()
	last := wire.ToPosition(hello.GetLast())
	can := s.resume(last)
	d.Post(core.Joined{Member: peer, Last: last, CanResume: can})
	go s.receive()
	return s.send()
}

func (d *downstream) drop(s *session) {
	s.end()
	d.mu.Lock()
	current := d.sessions[s.id] == s
	if current {
		delete(d.sessions, s.id)
	}
	d.mu.Unlock()
	if current {
		d.Post(core.Parted{ID: s.id})
	}
}

// checkHello refuses a process that belongs to another cluster or runs on another host.
func (d *downstream) checkHello(h *wire.Hello) (roster.Member, *wire.Hello, error) {
	if h == nil {
		return roster.Member{}, nil, status.Error(codes.InvalidArgument, "the first message on a stream must be hello")
	}
	peer, err := wire.ToMember(h.Member)
	switch {
	case err != nil:
		return peer, nil, status.Errorf(codes.InvalidArgument, "hello: %v", err)
	case h.ClusterId != d.Self.ClusterID:
		return peer, nil, status.Errorf(codes.PermissionDenied, "member %s belongs to cluster %x, this is cluster %x", peer.Address, h.ClusterId, d.Self.ClusterID)
	case h.BootId != d.Self.BootID:
		return peer, nil, status.Error(codes.FailedPrecondition, d.OtherHost(peer.Address).Error())
	}
	return peer, h, nil
}

// tellConfig sends the configuration to all followers.
func (d *downstream) tellConfig() {
	d.each(func(s *session) { s.update(func() { s.config = true }) })
}

// informed counts the followers with a stream, and those among them that use the configuration
// with this checksum.
func (d *downstream) informed(sum uint64) (informed, all int) {
	d.each(func(s *session) {
		s.mu.Lock()
		defer s.mu.Unlock()
		all++
		if s.informed == sum {
			informed++
		}
	})
	return informed, all
}
