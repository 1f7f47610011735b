package sim

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/core"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// legend stands in every transcript.
const legend = `
How to read it: the simulated time; who (port/pid), in which role after it; what it heard. Below that, what its
core answers, in order. Positions in a log are epoch/index. The delays are the shortest possible ones: the
order is what matters. Members 9995, 9996, ... are 127.0.0.1:9995 and so on. Heartbeats that change nothing are left out.`

// plot is a scenario: what is to be seen in it, and what happens.
type plot struct {
	about string
	play  func(s *scenario)
}

// scenarios are the chief plots; testdata has their transcripts.
var scenarios = map[string]plot{
	"first_start": {`The first start of a cluster. The process that an operator starts takes the lock, finds nothing, and
leads epoch 1: its first entry is in the log and on disk, and succession.json names it, before it serves anybody. It starts two
followers, which get the log and count once they have it.`, func(s *scenario) {
		s.say("dynast up, followers = 2, min_sync = 1")
		s.operator.up()
		s.whole()
		s.say("three writes: in the log, then on disk and in a follower's log, then acknowledged (Commit)")
		s.put(3)
	}},
	"leader_killed": {`The leader is killed. The pidfd tells both followers. The heir, the lowest address, tries the lock at once and has it;
the other waits its turn and opens its stream to the heir meanwhile. The heir reads the dead leader's log for what it lacks,
begins epoch 2 in its own, names itself in succession.json and leads. Its sibling goes on as it is. A follower is started in the dead leader's slot.`, func(s *scenario) {
		s.begin()
		s.say("the leader is killed")
		s.kill(s.leader(), "SIGKILL")
		s.whole()
	}},
	"leader_killed_with_unsent_write": {`The leader is killed after a write is in its log, and before any follower heard of it. Nobody was told that the
write happened, and it is not lost either: the heir finds it in the dead leader's log (Adopted 1/5) and commits it.`, func(s *scenario) {
		s.begin()
		leader := s.leader()
		s.say("a write, and the leader is killed as soon as it is in its log")
		leader.write()
		end := uint64(len(leader.disk.log)) + 1
		s.runUntil(s.now+time.Second, func() bool { return leader.disk.last().Index == end })
		s.kill(leader, "SIGKILL")
		s.whole()
	}},
	"heir_killed_in_takeover": {`The leader is killed, and its heir as soon as it has the lock. The kernel frees the lock with the heir's death, and the next in
line takes it when its turn comes. Two followers are missing then, and both are started.`, func(s *scenario) {
		s.begin()
		heir := s.heir()
		s.say("the leader is killed, and the heir as soon as it has the lock")
		s.kill(s.leader(), "SIGKILL")
		s.until(heir, core.Inheriting)
		s.kill(heir, "SIGKILL")
		s.whole()
	}},
	"heir_stopped_in_takeover": {`The heir is stopped (SIGSTOP) while it has the lock and is not named yet: nobody else could ever lead. The next in line tries the lock,
sees that its holder is stopped, and ends it once that has lasted for the heartbeat timeout.`, func(s *scenario) {
		s.begin()
		heir := s.heir()
		s.say("the leader is killed, and the heir is stopped as soon as it has the lock")
		s.kill(s.leader(), "SIGKILL")
		s.until(heir, core.Inheriting)
		s.stop(heir, 0)
		s.whole()
	}},
	"leader_stopped_and_continued": {`A leader that is stopped for less than the heartbeat timeout goes on as if nothing had been. One that is stopped for longer still holds the lock:
its followers end it with SIGKILL and wait until the kernel says that it is gone. Only then the heir inherits. That it is
continued afterwards changes nothing: it is dead.`, func(s *scenario) {
		s.begin()
		s.say("the leader is stopped for half the heartbeat timeout: nothing happens")
		s.stop(s.leader(), heartbeatTimeout/2)
		s.runUntil(s.now+2*heartbeatTimeout, nil)
		s.say("the leader is stopped for good: it is ended, and then succeeded")
		old := s.leader()
		s.stop(old, 0)
		s.runUntil(s.now+time.Second, func() bool { return old.dead })
		s.resume(old)
		s.whole()
	}},
	"two_deaths_at_once": {`The leader and its heir are killed at the same moment. The one that is left waits for its turn, takes the lock, inherits, and starts two
followers.`, func(s *scenario) {
		s.begin()
		s.say("the leader and its heir are killed at once")
		heir := s.heir()
		s.kill(s.leader(), "SIGKILL")
		s.kill(heir, "SIGKILL")
		s.whole()
	}},
	"cold_start": {`Everything is killed, and an operator starts the cluster again. The new process has no copy of its own: it opens the slot that succession.json
names, whose log holds every acknowledged write, and leads the next epoch from there. The slots of the followers are filled anew; what they hold is as good as
it was, for the host did not go down.`, func(s *scenario) {
		s.begin()
		s.say("everything is killed; then the cluster is started again")
		for _, p := range s.alive() {
			s.kill(p, "SIGKILL to all")
		}
		s.operator.up()
		s.whole()
	}},
	"join": {`An operator adds a follower by hand: the leader gives it a slot, and it gets the log like any other. When the leader dies, it is adopted
like its siblings. It comes on top of those that the leader keeps.`, func(s *scenario) {
		s.begin()
		s.say("dynast join")
		s.operator.join()
		s.runUntil(s.now+time.Second, func() bool { return len(s.living) == 4 && s.missing() == "" })
		s.say("the leader is killed: the one that was added is adopted like the others")
		s.kill(s.leader(), "SIGKILL")
		s.whole()
	}},
	"power_loss": {`The host loses power, and with it everything that was not synced: the followers' logs, which nobody syncs at each write. The leader's log has every
acknowledged write. The followers' slots were written under another boot of the host: they are not trusted, and start empty.`, func(s *scenario) {
		s.begin()
		s.say("the host loses power")
		s.losePower()
		s.operator.up()
		s.whole()
	}},
	"named_slot_unreadable": {`The leader is killed, and its log cannot be read. The most complete log among the others is used instead, and the heir reports that acknowledged writes
may be lost: it cannot know that there were none.`, func(s *scenario) {
		s.begin()
		s.say("the leader is killed, and its log cannot be read")
		s.disk(s.leader().disk.slot).broken = true
		s.faults.brokeOnce = true
		s.kill(s.leader(), "SIGKILL")
		s.whole()
	}},
	"follower_hangs": {`A follower is stopped. A write is acknowledged with the other one's log. The leader ends the silent one after the heartbeat timeout, and starts another
in its slot.`, func(s *scenario) {
		s.begin()
		s.say("a follower is stopped, and a write goes on without it")
		s.stop(s.heir(), 0)
		s.put(1)
		s.runUntil(s.now+2*heartbeatTimeout, nil)
		s.whole()
	}},
	"host_frozen": {`Every process is stopped for ten heartbeat timeouts and then continued, as when the host itself was frozen. All of them notice that they were
late themselves: the silence says nothing, and nobody is killed.`, func(s *scenario) {
		s.begin()
		s.say("everything is stopped, and goes on later")
		for _, p := range s.alive() {
			s.stop(p, 10*heartbeatTimeout)
		}
		s.runUntil(s.now+15*heartbeatTimeout, nil)
		s.say("a write: the same leader acknowledges it")
		s.put(1)
		s.whole()
	}},
	"fsync_fails": {`The leader's fsync of a write fails. The leader ends itself and acknowledges nothing: after a failed fsync nobody knows what the disk holds. The heir reads the
log from the page cache, makes its own durable, and leads.`, func(s *scenario) {
		s.begin()
		s.say("a write, and the disk refuses to sync it")
		old := s.leader()
		s.fsyncFailsOnce = true
		old.write()
		s.runUntil(s.now+time.Second, func() bool { return old.dead })
		s.whole()
	}},
	"disk_full": {`The disk fills up, and the leader refuses a write: no entry appears in any log. Then it is killed. Its heir needs room for the first entry of its
epoch and waits for it with the lock in its hand. Once there is room, it leads.`, func(s *scenario) {
		s.begin()
		s.say("the disk is full; a write is refused")
		s.faults.diskFull = true
		s.leader().write()
		s.runUntil(s.now+50*time.Millisecond, nil)
		s.say("the leader is killed: the heir waits for room")
		heir := s.heir()
		s.kill(s.leader(), "SIGKILL")
		s.runUntil(s.now+50*time.Millisecond, nil)
		if r := heir.core.Role(); r != core.Inheriting {
			s.fail("the heir is %s on a full disk", r)
		}
		s.say("there is room again")
		s.faults.diskFull = false
		s.whole()
	}},
	"hand_over": {`An operator hands the leadership over to the last in line. The leader names the successor in the roster and waits until every follower that could
inherit knows it: then it is certain (Answer), and clients are served no longer. A write that was taken before is still acknowledged. When the successor has
all of the log, the leader ends. What follows is a takeover like any other, but that the successor is the first in line, and the
others leave it more time.`, func(s *scenario) {
		s.begin()
		s.say("dynast promote 127.0.0.1:9997, and a write in the same moment")
		r := s.operator.ask("hand over to 9997", func(r *request) core.Event {
			return core.HandoverRequested{To: s.address(9997), Reason: "asked by an operator", Ref: r}
		})
		s.leader().write()
		s.runUntil(s.now+time.Second, func() bool { return s.leader() != nil && s.leader() != r.leader })
		if s.leader().id.Address != s.address(9997) || r.answers != 1 || s.oracle.answered[len(s.oracle.answered)-1].payload != s.writes {
			s.fail("%s leads, %d answers, the write is not the last one acknowledged", s.leader(), r.answers)
		}
		s.whole()
	}},
	"successor_killed_in_hand_over": {`The successor is killed when clients are served no longer. The leader must not end without anybody who has everything: it takes the heir
instead.`, func(s *scenario) {
		s.begin()
		s.say("a hand-over to 9997, which is killed as soon as clients are told to go")
		r := s.operator.ask("hand over to 9997", func(r *request) core.Event {
			return core.HandoverRequested{To: s.address(9997), Reason: "asked by an operator", Ref: r}
		})
		s.runUntil(s.now+time.Second, func() bool { return !r.leader.serving })
		s.kill(s.listening(s.address(9997)), "SIGKILL")
		s.whole()
	}},
	"scale": {`An operator asks for one follower instead of two, and then for two again. The last in line goes, and nobody is started in its place. The number is a
part of the roster: the next leader keeps it.`, func(s *scenario) {
		s.begin()
		s.say("dynast scale 1, and the leader is killed")
		s.operator.ask("keep 1 follower", func(r *request) core.Event { return core.ScaleRequested{Followers: 1, Ref: r} })
		s.runUntil(s.now+time.Second, func() bool { return len(s.living) == 2 })
		s.kill(s.leader(), "SIGKILL")
		s.whole()
		if len(s.living) != 2 {
			s.fail("%d processes: %s", len(s.living), s.roles())
		}
		s.say("dynast scale 2")
		s.operator.ask("keep 2 followers", func(r *request) core.Event { return core.ScaleRequested{Followers: 2, Ref: r} })
		s.runUntil(s.now+time.Second, func() bool { return len(s.living) == 3 })
		s.whole()
	}},
	"defragment": {`An operator has the databases rewritten. The followers do it one at a time, the heir last; who is busy is last in the line of succession. Then the
leader hands over to one that is done, and leaves a note in its slot: the follower that opens it next rewrites that one.`, func(s *scenario) {
		s.begin()
		s.say("etcdctl defrag")
		old := s.leader()
		s.operator.ask("defragment", func(r *request) core.Event { return core.DefragmentRequested{Ref: r} })
		s.runUntil(s.now+time.Second, func() bool { return s.leader() != nil && s.leader() != old })
		s.whole()
		if slices.ContainsFunc(s.disks, func(d *disk) bool { return d.owesDefrag }) {
			s.fail("a database was not rewritten")
		}
	}},
	"upgrade": {`An operator replaces all processes by another build. One follower of it starts beside the old ones, then another; nobody is taken away before both are in
sync. Then the old followers leave, and the leader hands over to a new one, which starts what is missing.`, func(s *scenario) {
		s.begin()
		s.say("dynast upgrade")
		old := s.alive()
		s.operator.upgradeTo("the next build", 2*startTimeout)
		s.runUntil(s.now+5*time.Second, func() bool {
			return !slices.ContainsFunc(old, func(p *process) bool { return !p.dead }) && s.missing() == ""
		})
		if len(s.living) != 3 || slices.ContainsFunc(old, func(p *process) bool { return !p.dead }) {
			s.fail("after an upgrade there are: %s", s.roles())
		}
	}},
	"copy_differs": {`The leader compares the databases of its followers with its own, and finds one with another content. A note in the slot condemns that copy,
the process is killed, and the one that opens the slot next starts empty.`, func(s *scenario) {
		s.begin()
		s.say("9996 has a wrong key")
		q := s.listening(s.address(9996))
		q.disk.foul = true
		s.leader().post(core.ReplicaDiffers{ID: q.id, Detail: "another digest"})
		s.runUntil(s.now+time.Second, func() bool { return q.dead })
		s.whole()
	}},
	"orderly_stop": {`An operator stops the cluster. The leader takes no more from clients, marks its followers as leaving so that none of them inherits, lets
them go, and ends last.`, func(s *scenario) {
		s.begin()
		s.say("SIGTERM to the leader")
		s.operator.done = true
		s.leader().post(core.StopRequested{Reason: "SIGTERM"})
		s.runUntil(s.now+time.Second, func() bool { return len(s.living) == 0 })
	}},
}

// begin starts two followers and writes something.
func (s *scenario) begin() {
	s.say("a fresh start with two followers, min_sync 1, and three writes: see first_start.txt")
	s.muted = true
	s.operator.up()
	s.whole()
	s.put(3)
	s.muted = false
}

func TestScenarios(t *testing.T) {
	for name, plot := range scenarios {
		t.Run(name, func(t *testing.T) {
			s := newScenario(2, 1)
			s.guarded(func() { plot.play(s) })
			if s.violation != nil {
				t.Fatalf("%v\n%s", s.violation, strings.Join(s.lines, "\n"))
			}
			header := "# " + strings.ReplaceAll(plot.about+"\n"+legend, "\n", "\n# ")
			got := strings.ReplaceAll(header, "# \n", "#\n") + "\n" + strings.TrimRight(strings.Join(s.lines, "\n"), "\n") + "\n"
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

// TestEveryTranscriptHasItsScenario: what nobody checks is no documentation.
func TestEveryTranscriptHasItsScenario(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("transcripts: %v, %v", files, err)
	}
	for _, f := range files {
		if _, ok := scenarios[strings.TrimSuffix(filepath.Base(f), ".txt")]; !ok {
			t.Errorf("%s belongs to no scenario", f)
		}
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
