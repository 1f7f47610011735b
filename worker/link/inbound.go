package link

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/member/wire"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/replica"
)

// inbound turns the messages of one stream into events.
type inbound struct {
	u      *upstream
	ctx    context.Context
	leader roster.ID
	raw    []byte // the encoded roster of the last message
	roster *roster.Roster
	// snapshot is the one being received, or nil. skip says that there is no room for it, so
	// that the rest of its chunks is dropped.
	snapshot *replica.SnapshotFile
	skip     bool
}

func (in *inbound) close() {
	if in.snapshot != nil {
		in.snapshot.Discard()
		in.snapshot = nil
	}
}

func (in *inbound) take(msg *wire.LeaderMessage) error {
	u := in.u
	u.silence.heardFrom(in.leader)
	if in.roster == nil || !bytes.Equal(msg.Roster, in.raw) {
		r, err := wire.DecodeRoster(msg.Roster)
		if err != nil {
			return err
		}
		in.raw, in.roster = msg.Roster, r
	}
	if msg.Kept != 0 {
		u.RetainFrom.Store(msg.Kept)
	}
	heard := core.Heard{Roster: in.roster, Commit: msg.Commit}
	var entries *core.Received // posted after the roster that it belongs to
	switch body := msg.Body.(type) {
	case *wire.LeaderMessage_Deaths:
		deaths, err := wire.ToDeaths(body.Deaths)
		if err != nil {
			return err
		}
		heard.Deaths = deaths
	case *wire.LeaderMessage_Leave:
		u.Post(core.Dismissed{Reason: body.Leave.GetReason()})
	case *wire.LeaderMessage_Configuration:
		if err := u.configure(body.Configuration.GetEncoded(), body.Configuration.GetSockets()); err != nil {
			return err
		}
		u.heartbeat() // a heartbeat reports which configuration this member uses
	case *wire.LeaderMessage_Defragment:
		u.replica.Defragment(func(err error) {
			done := &wire.Defragmented{}
			if err != nil {
				done.Error = err.Error()
			}
			u.answer(&wire.FollowerMessage{Body: &wire.FollowerMessage_Defragmented{Defragmented: done}})
		})
	case *wire.LeaderMessage_DigestRequest:
		go u.Guarded(func() {
			d := u.replica.Digest(in.ctx, body.DigestRequest.GetRevision())
			u.answer(&wire.FollowerMessage{Body: &wire.FollowerMessage_Digest{Digest: d}})
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
				Commit: msg.Commit, Ref: &Received{Entries: es},
			}
		}
	}
	if entries == nil {
		u.Put(heard)
		u.Feed()
		return nil
	}
	u.Put(heard)
	u.Put(*entries)
	u.Feed()
	return nil
}

// chunk takes a part of a snapshot, and installs the snapshot when it is complete. If there is
// no room for it, the rest of the chunks is dropped. The stream must go on, since it carries
// the heartbeats.
func (in *inbound) chunk(c *wire.SnapshotChunk) error {
	if c.Offset == 0 {
		in.close()
		in.skip = false
		if err := in.u.replica.RoomForSnapshot(c.Size); err != nil {
			in.waitForRoom(c.Size, err)
			return nil
		}
		s, err := in.u.replica.Receive(c)
		if proc.NoSpace(err) {
			in.waitForRoom(c.Size, err)
			return nil
		}
		if err != nil {
			return err
		}
		in.snapshot = s
	}
	if in.skip {
		return nil
	}
	if in.snapshot == nil {
		return fmt.Errorf("%w: got offset %d before the first chunk", replica.ErrSnapshot, c.Offset)
	}
	complete := false
	err := in.u.withoutListening(func() (err error) { complete, err = in.snapshot.Add(c); return err })
	switch {
	case proc.NoSpace(err):
		in.close()
		in.waitForRoom(c.Size, err)
		return nil
	case err != nil:
		return err
	case complete:
		in.snapshot = nil
		return in.u.replica.Install(wire.ToPosition(c.Position))
	}
	return nil
}

// waitForRoom drops the rest of a snapshot for which there is no room, and asks for a new one
// when there is room.
func (in *inbound) waitForRoom(bytes int64, reason error) {
	u := in.u
	in.skip = true
	u.Log.Error("disk full: waiting for room to receive a snapshot", "error", reason)
	go func() {
		// The random part keeps followers that wait for the same room from asking together.
		tick := time.NewTicker(replica.RetryRoom/2 + rand.N(replica.RetryRoom))
		defer tick.Stop()
		for {
			select {
			case <-tick.C:
				if u.replica.RoomForSnapshot(bytes) == nil {
					u.resync("there is room for a snapshot")
					return
				}
			case <-in.ctx.Done():
				return
			}
		}
	}()
}
