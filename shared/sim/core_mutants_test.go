package sim

import (
	"bytes"
	"encoding/json"
	"errors"
	"flag"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

// coreMutant is a rule of the core (or of a package that it decides by), broken
// on purpose in its source. old stands once in the file; in its new form, MUTANT is
// true while this mutant is the one that runs.
type coreMutant struct {
	name, file, old, new string
	// story: no rule of safety is broken, what shows is that another story is
	// told; it is caught by a golden transcript.
	story bool
	// rare: it shows only where several faults meet, and takes more seeds than are
	// run by default; see -rare.
	rare bool
}

var rare = flag.Bool("rare", false, "wake also those mutants that take thousands of seeds to be found")

var coreMutants = []coreMutant{
	// Another build.
	{name: "old followers leave before the new ones are there", file: "core/upgrade.go",
		old: "if !c.freshInSync() {", new: "if !MUTANT && !c.freshInSync() {"},
	{name: "one follower of a build is enough", file: "core/upgrade.go",
		old: "missing := max(c.lead.want, 1) - len(u.fresh); missing > 0 {", new: "missing := max(c.lead.want, 1) - len(u.fresh); !MUTANT && missing > 0 {"},

	// What is committed.
	{name: "min_sync does not count", file: "core/commit.go",
		old: "need := min(minSync, len(acks))\n", new: "need := min(minSync, len(acks))\n\tif MUTANT {\n\t\tneed = 0\n\t}\n"},
	{name: "the leader's own disk does not count", file: "core/commit.go",
		old: "return min(synced, acks[", new: "if MUTANT {\n\t\tsynced = acks[len(acks)-need]\n\t}\n\treturn min(synced, acks["},
	{name: "any follower's log counts, in sync or not", file: "core/leader.go",
		old: "if p.member.State == roster.InSync {\n\t\t\tacks", new: "if MUTANT || p.member.State == roster.InSync {\n\t\t\tacks"},
	{name: "what an inheritor found is not committed", file: "core/takeover.go",
		old: "c.committed = c.appended.Index\n", new: "if !MUTANT {\n\t\tc.committed = c.appended.Index\n\t}\n"},
	{name: "a follower applies what it has not got from this leader", rare: true, file: "core/follower.go",
		old: "if c.appended.Epoch != c.roster.Epoch {", new: "if !MUTANT && c.appended.Epoch != c.roster.Epoch {"},

	// Who may inherit, and when.
	{name: "a lock that is held is taken for free", file: "core/takeover.go",
		old: "c.takeover.trying = false\n", new: "c.takeover.trying = false\n\tif MUTANT {\n\t\tc.lockTaken(LockTaken{Succession: ev.Succession, AnyData: true})\n\t\treturn\n\t}\n"},
	{name: "nobody ends a silent leader", file: "core/follower.go",
		old: "if c.follow.dead || c.follow.fenced || c.now <", new: "if MUTANT || c.follow.dead || c.follow.fenced || c.now <"},
	{name: "a silent leader is not killed", file: "core/follower.go",
		old: "c.emit(Kill{ID: c.follow.leader.ID,", new: "if MUTANT {\n\t\treturn\n\t}\n\tc.emit(Kill{ID: c.follow.leader.ID,"},
	{name: "a stopped holder of the lock is waited for", file: "core/takeover.go",
		old: "case !ev.HolderStopped:", new: "case MUTANT || !ev.HolderStopped:"},
	{name: "everybody stands first in line", file: "core/takeover.go",
		old: "rank := c.roster.Rank(c.self.Address)\n", new: "rank := c.roster.Rank(c.self.Address)\n\tif MUTANT {\n\t\trank = 0\n\t}\n"},
	{name: "the highest address comes first", file: "roster/roster.go",
		old: "byAddress := func(a, b Address) int { return a.Compare(b) }", new: "byAddress := func(a, b Address) int {\n\t\tif MUTANT {\n\t\t\treturn b.Compare(a)\n\t\t}\n\t\treturn a.Compare(b)\n\t}"},
	{name: "ports are ordered as text", file: "roster/roster.go",
		old: "return byAddress(a, b)\n", new: "if MUTANT {\n\t\t\treturn strings.Compare(a.String(), b.String())\n\t\t}\n\t\treturn byAddress(a, b)\n"},
	{name: "who leaves stands in line", file: "roster/roster.go",
		old: "m.Address == r.Leader || m.State == Leaving:", new: "m.Address == r.Leader || m.State == Leaving && !MUTANT:"},

	// How it is inherited.
	{name: "the epoch does not grow", file: "core/takeover.go",
		old: "t.epoch++\n", new: "if !MUTANT {\n\t\tt.epoch++\n\t}\n"},
	{name: "the epoch of succession.json does not count", file: "core/takeover.go",
		old: "t.epoch = max(t.epoch, t.named.Epoch)", new: "if !MUTANT {\n\t\t\tt.epoch = max(t.epoch, t.named.Epoch)\n\t\t}"},
	{name: "the named log is not read", file: "core/takeover.go",
		old: "case ev.Succession.Slot == c.self.Slot && c.hasCopy:", new: "case c.hasCopy && (MUTANT || ev.Succession.Slot == c.self.Slot):"},
	{name: "an own log that is no beginning of the named one is gone on with", file: "core/takeover.go",
		old: "case t.step == stepAdopting && ev.Diverged:\n", new: "case MUTANT && t.step == stepAdopting && ev.Diverged:\n\t\tc.beginEpoch()\n\tcase t.step == stepAdopting && ev.Diverged:\n"},
	{name: "the first entry of an epoch is not synced", file: "core/takeover.go",
		old: "c.takeover.step = stepSyncing\n", new: "c.takeover.step = stepSyncing\n\tif MUTANT {\n\t\tc.takeover.step = stepNaming\n\t\tc.emit(WriteSuccession{Epoch: c.takeover.epoch})\n\t\treturn\n\t}\n"},
	{name: "leads before it is named", file: "core/takeover.go",
		old: "t.step = stepNaming\n", new: "t.step = stepNaming\n\tif MUTANT {\n\t\tc.becomeLeader()\n\t\treturn\n\t}\n"},
	{name: "a full disk ends the takeover", file: "core/takeover.go",
		old: "if t.writeAt > 0 && c.now >= t.writeAt {", new: "if !MUTANT && t.writeAt > 0 && c.now >= t.writeAt {"},

	// The followers of a new leader, and the missing.
	{name: "siblings are not adopted", file: "core/takeover.go",
		old: "c.adoptSibling(m)", new: "if !MUTANT {\n\t\t\t\tc.adoptSibling(m)\n\t\t\t}"},
	{name: "who had the own slot is adopted", file: "core/takeover.go",
		old: "&& m.Slot != c.self.Slot {", new: "&& (MUTANT || m.Slot != c.self.Slot) {"},
	{name: "who was told to leave by a dead leader leaves", file: "core/supervise.go",
		old: "if m.State == roster.Leaving {", new: "if !MUTANT && m.State == roster.Leaving {"},
	{name: "silent followers are kept", file: "core/supervise.go",
		old: "!p.killed && silent >= c.cfg.HeartbeatTimeout", new: "!MUTANT && !p.killed && silent >= c.cfg.HeartbeatTimeout"},
	{name: "the dead stay in the roster", file: "core/supervise.go",
		old: "delete(c.lead.peers, ev.ID.Address)", new: "if !MUTANT {\n\t\tdelete(c.lead.peers, ev.ID.Address)\n\t}"},
	{name: "followers by hand count among those to be kept", file: "core/supervise.go",
		old: "!p.killed && !p.member.ByHand {", new: "!p.killed && (MUTANT || !p.member.ByHand) {"},
	{name: "whoever comes is welcome", file: "core/supervise.go",
		old: "if conflict || full ||", new: "if !MUTANT && (conflict || full) ||"},
	{name: "every log is resumed", file: "core/supervise.go",
		old: "if ev.CanResume {", new: "if MUTANT || ev.CanResume {"},
	{name: "whom the log no longer serves gets nothing", file: "core/leader.go",
		old: "c.emit(SendSnapshot(ev))", new: "if !MUTANT {\n\t\tc.emit(SendSnapshot(ev))\n\t}"},
	{name: "a start that failed counts as under way", file: "core/supervise.go",
		old: "c.lead.keeper.Down(c.now, ev.Slot)\n", new: "if !MUTANT {\n\t\tc.lead.keeper.Down(c.now, ev.Slot)\n\t}\n"},
	{name: "a free slot is one that somebody has", file: "roster/roster.go",
		old: "if !used && !taken(n) {", new: "if (MUTANT && n > 1 || !used) && !taken(n) {"},

	// Rosters, and the end.
	{name: "an older roster replaces a newer one", file: "core/follower.go",
		old: "if r.Newer(c.roster) ||", new: "if MUTANT || r.Newer(c.roster) ||"},
	{name: "a change of the roster is not published", file: "core/leader.go",
		old: "c.roster = r\n\tc.emit(Publish{Roster: r})", new: "if MUTANT && len(r.Members) < len(c.roster.Members) {\n\t\treturn\n\t}\n\tc.roster = r\n\tc.emit(Publish{Roster: r})"},
	{name: "a stop does not wait for the followers", file: "core/stop.go",
		old: "if len(c.lead.peers) == 0 &&", new: "if (MUTANT || len(c.lead.peers) == 0) &&"},
	// What operators ask for.
	{name: "a leader hands over before its clients are answered", file: "core/handover.go",
		old: "h.phase = handoverDraining\n\tc.emit(StopServing{})", new: "h.phase = handoverDraining\n\tif MUTANT {\n\t\th.phase = handoverWaiting\n\t}\n\tc.emit(StopServing{})"},
	{name: "a leader hands over to one that has not got everything", file: "core/handover.go",
		old: "if p.match < c.appended.Index ||", new: "if !MUTANT && p.match < c.appended.Index ||"},
	{name: "a leader hands over what is not on its disk", rare: true, file: "core/handover.go",
		old: "|| c.synced < c.appended.Index {", new: "|| !MUTANT && c.synced < c.appended.Index {"},
	{name: "a leader hands over to who cannot succeed any more", file: "core/handover.go",
		old: "if p = c.heirPeer(); p == nil {", new: "if p = c.heirPeer(); MUTANT {\n\t\t\tc.exit(ExitDone, \"handed over\")\n\t\t\treturn\n\t\t} else if p == nil {"},
	{name: "a named successor is not the first in line", file: "roster/roster.go",
		old: "switch r.Successor {\n", new: "successor := r.Successor\n\t\tif MUTANT {\n\t\t\tsuccessor = Address{}\n\t\t}\n\t\tswitch successor {\n"},
	{name: "a successor is made busy", file: "core/defrag.go",
		old: "if c.lead.handover.phase != handoverNot {", new: "if !MUTANT && c.lead.handover.phase != handoverNot {"},
	{name: "who is busy stands in line like the others", file: "roster/roster.go",
		old: "case m.State == InSync && m.Busy:", new: "case !MUTANT && m.State == InSync && m.Busy:"},
	{name: "a defragmentation waits for the dead", file: "core/defrag.go",
		old: "if c.lead.defrag.current == id {", new: "if !MUTANT && c.lead.defrag.current == id {"},
	{name: "a start that is due keeps a leader awake", file: "core/leader.go",
		old: "if c.startsHeld() {", new: "if !MUTANT && c.startsHeld() {"},
	{name: "a copy that differs is not condemned", story: true, file: "core/operate.go",
		old: "c.emit(Condemn{Slot: p.member.Slot,", new: "if MUTANT {\n\t\tc.kill(p, \"its keys differ\")\n\t\treturn\n\t}\n\tc.emit(Condemn{Slot: p.member.Slot,"},
	{name: "a leader's copy is condemned before another has everything", rare: true, file: "core/operate.go",
		old: "c.handOver(to, handoverState{reason: \"the leader's keys", new: "if MUTANT {\n\t\t\t\tc.emit(Condemn{Slot: c.self.Slot, Reason: ev.Detail})\n\t\t\t}\n\t\t\tc.handOver(to, handoverState{reason: \"the leader's keys"},
	{name: "who differs is not killed", file: "core/operate.go",
		old: "c.kill(p, \"its keys differ from", new: "if MUTANT {\n\t\treturn\n\t}\n\tc.kill(p, \"its keys differ from"},
	{name: "fewer followers are wanted, and all stay", file: "core/operate.go",
		old: "if c.active() <= c.lead.want {", new: "if MUTANT || c.active() <= c.lead.want {"},
	{name: "the next leader forgets how many are wanted", story: true, file: "core/takeover.go",
		old: "c.lead.want = old.Followers", new: "if !MUTANT {\n\t\t\tc.lead.want = old.Followers\n\t\t}"},
	{name: "an epoch is used again after a loss", rare: true, file: "core/takeover.go",
		old: "if t.lost != \"\" {\n", new: "if !MUTANT && t.lost != \"\" {\n"},
	{name: "a host that froze kills its leader", story: true, file: "core/core.go",
		old: "if intime {", new: "if MUTANT || intime {"},
}

// TestCoreMutants breaks the rules themselves: one build of this package over
// a core in which every mutant sleeps, one run for each that is woken.
func TestCoreMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("builds the core anew and takes twenty seconds")
	}
	goTool, err := exec.LookPath("go")
	if err != nil {
		t.Skip("needs the go command, to build a mutated core")
	}
	binary := filepath.Join(t.TempDir(), "mutants.test")
	build := exec.Command(goTool, "test", "-c", "-overlay", writeOverlay(t), "-o", binary, ".")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("the mutated core does not build: %v\n%s", err, out)
	}
	if out, err := wake(binary, "", "^(TestSeeds|TestScenarios)$", 100); err != nil {
		t.Fatalf("with all mutants asleep: %v\n%s", err, out)
	}
	for _, m := range coreMutants {
		t.Run(m.name, func(t *testing.T) {
			within := 2000 // most are found by one of the first seeds
			if m.rare {
				if within = 20_000; !*rare {
					t.Skip("run with -rare")
				}
			}
			tests := "^TestSeeds$"
			if m.story {
				tests = "^TestScenarios$"
			}
			out, err := wake(binary, m.name, tests, within)
			if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if err == nil {
				t.Fatalf("not caught within %d seeds", within)
			}
			how := regexp.MustCompile(`seed \d+ at .*|--- FAIL: TestScenarios/\S+`).Find(out)
			if how == nil {
				t.Fatalf("it failed, and not by a rule:\n%s", out)
			}
			t.Logf("caught by %s", how)
		})
	}
}

