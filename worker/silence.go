package worker

import (
	"runtime/metrics"
	"sync"
	"time"

	"github.com/dynast-io/dynast/shared/core"
	"github.com/dynast-io/dynast/shared/proc"
	"github.com/dynast-io/dynast/shared/roster"
)

// silence looks at members that have said nothing for a while. One that hangs
// or is stopped does not compete for a processor; one that has more to do than the
// host lets it does, and is late. The kernel tells the difference. And this process
// may itself be behind with listening: of that Go's scheduler tells. What this says is
// bounded: a process can also work for ever on nothing.
type silence struct {
	m    *Member
	work func(pid int) (proc.Effort, error)
	// behind reports whether goroutines of this process had to wait since it was
	// asked last.
	behind func() bool

	mu    sync.Mutex
	heard map[roster.ID]time.Time

	looks map[roster.ID]workAt // only the loop uses it
}

// workAt is what a process had worked at a moment.
type workAt struct {
	work time.Duration
	at   time.Time
}

const (
	// busyShare is the share of the time that a silent process must have worked
	// or waited for a processor, all its threads together, not to be taken for hung;
	// one that does so at the moment of the look is not either.
	busyShare = 4
	// busyPatience is how many times heartbeat.timeout one may be silent that
	// works.
	busyPatience = 5
)

func newSilence(m *Member) *silence {
	own := &backlog{}
	return &silence{m: m, work: proc.Work, behind: own.grew, heard: map[roster.ID]time.Time{}, looks: map[roster.ID]workAt{}}
}

// broken notes that a member said something.
func (s *silence) broken(id roster.ID) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.heard[id] = time.Now()
}

// since is when a member was last heard; of one that never was, from when on it
// was waited for.
func (s *silence) since(id roster.ID, now time.Time) time.Time {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.heard[id].IsZero() {
		s.heard[id] = now
	}
	return s.heard[id]
}

// look tells the core of those who are silent and work. It costs nothing while
// nobody has been silent for half a heartbeat timeout.
func (s *silence) look(now time.Time, leading bool) {
	r, behind := s.m.roster(), s.behind()
	present := map[roster.ID]bool{}
	for _, member := range r.Members {
		if member.Address == s.m.address || !leading && member.Address != r.Leader {
			continue
		}
		present[member.ID] = true
		silent := now.Sub(s.since(member.ID, now))
		if silent < s.m.cfg.Heartbeat.Timeout/2 || silent > busyPatience*s.m.cfg.Heartbeat.Timeout {
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
			s.m.post(core.Toils{ID: member.ID})
		} else {
			s.m.post(core.Deaf{})
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

// lateGoroutine is a wait that tells of more work than is got done: what arrives
// from a member is read that much later.
const lateGoroutine = 50 * time.Millisecond

// grew reports whether some goroutine waited for that long since the last time.
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
