package sim

import (
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
)

// scenario is a run without randomness: every delay is the shortest, and only the script causes
// faults. Its transcript reads like a story.
type scenario struct {
	*world
	lines []string
	muted bool // nothing is written to the transcript
}

func newScenario(followers, minSync int) *scenario {
	s := &scenario{}
	s.world = newWorld(Config{Seed: 1, Trace: func(line string) {
		if !s.muted {
			s.lines = append(s.lines, line)
		}
	}})
	s.calm = true
	s.faults = faults{}
	s.operator.followers, s.operator.minSync = followers, minSync
	s.oracle.asked = map[int]bool{followers: true}
	s.operator.quiet = true
	s.terse = true
	return s
}

// say writes a step of the script to the transcript.
func (s *scenario) say(what string) { s.lines = append(s.lines, "", "# "+what) }

// recover advances time until the cluster is healthy.
func (s *scenario) recover() {
	if !s.runUntil(s.now+10*time.Second, func() bool { return s.leader() != nil && s.missing() == "" }) {
		s.fail("the cluster is not healthy: %s", s.missing())
	}
}

// until advances time until a member has a role.
func (s *scenario) until(p *process, r core.Role) {
	if !s.runUntil(s.now+10*time.Second, func() bool { return p.dead || p.core != nil && p.core.Role() == r }) || p.dead {
		s.fail("%s never becomes %s", p, r)
	}
}

// put sends n writes and waits until they are acknowledged.
func (s *scenario) put(n int) {
	for range n {
		s.leader().write()
	}
	last := s.writes
	s.runUntil(s.now+time.Second, func() bool {
		return slices.ContainsFunc(s.oracle.answered, func(a answer) bool { return a.payload == last })
	})
}

// heir returns the process that inherits next.
func (s *scenario) heir() *process {
	a, _ := s.leader().core.Roster().Heir()
	return s.listening(a)
}
