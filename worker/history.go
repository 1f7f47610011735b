package worker

import (
	"time"

	"github.com/dynast-io/dynast/shared/host/datadir"
	"github.com/dynast-io/dynast/shared/observe/events"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state"
)

// eventsTimeout is how long an exiting member waits until its events are on disk.
const eventsTimeout = 200 * time.Millisecond

// eventHistory records the cluster's events. The leader records all events. A follower records
// only how it came to take over, and why it exits. Only the loop uses it, except for tell.
type eventHistory struct {
	self     state.Self
	state    *state.State
	settings *state.Settings
	rec      *events.Recorder
	// lastHeard returns when a member was last heard.
	lastHeard func(id roster.ID, now time.Time) time.Time
	// startedToLead says that this process became leader by "up" and not by a takeover.
	startedToLead bool
	// lost is how the leader ended, as this member saw it. Every follower sees it, and the
	// one that succeeds records it.
	lost *events.Event
	// silentSince is when the leader was last heard, if it was killed for its silence.
	silentSince time.Time
	// pruned is the roster after which old log files were removed. Only housekeeping uses it.
	pruned *roster.Roster
}

func newEventHistory(self state.Self, st *state.State, settings *state.Settings, dir *datadir.Dir) *eventHistory {
	return &eventHistory{self: self, state: st, settings: settings, rec: events.NewRecorder(dir.Path(), self.Address.String())}
}

// tell records an event about this member.
func (h *eventHistory) tell(kind, detail string) {
	h.rec.Record(events.Event{Epoch: h.state.CurrentEpoch(), Kind: kind, Member: h.self.Address.String(), PID: h.self.Process.PID, Detail: detail})
}

// rebuilds records that a follower gets the whole database.
func (h *eventHistory) rebuilds(id roster.ID, detail string) {
	h.rec.Record(events.Event{Epoch: h.state.CurrentEpoch(), Kind: events.Rebuilt, Member: id.Address.String(), PID: id.PID, Detail: detail})
}

// reported records an event that the core reports.
func (h *eventHistory) reported(r core.Report) {
	e := events.FromReport(r)
	e.Epoch, e.At = h.state.CurrentEpoch(), time.Now()
	switch r.Kind {
	case core.FollowingLeader:
		h.lost, h.silentSince = nil, time.Time{} // another member succeeded
		return
	case core.LeaderSilent:
		h.silentSince = h.lastHeard(r.Member, e.At)
	case core.LeaderLost, core.LeaderLeft:
		h.lost = &e
		return
	case core.TakingOver:
		if h.lost != nil {
			h.rec.Record(*h.lost)
		}
	}
	h.rec.Record(e)
}

// lead makes this member the one that records all events.
func (h *eventHistory) lead() { h.rec.SetLeading() }

// started records the start of the cluster. This member holds the lock.
func (h *eventHistory) started() {
	h.startedToLead = true
	h.rec.SetLeading()
	h.tell(events.Started, "version "+h.self.Version)
}

// outage returns how long clients were not served, as far as this member knows. It is called
// when this member is about to serve them, by the same goroutine as serving. After a start it
// returns heartbeat.timeout, because the time that the cluster was down is not known.
func (h *eventHistory) outage() time.Duration {
	switch {
	case h.startedToLead:
		return h.settings.Start.Heartbeat.Timeout
	case !h.silentSince.IsZero():
		return time.Since(h.silentSince)
	case h.lost != nil:
		return time.Since(h.lost.At)
	}
	return 0 // a hand-over
}

// serving records that clients are served, and how long they were not. The applier's goroutine
// calls it once, when the loop no longer changes lost.
func (h *eventHistory) serving(slot int) {
	e := events.Event{At: time.Now(), Epoch: h.state.CurrentEpoch(), Kind: events.Serving, Member: h.self.Address.String(), PID: h.self.Process.PID}
	if h.startedToLead {
		h.rec.CountStart(slot)
	}
	if h.lost != nil {
		e.Detail = events.TakeoverDetail(h.lost.Detail)
		e.Seconds = e.At.Sub(h.lost.At).Seconds()
	}
	h.rec.Record(e)
}
