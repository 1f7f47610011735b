package replica

import (
	"sync"

	"github.com/dynast-io/dynast/shared/host/datadir"
	replog "github.com/dynast-io/dynast/shared/replica/log"
	"github.com/dynast-io/dynast/shared/rules/entry"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state"
)

// readAhead reads the leader's log in the heir while the leader is alive. A takeover has to
// read that log to its end, and no client is served meanwhile, so the heir reads most of it in
// advance: the new entries once a second, and at once when this member is named the successor.
type readAhead struct {
	*state.Shared
	kick chan struct{}
	// named is the leader that named this member its successor. Only the loop uses it.
	named roster.ID

	mu      sync.Mutex
	leader  roster.ID // the owner of the log; only this process writes to the slot
	slot    int
	tracker *replog.Tracker // nil if this member is not the heir
}

func newReadAhead(sh *state.Shared) *readAhead {
	return &readAhead{Shared: sh, kick: make(chan struct{}, 1)}
}

// rosterChanged reads ahead at once if this member has just been named the successor.
func (a *readAhead) rosterChanged(r *roster.Roster) {
	leader, _ := r.LeaderMember()
	switch {
	case r.Successor != a.Self.Address:
		a.named = roster.ID{}
	case a.named != leader.ID:
		a.named = leader.ID
		a.look()
	}
}

// look makes run read the new entries soon. It does not wait for that.
func (a *readAhead) look() {
	select {
	case a.kick <- struct{}{}:
	default:
	}
}

func (a *readAhead) run() {
	for {
		select {
		case <-a.kick:
			a.advance()
		case <-a.Leads:
			return
		case <-a.Ended():
			return
		}
	}
}

// advance reads up to the last entry that is known to be committed. The leader never replaces
// or removes a committed entry.
func (a *readAhead) advance() {
	tracker := a.choose(a.Roster())
	if tracker == nil {
		return
	}
	if committed := a.Committed.Load(); committed > tracker.At().Index {
		if err := tracker.Advance(committed); err != nil {
			a.Log.Debug("the leader's log cannot be read ahead of a takeover", "error", err)
		}
	}
}

// choose returns the tracker of the leader's log if this member is the heir.
func (a *readAhead) choose(r *roster.Roster) *replog.Tracker {
	a.mu.Lock()
	defer a.mu.Unlock()
	heir, ok := r.Heir()
	leader, known := r.LeaderMember()
	switch {
	case !ok || !known || heir != a.Self.Address || leader.Slot == 0:
		a.tracker, a.leader, a.slot = nil, roster.ID{}, 0
	case a.leader != leader.ID || a.slot != leader.Slot:
		a.leader, a.slot = leader.ID, leader.Slot
		a.tracker = replog.NewTracker(a.Dir.Slot(leader.Slot).LogDir())
	}
	return a.tracker
}

// read returns the entries of a slot's log after a position, for a takeover. It uses the
// entries that were read ahead only if succession.json names the process that owned the log:
// then no other process wrote to the slot.
func (a *readAhead) read(slot int, after entry.Position, o replog.Options) ([]entry.Entry, entry.Position, error) {
	a.mu.Lock()
	tracker, leader, tracked := a.tracker, a.leader, a.slot
	a.mu.Unlock()
	if tracker != nil && tracked == slot {
		s, err := a.Dir.ReadSuccession()
		named := datadir.Leader{Address: leader.Address.String(), PID: leader.PID, StartTime: leader.StartTime}
		if err == nil && s.Slot == slot && s.Leader == named {
			return tracker.Read(after, o)
		}
	}
	return replog.Read(a.Dir.Slot(slot).LogDir(), after, o)
}
