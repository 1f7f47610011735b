package worker

import (
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/events"
	"github.com/dynast-io/dynast/shared/roster"
)

// eventsPatience is how long an ending member waits for the disk to take what
// it has to tell.
const eventsPatience = 200 * time.Millisecond

// eventHistory tells the cluster's events. The leader tells everything; a follower
// only how it came to take over, and why it ends. Only the loop uses it, except tell.
type eventHistory struct {
	m   *Member
	rec *events.Recorder
	// lost is how the leader ended, as this member saw it. Every follower sees
	// it; the one that succeeds tells it.
	lost *events.Event
}

func newEventHistory(m *Member) *eventHistory {
	return &eventHistory{m: m, rec: events.NewRecorder(m.dir.Path(), m.address.String())}
}

// tell records an event of this member's own.
func (h *eventHistory) tell(kind, detail string) {
	h.rec.Record(events.Event{Epoch: h.m.currentEpoch(), Kind: kind, Member: h.m.address.String(), PID: h.m.self.PID, Detail: detail})
}

// rebuilds records that a follower gets the whole database.
func (h *eventHistory) rebuilds(id roster.ID, detail string) {
	h.rec.Record(events.Event{Epoch: h.m.currentEpoch(), Kind: events.Rebuilt, Member: id.Address.String(), PID: id.PID, Detail: detail})
}

// reported records what the core reports.
func (h *eventHistory) reported(r core.Report) {
	e := events.FromReport(r)
	e.Epoch, e.At = h.m.currentEpoch(), time.Now()
	switch r.Kind {
	case core.FollowingLeader:
		h.lost = nil // somebody else succeeded
		return
	case core.LeaderLost:
		h.lost = &e
		return
	case core.TakingOver:
		if h.lost != nil {
			h.rec.Record(*h.lost)
		}
	}
	h.rec.Record(e)
}

// lead makes this member the one that keeps the history.
func (h *eventHistory) lead() { h.rec.SetLeading() }

// started tells that the cluster is started; this member has the lock.
func (h *eventHistory) started() {
	h.rec.SetLeading()
	h.tell(events.Started, "version "+h.m.opts.Version)
}

// serving tells that clients are served, and how long they were not. It is
// called by the applying goroutine, once, after the loop is done with lost.
func (h *eventHistory) serving(slot int) {
	e := events.Event{At: time.Now(), Epoch: h.m.currentEpoch(), Kind: events.Serving, Member: h.m.address.String(), PID: h.m.self.PID}
	if h.m.startedToLead {
		h.rec.CountStart(slot)
	}
	if h.lost != nil {
		e.Detail = events.TakeoverDetail(h.lost.Detail)
		e.Seconds = e.At.Sub(h.lost.At).Seconds()
	}
	h.rec.Record(e)
}

// currentEpoch is the epoch in force: the own one for a leader.
func (m *Member) currentEpoch() uint64 { return max(m.epoch.Load(), m.roster().Epoch) }
