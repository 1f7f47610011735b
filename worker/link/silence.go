package link

import (
	"runtime/metrics"
	"sync"
	"time"

	"github.com/dynast-io/dynast/shared/host/proc"
	"github.com/dynast-io/dynast/shared/rules/core"
	"github.com/dynast-io/dynast/shared/rules/roster"
	"github.com/dynast-io/dynast/worker/state"
)

// silence checks members that have sent nothing for a while. A process that hangs or is
// stopped does not compete for a processor. A process that is overloaded does, and its
// heartbeats are late. The kernel tells the two apart. This process may also be late in
// reading what others sent, which Go's scheduler tells. Patience is bounded (busyPatience),
// because a process can also be busy for ever without doing anything useful.
type silence struct {
	*state.Shared
	work func(pid int) (proc.Effort, error)
	// behind reports whether goroutines of this process had to wait since the last call.
	behind func() bool

	mu    sync.Mutex
	heard map[roster.ID]time.Time

	looks map[roster.ID]workAt // only the loop uses it
}

// workAt is how long a process had worked at a given time.
type workAt struct {
	work time.Duration
	at   time.Time
}

const (
	// busyShare bounds what counts as busy: a silent process is not hung if its threads
	// together worked, or waited for a processor, for at least 1/busyShare of the time. Nor
	// is it hung if a thread is runnable at the moment of the check.
	busyShare = 4
	// busyPatience is how many times heartbeat.timeout a busy process may be silent.
	busyPatience = 5
)

func newSilence(sh *state.Shared) *silence {
	own := &backlog{}
	return &silence{Shared: sh, work: proc.Work, behind: own.grew, heard: map[roster.ID]time.Time{}, looks: map[roster.ID]workAt{}}
}

// heardFrom notes that a member sent something.
func (s *silence) heardFrom(id roster.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard[id] = time.Now()
}

// lastHeard returns when a member was last heard. If it never was, it returns the time of the
// first call for that member.
func (s *silence) lastHeard(id roster.ID, now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heard[id].IsZero() {
		s.heard[id] = now
	}
	return s.heard[id]
}

// look tells the core which silent members are busy. It costs nothing while every member was
// heard within half a heartbeat timeout.
func (s *silence) look(now time.Time, leading bool) {
	r, behind := s.Roster(), s.behind()
	present := map[roster.ID]bool{}
	for _, member := range r.Members {
		if member.Address == s.Self.Address || !leading && member.Address != r.Leader {
			continue
		}
		present[member.ID] = true
		silent := now.Sub(s.lastHeard(member.ID, now))
		if silent < s.Settings.Start.Heartbeat.Timeout/2 || silent > busyPatience*s.Settings.Start.Heartbeat.Timeout {
			delete(s.looks, member.ID)
			continue
		}
		work, err := s.work(member.PID)
		if err != nil && !behind {
			continue
		}
		before, known := s.looks[member.ID]
		s.looks[member.ID] = workAt{work.Time, now}
		if !behind && !work.Runnable && (!known || work.Time-before.work < now.Sub(before.at)/busyShare) {
			continue
		}
		if leading {
			s.Post(core.Working{ID: member.ID})
		} else {
			s.Post(core.SilenceExcused{})
		}
	}
	s.forget(present)
}

func (s *silence) forget(present map[roster.ID]bool) {
	for id := range s.looks {
		if !present[id] {
			delete(s.looks, id)
		}
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	for id := range s.heard {
		if !present[id] {
			delete(s.heard, id)
		}
	}
}

// backlog asks Go's scheduler how long goroutines waited until they ran.
type backlog struct{ late uint64 }

// lateGoroutine is a wait that shows that this process is overloaded. Messages from a member
// are read that much later.
const lateGoroutine = 50 * time.Millisecond

// grew reports whether a goroutine waited for that long since the last call.
func (b *backlog) grew() bool {
	sample := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	metrics.Read(sample)
	if sample[0].Value.Kind() != metrics.KindFloat64Histogram {
		return false
	}
	h := sample[0].Value.Float64Histogram()
	late := uint64(0)
	for i, n := range h.Counts {
		if h.Buckets[i] >= lateGoroutine.Seconds() {
			late += n
		}
	}
	before := b.late
	b.late = late
	return late > before
}
