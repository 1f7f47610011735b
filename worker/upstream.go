package worker

import (
	"bytes"
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/entry"
	"github.com/dynast-io/dynast/shared/roster"
	"github.com/dynast-io/dynast/shared/wire"
)

const (
	// retryMin and retryMax bound the pause between two attempts to open the
	// stream to the leader.
	retryMin = 2 * time.Millisecond
	retryMax = 100 * time.Millisecond
	// maxMemberMessage bounds a message between members: a batch holds at least
	// one entry, and a request has at most some megabytes.
	maxMemberMessage = 64 << 20
)

// received is what core.Received refers to.
type received struct{ entries []entry.Entry }

// upstream is a follower's one stream to its leader.
type upstream struct {
	m *Member

	mu     sync.Mutex
	target roster.ID          // whom the stream goes to
	cancel context.CancelFunc // of the stream; nil: there is none
	warm   *warmConn
	redo   context.CancelFunc // of the current attempt
	acked  entry.Position
	beat   bool
	// answers to the leader's requests, to be sent on the stream that is open then.
	answers []*wire.FollowerMessage
	notify  chan struct{}
}

func newUpstream(m *Member) *upstream {
	return &upstream{m: m, notify: make(chan struct{}, 1)}
}

// follow opens the stream to a leader, in place of the one before. One that
// goes to the same process already stays.
func (u *upstream) follow(leader roster.Member) {
	u.mu.Lock()
	same := u.cancel != nil && u.target == leader.ID
	u.mu.Unlock()
	if same {
		return
	}
	u.stop()
	ctx, cancel := context.WithCancel(context.Background())
	u.mu.Lock()
	u.cancel, u.target = cancel, leader.ID
	u.mu.Unlock()
	go u.run(ctx, leader)
}

// stop ends the stream; nothing that is still to come from it is reported.
func (u *upstream) stop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.cancel != nil {
		u.cancel()
		u.cancel = nil
	}
}

// resync opens the stream anew, from where the log is.
func (u *upstream) resync(reason string) {
	u.m.logger.Warn("stream to the leader starts anew", "reason", reason)
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.redo != nil {
		u.redo()
	}
}

func (u *upstream) wake() {
	select {
	case u.notify <- struct{}{}:
	default:
	}
}

func (u *upstream) ack(last entry.Position) {
	u.mu.Lock()
	u.acked = last
	u.mu.Unlock()
	u.wake()
}

func (u *upstream) heartbeat() {
	u.mu.Lock()
	u.beat = true
	u.mu.Unlock()
	u.wake()
}

// answer tells the leader, this one or the next, what it asked for.
func (u *upstream) answer(msg *wire.FollowerMessage) {
	u.mu.Lock()
	u.answers = append(u.answers, msg)
	u.mu.Unlock()
	u.wake()
}

