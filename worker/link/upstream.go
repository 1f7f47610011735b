package link

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/dynast-io/dynast/shared/member/pki"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state"
)

const (
	// retryMin and retryMax bound the pause between two attempts to open the
	// stream to the leader.
	retryMin = 2 * time.Millisecond
	retryMax = 100 * time.Millisecond
)

// Received is the type that the Ref field of core.Received holds.
type Received struct{ Entries []entry.Entry }

// upstream is a follower's one stream to its leader.
type upstream struct {
	*state.Shared
	replica   Replica
	silence   *silence
	authority *pki.Authority
	describe  func() roster.Member
	configure func(encoded []byte, sockets []string) error

	mu     sync.Mutex
	target roster.ID          // the process that the stream goes to
	cancel context.CancelFunc // ends the stream; nil if there is none
	warm   *warmConn
	redo   context.CancelFunc // ends the current attempt
	acked  entry.Position
	beat   bool
	// answers to the leader's requests, sent on the stream that is open by then.
	answers []*wire.FollowerMessage
	notify  chan struct{}
}

func newUpstream(c Config, silence *silence) *upstream {
	return &upstream{Shared: c.Shared, replica: c.Replica, silence: silence, authority: c.Authority, describe: c.Describe, configure: c.Configure,
		notify: make(chan struct{}, 1)}
}

// follow opens the stream to a leader in place of the previous one. A stream that already goes
// to the same process stays open.
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

// stop ends the stream. Messages that still arrive on it are dropped.
func (u *upstream) stop() {
	u.mu.Lock()
	defer u.mu.Unlock()
	if u.cancel != nil {
		u.cancel()
		u.cancel = nil
	}
}

// resync reopens the stream, starting after the last entry in the log.
func (u *upstream) resync(reason string) {
	u.Log.Info("reopening the stream to the leader", "reason", reason)
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

// answer sends the leader what it asked for. If the leader changes first, the next one gets it.
func (u *upstream) answer(msg *wire.FollowerMessage) {
	u.mu.Lock()
	u.answers = append(u.answers, msg)
	u.mu.Unlock()
	u.wake()
}

// run keeps the stream open until ctx ends. A failure is not reported as an event, because only
// the leader's silence or death counts.
func (u *upstream) run(ctx context.Context, leader roster.Member) {
	conn, err := u.connection(leader.ID)
	if err != nil {
		u.Fatal(core.ExitError, fmt.Errorf("dial leader %s: %w", leader.Address, err))
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
		u.Log.Debug("stream to the leader ended", "leader", leader.Address, "error", err)
		select {
		case <-time.After(pause):
		case <-ctx.Done():
		}
		pause = min(pause*2, retryMax)
	}
}

// once opens one stream and serves it until it ends.
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
	hello := u.hello(ctx)
	if hello == nil {
		return ctx.Err()
	}
	if err := stream.Send(hello); err != nil {
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

// hello says where the log ends. First, all entries of the previous stream must be in the log
// or dropped. Otherwise they could be appended after entries of this stream, and their
// acknowledgement could pass for that of the snapshot that the leader sends next. hello returns
// nil when ctx ends.
func (u *upstream) hello(ctx context.Context) *wire.FollowerMessage {
	said := make(chan *wire.FollowerMessage, 1)
	u.Do(func() { // after all entries that were received
		u.replica.Behind(func() { // after all entries that are to be appended
			u.replica.Supersede() // a snapshot that still waits for disk space is no longer wanted
			said <- u.helloNow()
		})
	})
	select {
	case hello := <-said:
		return hello
	case <-ctx.Done():
		return nil
	}
}

func (u *upstream) helloNow() *wire.FollowerMessage {
	return &wire.FollowerMessage{
		Roster: u.RosterBytes(),
		Body: &wire.FollowerMessage_Hello{Hello: &wire.Hello{
			Member: wire.FromMember(u.describe()),
			Last:   wire.FromPosition(u.replica.Last()),
			BootId: u.Self.BootID, ClusterId: u.Self.ClusterID,
		}},
	}
}

// send sends acknowledgements and heartbeats. If several are due, only the latest is sent.
func (u *upstream) send(ctx context.Context, cancel context.CancelFunc, stream wire.Member_FollowClient) {
	defer cancel()
	u.wake() // acknowledge at once: the log may have grown since hello
	var told entry.Position
	address := u.Self.Address.String()
	var config state.Sum
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
			msg.Roster = u.RosterBytes()
			if err := stream.Send(msg); err != nil {
				return
			}
		}
		msg := &wire.FollowerMessage{Roster: u.RosterBytes()}
		switch {
		case beat:
			msg.Body = &wire.FollowerMessage_Heartbeat{Heartbeat: &wire.Heartbeat{
				Address: address, Index: acked.Index, Epoch: acked.Epoch, Applied: u.Applied.Load(), Config: config.Of(u.Settings.Now())}}
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

// withoutListening runs f. This member cannot read from the leader meanwhile, and tells the core
// so.
func (u *upstream) withoutListening(f func() error) error {
	done := make(chan struct{})
	defer close(done)
	go func() {
		tick := time.NewTicker(u.Settings.Start.Heartbeat.Interval)
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				u.Post(core.SilenceExcused{})
			case <-done:
				return
			}
		}
	}()
	return f()
}
