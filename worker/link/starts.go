package link

import (
	"time"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state"
)

// starts watches followers that have not joined yet. A follower that opens a large copy is
// silent for a while. The kernel tells whether it is stopped or hung. Only housekeeping uses
// starts.
type starts struct {
	*state.Shared
	seen map[roster.ID]progress
}

// progress is how much processor time a process had used at a given time.
type progress struct {
	cpu time.Duration
	at  time.Time
}

const (
	// startLooks is how often a start is checked within spawn.timeout.
	startLooks = 4
	// startShare defines an idle process: it used less than 1/startShare of a processor. A
	// process that only waits uses a tick now and then.
	startShare = 100
)

// look tells the core which starting followers make progress.
func (s *starts) look(now time.Time) {
	starting := map[roster.ID]bool{}
	for _, f := range s.Roster().Members {
		if f.State != roster.Starting {
			continue
		}
		starting[f.ID] = true
		before, known := s.seen[f.ID]
		if known && now.Sub(before.at) < s.Settings.Start.Spawn.Timeout/startLooks {
			continue
		}
		id, err := proc.Identify(f.PID)
		if err != nil || id.StartTime != f.StartTime {
			continue // it is dead, which its pidfd reports
		}
		u, err := proc.ReadUsage(f.PID)
		if err != nil {
			continue
		}
		if !known {
			before.at = u.StartedAt
		}
		s.seen[f.ID] = progress{cpu: u.CPU, at: now}
		if used := u.CPU - before.cpu; used > 0 && used >= now.Sub(before.at)/startShare {
			s.Post(core.Working{ID: f.ID})
		}
	}
	for id := range s.seen {
		if !starting[id] {
			delete(s.seen, id)
		}
	}
}