// run keeps the stream open until ctx ends. Failures are no events: the
// leader's silence, or its death, is what counts.
func (u *upstream) run(ctx context.Context, leader roster.Member) {
	conn, err := u.connection(leader.ID)
	if err != nil {
		u.m.fatal(core.ExitError, fmt.Errorf("dial leader %s: %w", leader.Address, err))
		return
	}
	defer conn.Close()
	pause := retryMin
	for ctx.Err() == nil {
		began := time.Now()
		err := u.once(ctx, leader.ID, wire.NewMemberClient(conn))
		if ctx.Err() != nil {
			return
		}
		if time.Since(began) > time.Second {
			pause = retryMin
		}
		u.m.logger.Debug("stream to the leader ended", "leader", leader.Address, "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(pause*2, retryMax)
	}
}

// once opens one stream and serves it to its end.
func (u *upstream) once(parent context.Context, leader roster.ID, client wire.MemberClient) error {
	ctx, cancel := context.WithCancel(parent)
	defer cancel()
	u.mu.Lock()
	u.redo = cancel
	u.mu.Unlock()
	stream, err := client.Follow(ctx)
	if err != nil {
		return fmt.Errorf("open: %w", err)
	}
	if err := stream.Send(u.hello()); err != nil {
		return fmt.Errorf("hello: %w", err)
	}
	go u.send(ctx, cancel, stream)
	in := &inbound{u: u, ctx: ctx, leader: leader}
	defer in.close()
	for {
		msg, err := stream.Recv()
		if err != nil {
			return err
		}
		if ctx.Err() != nil {
			return ctx.Err()
		}
		if err := in.take(msg); err != nil {
			return err
		}
	}
}

func (u *upstream) hello() *wire.FollowerMessage {
	m := u.m
	return &wire.FollowerMessage{
		Roster: m.rosterBytes(),
		Body: &wire.FollowerMessage_Hello{Hello: &wire.Hello{
			Member: wire.FromMember(m.selfMember()),
			Last:   wire.FromPosition(m.replica.last()),
			BootId: m.bootID, ClusterId: m.clusterID,
		}},
	}
}

// send writes acknowledgements and heartbeats; several that wait become one.
func (u *upstream) send(ctx context.Context, cancel context.CancelFunc, stream wire.Member_FollowClient) {
	defer cancel()
	u.wake() // tell at once how far the log reaches; hello may be older
	var told entry.Position
	address := u.m.address.String()
	var config configSum
	for {
		select {
		case <-u.notify:
		case <-ctx.Done():
			return
		}
		u.mu.Lock()
		acked, beat, answers := u.acked, u.beat, u.answers
		u.beat, u.answers = false, nil
		u.mu.Unlock()
		for _, msg := range answers {
			msg.Roster = u.m.rosterBytes()
			if err := stream.Send(msg); err != nil {
				return
			}
		}
		msg := &wire.FollowerMessage{Roster: u.m.rosterBytes()}
		switch {
		case beat:
			msg.Body = &wire.FollowerMessage_Heartbeat{Heartbeat: &wire.Heartbeat{
				Address: address, Index: acked.Index, Epoch: acked.Epoch, Applied: u.m.applied.Load(), Config: config.of(u.m.config())}}
		case acked != told:
			msg.Body = &wire.FollowerMessage_Ack{Ack: &wire.Ack{Address: address, Index: acked.Index, Epoch: acked.Epoch}}
		default:
			continue
		}
		told = acked
		if err := stream.Send(msg); err != nil {
			return
		}
	}
}

// inbound turns the messages of one stream into events.
type inbound struct {
	u      *upstream
	ctx    context.Context
	leader roster.ID
	raw    []byte // the roster as it was encoded in the last message
	roster *roster.Roster
	// snapshot is one on its way; nil when there is none. skip: it has no room,
	// and the rest of it is not kept.
	snapshot *snapshotFile
	skip     bool
}

func (in *inbound) close() {
	if in.snapshot != nil {
		in.snapshot.discard()
		in.snapshot = nil
	}
}

func (in *inbound) take(msg *wire.LeaderMessage) error {
	m := in.u.m
	m.silence.broken(in.leader)
	if in.roster == nil || !bytes.Equal(msg.Roster, in.raw) {
		r, err := wire.DecodeRoster(msg.Roster)
		if err != nil {
			return err
		}
		in.raw, in.roster = msg.Roster, r
	}
	if msg.Kept != 0 {
		m.keptFrom.Store(msg.Kept)
	}
	heard := core.Heard{Roster: in.roster, Commit: msg.Commit}
	var entries *core.Received // told after the roster that it belongs to
	switch body := msg.Body.(type) {
	case *wire.LeaderMessage_Deaths:
		deaths, err := wire.ToDeaths(body.Deaths)
		if err != nil {
			return err
		}
		heard.Deaths = deaths
	case *wire.LeaderMessage_Leave:
		m.post(core.Dismissed{Reason: body.Leave.GetReason()})
	case *wire.LeaderMessage_Configuration:
		if err := m.configureAs(body.Configuration.GetEncoded()); err != nil {
			return err
		}
	case *wire.LeaderMessage_Defragment:
		m.defragment()
	case *wire.LeaderMessage_DigestRequest:
		go m.guarded(func() {
			d := m.digest(in.ctx, body.DigestRequest.GetRevision())
			m.upstream.answer(&wire.FollowerMessage{Body: &wire.FollowerMessage_Digest{Digest: d}})
		})
	case *wire.LeaderMessage_Snapshot:
		if err := in.chunk(body.Snapshot); err != nil {
			return fmt.Errorf("receive snapshot: %w", err)
		}
	case *wire.LeaderMessage_Entries:
		es, err := wire.ToEntries(body.Entries)
		if err != nil {
			return err
		}
		if len(es) > 0 {
			entries = &core.Received{
				Epoch: msg.Epoch, Prev: wire.ToPosition(body.Entries.Prev), Last: es[len(es)-1].Position(),
				Commit: msg.Commit, Ref: &received{entries: es},
			}
		}
	}
	if entries == nil {
		m.postNow(heard)
		return nil
	}
	m.mail.put(mail{event: heard})
	m.postNow(*entries)
	return nil
}

// defragment rewrites the database on the applying goroutine. Entries go on to be
// appended and acknowledged meanwhile; who leads knows that this member is busy.
func (m *Member) defragment() {
	m.applier.do(func() {
		h := m.replica.hold()
		defer h.release()
		done := &wire.Defragmented{}
		if err := defragment(h); err != nil {
			done.Error = err.Error()
		}
		m.upstream.answer(&wire.FollowerMessage{Body: &wire.FollowerMessage_Defragmented{Defragmented: done}})
	})
}

func defragment(h held) error {
	if h.store == nil {
		return errNoCopy
	}
	if err := h.store.Defrag(); err != nil {
		return err
	}
	return h.slot.PaidDefrag()
}

// deafly does something during which the leader is not listened to.
func (m *Member) deafly(f func() error) error {
	done := make(chan struct{})
	defer close(done)
	go func() {
		tick := time.NewTicker(m.cfg.Heartbeat.Interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				m.post(core.Deaf{})
			case <-done:
				return
			}
		}
	}()
	return f()
}
