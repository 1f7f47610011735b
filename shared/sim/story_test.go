package sim

import (
	"slices"
	"time"

	"github.com/dynast-io/dynast/shared/core"
)

// scenario is a run without chance: every delay is the shortest, and only what
// the script does goes wrong. Its transcript reads like a story.
type scenario struct {
	*world
	lines []string
	muted bool // what happens is not written down
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

// say writes what the script does into the transcript.
func (s *scenario) say(what string) { s.lines = append(s.lines, "", "# "+what) }

// whole lets time pass until the cluster is whole.
func (s *scenario) whole() {
	if !s.runUntil(s.now+10*time.Second, func() bool { return s.leader() != nil && s.missing() == "" }) {
		s.fail("not whole: %s", s.missing())
	}
}

// until lets time pass until a member is in a role.
func (s *scenario) until(p *process, r core.Role) {
	if !s.runUntil(s.now+10*time.Second, func() bool { return p.dead || p.core != nil && p.core.Role() == r }) || p.dead {
		s.fail("%s never is %s", p, r)
	}
}

// put sends some writes and waits until they are acknowledged.
func (s *scenario) put(n int) {
	for range n {
		s.leader().write()
	}
	last := s.writes
	s.runUntil(s.now+time.Second, func() bool {
		return slices.ContainsFunc(s.oracle.answered, func(a answer) bool { return a.payload == last })
	})
}

// heir is the process that is to inherit next.
func (s *scenario) heir() *process {
	a, _ := s.leader().core.Roster().Heir()
	return s.listening(a)
}
