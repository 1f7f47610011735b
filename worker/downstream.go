package worker

import (
	"sync"
	"time"

	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/entry"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/wire"
)

// courtship is how long a stream may wait for this member to lead.
const courtship = time.Second

// downstream is the leader's side: a session for each follower's stream.
type downstream struct {
	wire.UnimplementedMemberServer
	m *Member

	mu       sync.Mutex
	sessions map[roster.ID]*session
	waiting  []*session // pace's, used again
	pace     *pace
}

func newDownstream(m *Member) *downstream {
	d := &downstream{m: m, sessions: map[roster.ID]*session{}}
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

// sendFrom sends what follows the position with which the follower came, if after is
// that: it may be meant for an earlier stream.
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

// dismiss tells a follower to leave; false when it has no stream.
func (d *downstream) dismiss(id roster.ID, reason string) bool {
	s := d.find(id)
	if s != nil {
		s.update(func() { s.leave = &reason })
	}
	return s != nil
}

// requestDigest asks a follower for a checksum; false when it has no stream.
func (d *downstream) requestDigest(id roster.ID, revision int64) bool {
	s := d.find(id)
	if s != nil {
		s.update(func() { s.digest = &revision })
	}
	return s != nil
}

// defragment asks a follower to rewrite its database. Without a stream it is
// asked when it has one.
func (d *downstream) defragment(id roster.ID) {
	if s := d.find(id); s != nil {
		s.update(func() { s.defrag = true })
	}
}

// Follow serves a follower's stream. It makes no call to anybody: it posts
// events, and sends what the loop says.
func (d *downstream) Follow(stream wire.Member_FollowServer) error {
	m := d.m
	// A survivor comes as soon as the old leader is dead, to whom is next in
	// line; that may be before this member leads.
	select {
	case <-m.leads:
	case <-stream.Context().Done():
		return stream.Context().Err()
	case <-time.After(courtship):
		return status.Error(codes.Unavailable, "this member does not lead")
	}
	first, err := stream.Recv()
	if err != nil {
		return err
	}
	peer, hello, err := m.checkHello(first.GetHello())
	if err != nil {
		m.logger.Warn("a follower was refused", "error", err)
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
	m.post(core.Joined{Member: peer, Last: last, CanResume: can})
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
		d.m.post(core.Parted{ID: s.id})
	}
}

// checkHello refuses who does not belong to this cluster, or to this host.
func (m *Member) checkHello(h *wire.Hello) (roster.Member, *wire.Hello, error) {
	if h == nil {
		return roster.Member{}, nil, status.Error(codes.InvalidArgument, "the first message of a stream is hello")
	}
	peer, err := wire.ToMember(h.Member)
	switch {
	case err != nil:
		return peer, nil, status.Errorf(codes.InvalidArgument, "hello: %v", err)
	case h.ClusterId != m.clusterID:
		return peer, nil, status.Errorf(codes.PermissionDenied, "member %s belongs to cluster %x, this is cluster %x", peer.Address, h.ClusterId, m.clusterID)
	case h.BootId != m.bootID:
		return peer, nil, status.Error(codes.FailedPrecondition, m.otherHost(peer.Address).Error())
	}
	return peer, h, nil
}

// mine reports whether a position may lie in this log: it does, or it is so far
// back that this cannot be told any more. After a loss, a follower can have entries in
// the place of the leader's, and more of them.
func (m *Member) mine(p entry.Position) bool {
	log := m.replica.current().log
	if p.Index > log.Last().Index {
		return false
	}
	epoch, ok := log.EpochAt(p.Index)
	return !ok || epoch == p.Epoch
}