// wake runs the mutated tests with one mutant awake.
func wake(binary, mutant, tests string, seeds int) ([]byte, error) {
	cmd := exec.Command(binary, "-test.run", tests, "-seeds", strconv.Itoa(seeds))
	cmd.Env = append(os.Environ(), "DYNAST_MUTANT="+mutant)
	return cmd.CombinedOutput()
}

// writeOverlay writes the mutated files, and one for each of their packages that
// says which mutant is awake, and returns the overlay that puts them in place.
func writeOverlay(t *testing.T) string {
	dir := t.TempDir()
	shared, err := filepath.Abs("..")
	if err != nil {
		t.Fatal(err)
	}
	replace := map[string]string{}
	put := func(file string, source []byte) {
		to := filepath.Join(dir, strings.ReplaceAll(file, "/", "_"))
		if err := os.WriteFile(to, source, 0o600); err != nil {
			t.Fatal(err)
		}
		replace[filepath.Join(shared, file)] = to
	}
	for file, source := range mutatedFiles(t, shared) {
		put(file, source)
		pkg := filepath.Dir(file)
		put(pkg+"/mutant.go", []byte("package "+pkg+"\n\nimport \"os\"\n\nvar mutant = os.Getenv(\"DYNAST_MUTANT\")\n"))
	}
	raw, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		t.Fatal(err)
	}
	overlay := filepath.Join(dir, "overlay.json")
	if err := os.WriteFile(overlay, raw, 0o600); err != nil {
		t.Fatal(err)
	}
	return overlay
}

// mutatedFiles puts all mutants into the files that they are about.
func mutatedFiles(t *testing.T, shared string) map[string][]byte {
	files := map[string][]byte{}
	for _, m := range coreMutants {
		source := files[m.file]
		if source == nil {
			var err error
			if source, err = os.ReadFile(filepath.Join(shared, m.file)); err != nil {
				t.Fatal(err)
			}
		}
		if n := bytes.Count(source, []byte(m.old)); n != 1 {
			t.Fatalf("mutant %q: what it breaks stands %d times in %s: %q", m.name, n, m.file, m.old)
		}
		mutated := strings.ReplaceAll(m.new, "MUTANT", "(mutant == "+strconv.Quote(m.name)+")")
		files[m.file] = bytes.Replace(source, []byte(m.old), []byte(mutated), 1)
	}
	return files
}
