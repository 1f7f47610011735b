package link

import (
	"context"
	"fmt"
	"net"
	"time"

	"google.golang.org/grpc"
	"google.golang.org/grpc/credentials"

	"github.com/dynast-io/dynast/shared/client/gate"
	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member"
	"github.com/dynast-io/dynast/shared/member/pki"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/replica/store"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/replica"
	"github.com/dynast-io/dynast/worker/state"
)

const (
	// strangerPatience is how long a connection may take to show a certificate of the cluster.
	strangerPatience = 5 * time.Second
	// A member needs one stream, and sends only small headers.
	maxMemberStreams     = 16
	maxMemberHeaderBytes = 16 << 10
	// maxMemberMessage bounds a message between members. A batch holds at least one entry,
	// and a request has at most some megabytes.
	maxMemberMessage = 64 << 20
)

// Replica is what this package needs from the member's copy of the data.
type Replica interface {
	Current() replica.Copy
	Last() entry.Position
	Contains(entry.Position) bool
	// Behind runs do when all entries that were queued to be appended are in the log.
	Behind(do func())
	Supersede()
	Snapshot(context.Context) (store.Snapshot, error)
	RoomForSnapshot(bytes int64) error
	Receive(first *wire.SnapshotChunk) (*replica.SnapshotFile, error)
	Install(at entry.Position) error
	Defragment(done func(error))
	Digest(ctx context.Context, revision int64) *wire.Digest
	Answered(roster.ID, *wire.Digest)
}

// Config holds what New needs.
type Config struct {
	Shared    *state.Shared
	Replica   Replica
	Authority *pki.Authority
	// MaxStrangers bounds the connections that have not shown a certificate of the cluster
	// yet. One more closes the oldest silent one: a member sends its certificate at once.
	MaxStrangers int
	// Describe returns this member as it introduces itself.
	Describe func() roster.Member
	// Configure applies the leader's configuration. sockets names the sockets that all members
	// share.
	Configure func(encoded []byte, sockets []string) error
	// Sockets are those that all members share.
	Sockets *member.Sockets
	// Rebuilt records that a follower gets the whole database.
	Rebuilt func(id roster.ID, detail string)
}

// Links are a member's streams to the other members.
type Links struct {
	*state.Shared
	up        *upstream
	down      *downstream
	silence   *silence
	starts    *starts
	authority *pki.Authority
	strangers int // the maximum number of connections without a certificate

	sawStopped bool // the leader was stopped at the last heartbeat; only the loop uses it
}

// New creates the links. They do nothing before Serve or Follow.
func New(c Config) *Links {
	silence := newSilence(c.Shared)
	return &Links{Shared: c.Shared, authority: c.Authority, strangers: c.MaxStrangers, silence: silence,
		up: newUpstream(c, silence), down: newDownstream(c, silence), starts: &starts{Shared: c.Shared, seen: map[roster.ID]progress{}}}
}

// Serve accepts connections from other members. Only a leader serves their streams. But
// listening early means that a surviving follower gets an answer, and not a closed port.
func (l *Links) Serve(listener net.Listener) {
	limits := gate.Limits{Unproven: l.strangers, Total: wire.MaxMembers, Patience: strangerPatience}
	s := grpc.NewServer(
		grpc.Creds(gate.Credentials(credentials.NewTLS(l.authority.ServerTLS()))),
		grpc.MaxConcurrentStreams(maxMemberStreams), grpc.MaxHeaderListSize(maxMemberHeaderBytes),
		grpc.MaxRecvMsgSize(maxMemberMessage),
		grpc.InitialWindowSize(8<<20), grpc.InitialConnWindowSize(8<<20),
		grpc.ConnectionTimeout(strangerPatience),
	)
	wire.RegisterMemberServer(s, l.down)
	go func() {
		if err := s.Serve(gate.New("members", limits, l.Log).Listener(listener)); err != nil {
			l.Fatal(core.ExitError, fmt.Errorf("serve members on %s: %w", l.Self.Address, err))
		}
	}()
}

