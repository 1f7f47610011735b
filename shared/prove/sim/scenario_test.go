package sim

import (
	"flag"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/rules/core"
)

var update = flag.Bool("update", false, "rewrite the transcripts in testdata")

// legend is in every transcript.
const legend = `
How to read this: a line has the simulated time, the member (port/pid), its role after the event, and the event. The lines
below it are the effects that its core returned, in order. Positions in a log are epoch/index. Every delay is the shortest
possible one, so only the order matters. Members 9995, 9996, ... are 127.0.0.1:9995 and so on. Heartbeats without an effect are left out.`

// plot is a scenario: its description and its script.
type plot struct {
	about string
	play  func(s *scenario)
}

// scenarios are the most important runs. Their transcripts are in testdata.
var scenarios = map[string]plot{
	"first_start": {`The first start of a cluster. The process that an operator starts takes the lock, finds no data, and leads epoch 1.
Before it serves clients, its first entry is in the log and on disk, and succession.json names it. It starts two
followers. They get the log, and are in sync once they have it.`, func(s *scenario) {
		s.say("dynast up, followers = 2, min_sync = 1")
		s.operator.up()
		s.recover()
		s.say("three writes: each is in the log, then on disk and in a follower's log, then acknowledged (Commit)")
		s.put(3)
	}},
	"leader_killed": {`The leader is killed, and both followers learn it from their pidfd. The heir, which has the lowest address, tries the
lock at once and gets it. The other follower waits for its turn, and meanwhile opens its stream to the heir. The heir
reads the entries that it lacks from the dead leader's log, begins epoch 2 in its own log, names itself in
succession.json, and leads. The other follower continues without a restart. A new follower is started in the dead
leader's slot.`, func(s *scenario) {
		s.begin()
		s.say("the leader is killed")
		s.kill(s.leader(), "SIGKILL")
		s.recover()
	}},
	"leader_killed_with_unsent_write": {`The leader is killed when a write is in its log, but before a follower has got it. The client got no answer, but the
write is not lost: the heir finds it in the dead leader's log (Adopted 1/5) and commits it.`, func(s *scenario) {
		s.begin()
		leader := s.leader()
		s.say("a write; the leader is killed as soon as the write is in its log")
		leader.write()
		end := uint64(len(leader.disk.log)) + 1
		s.runUntil(s.now+time.Second, func() bool { return leader.disk.last().Index == end })
		s.kill(leader, "SIGKILL")
		s.recover()
	}},
	"heir_killed_in_takeover": {`The leader is killed, and its heir is killed as soon as it has the lock. The kernel releases the lock when the heir
dies. The next in line takes it when its turn comes. Then two followers are missing, and both are started.`, func(s *scenario) {
		s.begin()
		heir := s.heir()
		s.say("the leader is killed; the heir is killed as soon as it has the lock")
		s.kill(s.leader(), "SIGKILL")
		s.until(heir, core.Inheriting)
		s.kill(heir, "SIGKILL")
		s.recover()
	}},
	"heir_stopped_in_takeover": {`The heir is stopped (SIGSTOP) while it holds the lock and before succession.json names it. Without further action, no
other member could ever lead. The next in line tries the lock and sees that its holder is stopped. After the heartbeat
timeout it kills the holder.`, func(s *scenario) {
		s.begin()
		heir := s.heir()
		s.say("the leader is killed; the heir is stopped as soon as it has the lock")
		s.kill(s.leader(), "SIGKILL")
		s.until(heir, core.Inheriting)
		s.stop(heir, 0)
		s.recover()
	}},
	"leader_stopped_and_continued": {`A leader that is stopped for less than the heartbeat timeout continues to lead. A leader that is stopped for longer
still holds the lock. Its followers kill it with SIGKILL and wait until the kernel reports its death. Only then does
the heir inherit. A later SIGCONT has no effect, because the process is dead.`, func(s *scenario) {
		s.begin()
		s.say("the leader is stopped for half the heartbeat timeout: nothing happens")
		s.stop(s.leader(), heartbeatTimeout/2)
		s.runUntil(s.now+2*heartbeatTimeout, nil)
		s.say("the leader is stopped for good: it is killed, and then the heir takes over")
		old := s.leader()
		s.stop(old, 0)
		s.runUntil(s.now+time.Second, func() bool { return old.dead })
		s.resume(old)
		s.recover()
	}},
	"two_deaths_at_once": {`The leader and its heir are killed at the same moment. The remaining follower waits for its turn, takes the lock,
inherits, and starts two followers.`, func(s *scenario) {
		s.begin()
		s.say("the leader and its heir are killed at once")
		heir := s.heir()
		s.kill(s.leader(), "SIGKILL")
		s.kill(heir, "SIGKILL")
		s.recover()
	}},
	"cold_start": {`All processes are killed, and an operator starts the cluster again. The new process has no copy of its own. It opens
the slot that succession.json names, whose log holds every acknowledged write, and leads the next epoch from there.
New followers open the other slots. The content of these slots is still good, because the host did not go down.`, func(s *scenario) {
		s.begin()
		s.say("all processes are killed; then the cluster is started again")
		for _, p := range s.alive() {
			s.kill(p, "SIGKILL to all")
		}
		s.operator.up()
		s.recover()
	}},
	"join": {`An operator adds a follower by hand. The leader gives it a slot, and it gets the log like any other follower. When the
leader dies, the next leader adopts it like the others. It does not count among the followers that the leader must
keep.`, func(s *scenario) {
		s.begin()
		s.say("dynast join")
		s.operator.join()
		s.runUntil(s.now+time.Second, func() bool { return len(s.living) == 4 && s.missing() == "" })
		s.say("the leader is killed: the added follower is adopted like the others")
		s.kill(s.leader(), "SIGKILL")
		s.recover()
	}},
	"power_loss": {`The host loses power. Everything unsynced is lost, which includes entries in the followers' logs, because followers do
not sync at each write. The leader's log has every acknowledged write. The followers' slots were written in another
boot of the host. They are therefore not trusted, and start empty.`, func(s *scenario) {
		s.begin()
		s.say("the host loses power")
		s.losePower()
		s.operator.up()
		s.recover()
	}},
	"named_slot_unreadable": {`The leader is killed, and its log is unreadable. The heir uses the most complete log among the others instead. It
reports that acknowledged writes may be lost, because it cannot know that there were none.`, func(s *scenario) {
		s.begin()
		s.say("the leader is killed, and its log is unreadable")
		s.disk(s.leader().disk.slot).broken = true
		s.faults.brokeOnce = true
		s.kill(s.leader(), "SIGKILL")
		s.recover()
	}},
	"follower_hangs": {`A follower is stopped. A write is acknowledged with the log of the other follower. After the heartbeat timeout, the
leader kills the silent follower and starts another one in its slot.`, func(s *scenario) {
		s.begin()
		s.say("a follower is stopped; a write is acknowledged without it")
		s.stop(s.heir(), 0)
		s.put(1)
		s.runUntil(s.now+2*heartbeatTimeout, nil)
		s.recover()
	}},
	"host_frozen": {`All processes are stopped for ten heartbeat timeouts and then continued, as if the host had been frozen. Each process
notices that it was late itself. So the silence of the others proves nothing, and no process is killed.`, func(s *scenario) {
		s.begin()
		s.say("all processes are stopped, and continued later")
		for _, p := range s.alive() {
			s.stop(p, 10*heartbeatTimeout)
		}
		s.runUntil(s.now+15*heartbeatTimeout, nil)
		s.say("a write: the same leader acknowledges it")
		s.put(1)
		s.recover()
	}},
	"fsync_fails": {`The leader's fsync of a write fails. The leader exits and acknowledges nothing, because after a failed fsync it is
unknown what the disk holds. The heir reads the log from the page cache, makes its own log durable, and leads.`, func(s *scenario) {
		s.begin()
		s.say("a write; the disk fails to sync it")
		old := s.leader()
		s.fsyncFailsOnce = true
		old.write()
		s.runUntil(s.now+time.Second, func() bool { return old.dead })
		s.recover()
	}},
	"disk_full": {`The disk is full, and the leader refuses a write: no log gets an entry. Then the leader is killed. The heir needs room
for the first entry of its epoch, and waits for it while it holds the lock. Once there is room, it leads.`, func(s *scenario) {
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
		s.recover()
	}},
	"hand_over": {`An operator hands the leadership over to the last in line. The leader names the successor in the roster, and waits
until every follower that could inherit knows it. Then the hand-over is certain (Answer), and the leader stops serving
clients. A write that it accepted before is still acknowledged. When the successor has the whole log, the leader
exits. What follows is a normal takeover with two differences: the successor is first in line, and the other followers
give it more time.`, func(s *scenario) {
		s.begin()
		s.say("dynast promote 127.0.0.1:9997, and a write at the same moment")
		r := s.operator.ask("hand over to 9997", func(r *request) core.Event {
			return core.HandoverRequested{To: s.address(9997), Reason: "asked by an operator", Ref: r}
		})
		s.leader().write()
		s.runUntil(s.now+time.Second, func() bool { return s.leader() != nil && s.leader() != r.leader })
		if s.leader().id.Address != s.address(9997) || r.answers != 1 || s.oracle.answered[len(s.oracle.answered)-1].payload != s.writes {
			s.fail("%s leads, the request got %d answers, or the write is not the last acknowledged one", s.leader(), r.answers)
		}
		s.recover()
	}},
	"successor_killed_in_hand_over": {`The successor is killed when the leader has stopped serving clients. The leader must not exit before another member
has everything. It takes the heir instead.`, func(s *scenario) {
		s.begin()
		s.say("a hand-over to 9997, which is killed as soon as the leader has stopped serving")
		r := s.operator.ask("hand over to 9997", func(r *request) core.Event {
			return core.HandoverRequested{To: s.address(9997), Reason: "asked by an operator", Ref: r}
		})
		s.runUntil(s.now+time.Second, func() bool { return !r.leader.serving })
		s.kill(s.listening(s.address(9997)), "SIGKILL")
		s.recover()
	}},
	"scale": {`An operator asks for one follower instead of two, and later for two again. The last in line leaves, and no process is
started in its place. The number of followers is part of the roster, so the next leader keeps it.`, func(s *scenario) {
		s.begin()
		s.say("dynast scale 1, and the leader is killed")
		s.operator.ask("keep 1 follower", func(r *request) core.Event { return core.ScaleRequested{Followers: 1, Ref: r} })
		s.runUntil(s.now+time.Second, func() bool { return len(s.living) == 2 })
		s.kill(s.leader(), "SIGKILL")
		s.recover()
		if len(s.living) != 2 {
			s.fail("%d processes, want 2: %s", len(s.living), s.roles())
		}
		s.say("dynast scale 2")
		s.operator.ask("keep 2 followers", func(r *request) core.Event { return core.ScaleRequested{Followers: 2, Ref: r} })
		s.runUntil(s.now+time.Second, func() bool { return len(s.living) == 3 })
		s.recover()
	}},
	"defragment": {`An operator defragments the databases. The followers do it one at a time, and the heir comes last. A busy follower
moves to the end of the line of succession. Then the leader hands over to a follower that is done, and leaves a note
in its slot: the next follower that opens this slot defragments it.`, func(s *scenario) {
		s.begin()
		s.say("etcdctl defrag")
		old := s.leader()
		s.operator.ask("defragment", func(r *request) core.Event { return core.DefragmentRequested{Ref: r} })
		s.runUntil(s.now+time.Second, func() bool { return s.leader() != nil && s.leader() != old })
		s.recover()
		if slices.ContainsFunc(s.disks, func(d *disk) bool { return d.owesDefrag }) {
			s.fail("a database was not defragmented")
		}
	}},
	"upgrade": {`An operator replaces all processes by another build. One follower of the new build starts beside the old ones, and
then a second one. No old process leaves before both are in sync. Then the old followers leave, and the leader hands
over to a new follower. The new leader starts the missing follower.`, func(s *scenario) {
		s.begin()
		s.say("dynast upgrade")
		old := s.alive()
		s.operator.upgradeTo("the next build", 2*startTimeout)
		s.runUntil(s.now+5*time.Second, func() bool {
			return !slices.ContainsFunc(old, func(p *process) bool { return !p.dead }) && s.missing() == ""
		})
		if len(s.living) != 3 || slices.ContainsFunc(old, func(p *process) bool { return !p.dead }) {
			s.fail("processes after the upgrade: %s", s.roles())
		}
	}},
	"copy_differs": {`The leader compares the databases of its followers with its own, and finds that one differs. A note in the slot
condemns that copy, and the process is killed. The next process that opens the slot starts empty.`, func(s *scenario) {
		s.begin()
		s.say("9996 has a wrong key")
		q := s.listening(s.address(9996))
		q.disk.wrongKeys = true
		s.leader().post(core.ReplicaDiffers{ID: q.id, Detail: "another digest"})
		s.runUntil(s.now+time.Second, func() bool { return q.dead })
		s.recover()
	}},
	"orderly_stop": {`An operator stops the cluster. The leader refuses further requests of clients. It marks its followers as leaving, so
that none of them inherits, dismisses them, and exits last.`, func(s *scenario) {
		s.begin()
		s.say("SIGTERM to the leader")
		s.operator.done = true
		s.leader().post(core.StopRequested{Reason: "SIGTERM"})
		s.runUntil(s.now+time.Second, func() bool { return len(s.living) == 0 })
	}},
}

// begin starts a cluster with two followers and makes three writes.
func (s *scenario) begin() {
	s.say("a fresh start with two followers, min_sync 1, and three writes: see first_start.txt")
	s.muted = true
	s.operator.up()
	s.recover()
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
				t.Fatalf("%v; run: go test ./shared/prove/sim -run Scenarios -update", err)
			}
			if got != string(want) {
				t.Errorf("the transcript has changed; if that is intended, run: go test ./shared/prove/sim -run Scenarios -update\n%s", difference(string(want), got))
			}
		})
	}
}

// TestEveryTranscriptHasItsScenario checks that each transcript in testdata comes from a
// scenario.
func TestEveryTranscriptHasItsScenario(t *testing.T) {
	files, err := filepath.Glob(filepath.Join("testdata", "*.txt"))
	if err != nil || len(files) == 0 {
		t.Fatalf("transcripts: %v, %v", files, err)
	}
	for _, f := range files {
		if _, ok := scenarios[strings.TrimSuffix(filepath.Base(f), ".txt")]; !ok {
			t.Errorf("%s is the transcript of no scenario", f)
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
