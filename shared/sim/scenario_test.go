package sim

import (
	"flag"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/core"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// scenarios are the chief plots; testdata has their transcripts.
var scenarios = map[string]func(s *scenario){
	"leader_killed": func(s *scenario) {
		s.begin()
		s.say("the leader is killed")
		s.kill(s.leader(), "SIGKILL")
		s.whole()
	},
	"heir_killed_in_takeover": func(s *scenario) {
		s.begin()
		heir := s.heir()
		s.say("the leader is killed, and the heir as soon as it has the lock")
		s.kill(s.leader(), "SIGKILL")
		s.until(heir, core.Inheriting)
		s.kill(heir, "SIGKILL")
		s.whole()
	},
	"leader_stopped_and_continued": func(s *scenario) {
		s.begin()
		s.say("the leader is stopped for less than the heartbeat timeout: nothing happens")
		s.stop(s.leader(), heartbeatTimeout/2)
		s.runUntil(s.now+2*heartbeatTimeout, nil)
		s.say("the leader is stopped for good: it is ended, and then succeeded")
		old := s.leader()
		s.stop(old, 0)
		s.runUntil(s.now+time.Second, func() bool { return old.dead })
		s.whole()
	},
	"two_deaths_at_once": func(s *scenario) {
		s.begin()
		s.say("the leader and its heir are killed at once")
		heir := s.heir()
		s.kill(s.leader(), "SIGKILL")
		s.kill(heir, "SIGKILL")
		s.whole()
	},
	"cold_start": func(s *scenario) {
		s.begin()
		s.say("everything is killed; then the cluster is started again")
		for _, p := range s.alive() {
			s.kill(p, "SIGKILL to all")
		}
		s.operator.up()
		s.whole()
	},
	"join": func(s *scenario) {
		s.begin()
		s.say("an operator adds a follower")
		s.operator.join()
		s.runUntil(s.now+time.Second, func() bool { return len(s.alive()) == 4 && s.missing() == "" })
		s.say("the leader is killed: the one that was added is adopted like the others, and does not count among those to be kept")
		s.kill(s.leader(), "SIGKILL")
		s.whole()
	},
	"power_loss": func(s *scenario) {
		s.begin()
		s.say("the host loses power; the followers' logs were not synced and are not trusted")
		s.losePower()
		s.operator.up()
		s.whole()
	},
	"named_slot_unreadable": func(s *scenario) {
		s.begin()
		s.say("the leader is killed, and its log cannot be read")
		s.disk(s.leader().disk.slot).broken = true
		s.faults.brokeOnce = true
		s.kill(s.leader(), "SIGKILL")
		s.whole()
	},
	"follower_hangs": func(s *scenario) {
		s.begin()
		s.say("a follower is stopped: writes go on with the other one, it is ended and replaced")
		s.stop(s.heir(), 0)
		s.put(1)
		s.runUntil(s.now+2*heartbeatTimeout, nil)
		s.whole()
	},
	"orderly_stop": func(s *scenario) {
		s.begin()
		s.say("the cluster is stopped")
		s.operator.done = true
		s.leader().post(core.StopRequested{Reason: "SIGTERM"})
		s.runUntil(s.now+time.Second, func() bool { return len(s.alive()) == 0 })
	},
}

// begin starts two followers and writes something.
func (s *scenario) begin() {
	s.say("a fresh start with two followers, min_sync 1")
	s.operator.up()
	s.whole()
	s.say("three writes")
	s.put(3)
}

func TestScenarios(t *testing.T) {
	for name, plot := range scenarios {
		t.Run(name, func(t *testing.T) {
			s := newScenario(2, 1)
			s.guarded(func() { plot(s) })
			if s.violation != nil {
				t.Errorf("%v", s.violation)
			}
			got := strings.TrimSpace(strings.Join(s.lines, "\n")) + "\n"
			file := filepath.Join("testdata", name+".txt")
			if *update {
				if err := os.WriteFile(file, []byte(got), 0o644); err != nil {
					t.Fatal(err)
				}
				return
			}
			want, err := os.ReadFile(file)
			if err != nil {
				t.Fatalf("%v; run: go test ./shared/sim -run Scenarios -update", err)
			}
			if got != string(want) {
				t.Errorf("the story is another one now; if that is intended, run: go test ./shared/sim -run Scenarios -update\n%s", difference(string(want), got))
			}
		})
	}
}

// difference shows the first lines that differ.
func difference(want, got string) string {
	w, g := strings.Split(want, "\n"), strings.Split(got, "\n")
	for i := range max(len(w), len(g)) {
		if i >= len(w) || i >= len(g) || w[i] != g[i] {
			at := func(ls []string) string { return strings.Join(ls[min(i, len(ls)):min(i+3, len(ls))], "\n") }
			return "was:\n" + at(w) + "\nis:\n" + at(g)
		}
	}
	return ""
}
