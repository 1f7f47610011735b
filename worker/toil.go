package worker

import (
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
)

// toil watches followers that have not joined yet: one that opens a large copy
// says nothing for a while, and that it is neither stopped nor hung the kernel
// knows. Only housekeeping uses it.
type toil struct {
	m    *Member
	seen map[roster.ID]toiled
}

// toiled is what a process had used at a moment.
type toiled struct {
	cpu time.Duration
	at  time.Time
}

const (
	// toilLooks is how often a start is looked at within spawn.timeout.
	toilLooks = 4
	// toilShare is the share of a processor below which a process is taken for idle:
	// one that only waits uses a tick now and then.
	toilShare = 100
)

func newToil(m *Member) *toil { return &toil{m: m, seen: map[roster.ID]toiled{}} }

// look tells the core who works on its start.
func (t *toil) look(now time.Time) {
	starting := map[roster.ID]bool{}
	for _, f := range t.m.roster().Members {
		if f.State != roster.Starting {
			continue
		}
		starting[f.ID] = true
		before, known := t.seen[f.ID]
		if known && now.Sub(before.at) < t.m.cfg.Spawn.Timeout/toilLooks {
			continue
		}
		id, err := proc.Identify(f.PID)
		if err != nil || id.StartTime != f.StartTime {
			continue // it is gone, which its pidfd tells
		}
		u, err := proc.ReadUsage(f.PID)
		if err != nil {
			continue
		}
		if !known {
			before.at = u.StartedAt
		}
		t.seen[f.ID] = toiled{cpu: u.CPU, at: now}
		if used := u.CPU - before.cpu; used > 0 && used >= now.Sub(before.at)/toilShare {
			t.m.post(core.Toils{ID: f.ID})
		}
	}
	for id := range t.seen {
		if !starting[id] {
			delete(t.seen, id)
		}
	}
}