// Beat sends heartbeats and checks the members that have been silent for a while.
func (l *Links) Beat() {
	if l.Leading.Load() {
		l.down.beat()
		l.silence.look(time.Now(), true)
		return
	}
	l.up.heartbeat()
	l.lookAtLeader()
	l.silence.look(time.Now(), false)
}

// lookAtLeader asks the kernel whether a signal has stopped the leader. If the leader is dead
// by the time of the answer, its pidfd corrects it.
func (l *Links) lookAtLeader() {
	leader, ok := l.Roster().LeaderMember()
	if !ok {
		return
	}
	stopped := proc.Stopped(proc.Identity{PID: leader.PID, StartTime: leader.StartTime})
	if stopped || l.sawStopped {
		l.sawStopped = stopped
		l.Post(core.LeaderStopped{ID: leader.ID, Stopped: stopped})
	}
}

// LookAtStarts tells the core which starting followers make progress.
func (l *Links) LookAtStarts(now time.Time) { l.starts.look(now) }

// LastHeard returns when a member was last heard.
func (l *Links) LastHeard(id roster.ID, now time.Time) time.Time { return l.silence.lastHeard(id, now) }

// The methods of a follower.

// Follow opens the stream to a leader in place of the previous one. A stream that already goes
// to the same process stays open.
func (l *Links) Follow(leader roster.Member) { l.up.follow(leader) }

// Unfollow ends the stream. Messages that still arrive on it are dropped.
func (l *Links) Unfollow() { l.up.stop() }

// Ack tells the leader how far this member's log reaches.
func (l *Links) Ack(last entry.Position) { l.up.ack(last) }

// Resync reopens the stream to the leader, starting after the last entry in the log.
func (l *Links) Resync(reason string) { l.up.resync(reason) }

// Heartbeat tells the leader at once that this member is alive, and which configuration it
// uses.
func (l *Links) Heartbeat() { l.up.heartbeat() }

// KeepWarm keeps a connection to the heir open, unless this member is the heir.
func (l *Links) KeepWarm(r *roster.Roster) { l.up.keepWarm(r) }

// The methods of a leader.

// Replicate wakes all sessions, because something that every message carries has changed.
func (l *Links) Replicate() { l.down.replicate() }

// Appended makes the sessions send new entries, which have this many bytes.
func (l *Links) Appended(bytes int) { l.down.pace.appended(bytes) }

// Committed makes the sessions send the new commit index.
func (l *Links) Committed() { l.down.pace.committed() }

// TellDeaths sends the last deaths to all followers.
func (l *Links) TellDeaths() { l.down.tellDeaths() }

// TellConfig sends the configuration to all followers.
func (l *Links) TellConfig() { l.down.tellConfig() }

// Informed counts the followers with a stream, and those among them that use the configuration
// with this checksum.
func (l *Links) Informed(sum uint64) (informed, all int) { return l.down.informed(sum) }

// SendFrom sends a follower the entries after an index.
func (l *Links) SendFrom(id roster.ID, after uint64) { l.down.sendFrom(id, after) }

// SendSnapshot sends a follower the database.
func (l *Links) SendSnapshot(id roster.ID) { l.down.sendSnapshot(id) }

// Dismiss tells a follower to leave. It returns false if the follower has no stream.
func (l *Links) Dismiss(id roster.ID, reason string) bool { return l.down.dismiss(id, reason) }

// Defragment asks a follower to rewrite its database.
func (l *Links) Defragment(id roster.ID) { l.down.defragment(id) }

// RequestDigest asks a follower for a checksum. It returns false if the follower has no stream.
func (l *Links) RequestDigest(id roster.ID, revision int64) bool {
	return l.down.requestDigest(id, revision)
}

// Needed returns the index after which a follower needs the log. ok is false if the follower
// has no stream.
func (l *Links) Needed(id roster.ID) (after uint64, ok bool) {
	s := l.down.find(id)
	if s == nil {
		return 0, false
	}
	return s.needed(), true
}
