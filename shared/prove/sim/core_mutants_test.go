package sim

import (
	"errors"
	"flag"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// coreMutant is a rule of the core, or of a package on which it decides, that is broken on
// purpose in its source. old occurs once in the file. In new, MUTANT is true while this mutant is
// active.
type coreMutant struct {
	name, file, old, new string
	// story says that the mutant breaks no rule of safety, but changes a transcript. A golden
	// transcript catches it.
	story bool
	// rare says that the mutant shows only if several faults meet. It needs more seeds than the
	// tests run by default; see -rare.
	rare bool
}

var rare = flag.Bool("rare", false, "also run the mutants that need thousands of seeds")

var coreMutants = []coreMutant{
	// Upgrades.
	{name: "old followers leave before the new ones are in sync", file: "rules/core/upgrade.go",
		old: "if !c.freshInSync() {", new: "if !MUTANT && !c.freshInSync() {"},
	{name: "one follower of a build is enough", file: "rules/core/upgrade.go",
		old: "missing := max(c.lead.want, 1) - len(u.fresh); missing > 0 {", new: "missing := max(c.lead.want, 1) - len(u.fresh); !MUTANT && missing > 0 {"},

	// Commits.
	{name: "min_sync is ignored", file: "rules/core/commit.go",
		old: "need := min(minSync, len(acks))\n", new: "need := min(minSync, len(acks))\n\tif MUTANT {\n\t\tneed = 0\n\t}\n"},
	{name: "the leader's own disk is ignored", file: "rules/core/commit.go",
		old: "return min(synced, acks[", new: "if MUTANT {\n\t\tsynced = acks[len(acks)-need]\n\t}\n\treturn min(synced, acks["},
	{name: "any follower's log counts, even if it is not in sync", file: "rules/core/leader.go",
		old: "if p.member.State == roster.InSync {\n\t\t\tacks", new: "if MUTANT || p.member.State == roster.InSync {\n\t\t\tacks"},
	{name: "a new leader does not commit what it inherited", file: "rules/core/takeover.go",
		old: "c.committed = c.appended.Index\n", new: "if !MUTANT {\n\t\tc.committed = c.appended.Index\n\t}\n"},
	{name: "a follower applies entries that it did not get from this leader", rare: true, file: "rules/core/follower.go",
		old: "if c.appended.Epoch != c.roster.Epoch {", new: "if !MUTANT && c.appended.Epoch != c.roster.Epoch {"},

	// Who inherits, and when.
	{name: "a held lock counts as free", file: "rules/core/takeover.go",
		old: "c.takeover.trying = false\n", new: "c.takeover.trying = false\n\tif MUTANT {\n\t\tc.lockTaken(LockTaken{Succession: ev.Succession, AnyData: true})\n\t\treturn\n\t}\n"},
	{name: "no follower kills a silent leader", file: "rules/core/follower.go",
		old: "if c.follow.dead || c.follow.fenced || c.now <", new: "if MUTANT || c.follow.dead || c.follow.fenced || c.now <"},
	{name: "a silent leader is not killed", file: "rules/core/follower.go",
		old: "c.emit(Kill{ID: c.follow.leader.ID,", new: "if MUTANT {\n\t\treturn\n\t}\n\tc.emit(Kill{ID: c.follow.leader.ID,"},
	{name: "a stopped holder of the lock is waited for", rare: true, file: "rules/core/takeover.go",
		old: "case !ev.HolderStopped:", new: "case MUTANT || !ev.HolderStopped:"},
	{name: "every follower is first in line", file: "rules/core/takeover.go",
		old: "rank := c.roster.Rank(c.self.Address)\n", new: "rank := c.roster.Rank(c.self.Address)\n\tif MUTANT {\n\t\trank = 0\n\t}\n"},
	{name: "the highest address comes first", file: "rules/roster/roster.go",
		old: "byAddress := func(a, b Address) int { return a.Compare(b) }", new: "byAddress := func(a, b Address) int {\n\t\tif MUTANT {\n\t\t\treturn b.Compare(a)\n\t\t}\n\t\treturn a.Compare(b)\n\t}"},
	{name: "ports are ordered as text", file: "rules/roster/roster.go",
		old: "return byAddress(a, b)\n", new: "if MUTANT {\n\t\t\treturn strings.Compare(a.String(), b.String())\n\t\t}\n\t\treturn byAddress(a, b)\n"},
	{name: "a leaving member is in line", file: "rules/roster/roster.go",
		old: "m.Address == r.Leader || m.State == Leaving:", new: "m.Address == r.Leader || m.State == Leaving && !MUTANT:"},

	// How a new leader inherits.
	{name: "the named log is not read", file: "rules/core/takeover.go",
		old: "case ev.Succession.Slot == c.self.Slot && c.hasCopy:", new: "case c.hasCopy && (MUTANT || ev.Succession.Slot == c.self.Slot):"},
	{name: "a new leader continues a log that is no prefix of the named one", file: "rules/core/takeover.go",
		old: "case t.step == stepAdopting && ev.Diverged:\n", new: "case MUTANT && t.step == stepAdopting && ev.Diverged:\n\t\tt.adopted = true\n\t\tc.beginEpoch()\n\tcase t.step == stepAdopting && ev.Diverged:\n"},
	{name: "the first entry of an epoch is not synced", file: "rules/core/takeover.go",
		old: "c.takeover.step = stepSyncing\n", new: "c.takeover.step = stepSyncing\n\tif MUTANT {\n\t\tc.takeover.step = stepNaming\n\t\tc.emit(WriteSuccession{Epoch: c.takeover.claims.Epoch})\n\t\treturn\n\t}\n"},
	{name: "a new leader serves before it is named", file: "rules/core/takeover.go",
		old: "t.step = stepNaming\n", new: "t.step = stepNaming\n\tif MUTANT {\n\t\tc.becomeLeader()\n\t\treturn\n\t}\n"},
	{name: "a full disk ends the takeover", file: "rules/core/takeover.go",
		old: "if t.writeAt > 0 && c.now >= t.writeAt {", new: "if !MUTANT && t.writeAt > 0 && c.now >= t.writeAt {"},

	// Epochs.
	{name: "the epoch does not grow", file: "rules/core/takeover.go",
		old: "return max(greatest+1, t.leap)", new: "if MUTANT {\n\t\treturn greatest\n\t}\n\treturn max(greatest+1, t.leap)"},
	{name: "a claimed epoch counts as free", file: "rules/core/takeover.go",
		old: "t.seen, t.claims.Epoch)\n", new: "t.seen)\n\tif !MUTANT {\n\t\tgreatest = max(greatest, t.claims.Epoch)\n\t}\n"},
	{name: "an epoch begins before it is claimed", file: "rules/core/takeover.go",
		old: "if t.claiming || !t.adopted", new: "if !MUTANT && t.claiming || !t.adopted"},
	{name: "a log is ranked by an epoch that was never completed", rare: true, file: "rules/core/claims.go",
		old: "return (named == 0 ||", new: "return MUTANT || (named == 0 ||"},

	// Followers of a new leader, and missing ones.
	{name: "two members share a slot", rare: true, file: "rules/core/supervise.go",
		old: "if c.conflicts(m) {\n", new: "if !MUTANT && c.conflicts(m) {\n"},
	{name: "the leader does not look for the owners of slots", rare: true, file: "rules/core/strangers.go",
		old: "c.report(StrangerFound,", new: "if MUTANT {\n\t\treturn\n\t}\n\tc.report(StrangerFound,"},
	{name: "a stranger that does not leave is not killed", rare: true, file: "rules/core/strangers.go",
		old: "if !s.ended && c.now >= s.endBy {", new: "if !MUTANT && !s.ended && c.now >= s.endBy {"},
	{name: "a leader hands over entries that it does not know of", rare: true, file: "rules/core/leader.go",
		old: "c.onAppended(Appended(ev))", new: "if !MUTANT {\n\t\t\tc.onAppended(Appended(ev))\n\t\t}"},
	{name: "a busy successor is not the first in line", rare: true, file: "rules/roster/roster.go",
		old: "&& m.Address != r.Successor:", new: "&& (MUTANT || m.Address != r.Successor):"},
	{name: "an upgrade identifies followers by slot", rare: true, file: "rules/core/upgrade.go",
		old: "if !c.canSucceed(c.lead.peer(f.id)) {", new: "if p := c.lead.peer(f.id); !c.canSucceed(p) && !(MUTANT && c.canSucceed(c.inSlot(f.slot))) {"},
	{name: "siblings are not adopted", file: "rules/core/takeover.go",
		old: "c.adoptSibling(m)", new: "if !MUTANT {\n\t\t\t\tc.adoptSibling(m)\n\t\t\t}"},
	{name: "the previous owner of the own slot is adopted", file: "rules/core/takeover.go",
		old: "&& m.Slot != c.self.Slot {", new: "&& (MUTANT || m.Slot != c.self.Slot) {"},
	{name: "a follower that a dead leader dismissed leaves", file: "rules/core/supervise.go",
		old: "if m.State == roster.Leaving {", new: "if !MUTANT && m.State == roster.Leaving {"},
	{name: "silent followers are kept", file: "rules/core/supervise.go",
		old: "!p.killed && silent >= c.cfg.HeartbeatTimeout", new: "!MUTANT && !p.killed && silent >= c.cfg.HeartbeatTimeout"},
	{name: "dead members stay in the roster", file: "rules/core/supervise.go",
		old: "delete(c.lead.peers, ev.ID.Address)", new: "if !MUTANT {\n\t\tdelete(c.lead.peers, ev.ID.Address)\n\t}"},
	{name: "followers that joined by hand count among the wanted ones", file: "rules/core/supervise.go",
		old: "!p.killed && !p.member.ByHand {", new: "!p.killed && (MUTANT || !p.member.ByHand) {"},
	{name: "every process that comes is accepted", file: "rules/core/supervise.go",
		old: "if c.conflicts(m) || full ||", new: "if !MUTANT && (c.conflicts(m) || full) ||"},
	{name: "every log is resumed", file: "rules/core/supervise.go",
		old: "if ev.CanResume {", new: "if MUTANT || ev.CanResume {"},
	{name: "a follower that is behind the kept log gets no snapshot", file: "rules/core/leader.go",
		old: "c.emit(SendSnapshot(ev))", new: "if !MUTANT {\n\t\tc.emit(SendSnapshot(ev))\n\t}"},
	{name: "a failed start counts as running", file: "rules/core/supervise.go",
		old: "c.lead.keeper.Down(c.now, ev.Slot)\n", new: "if !MUTANT {\n\t\tc.lead.keeper.Down(c.now, ev.Slot)\n\t}\n"},
	{name: "an owned slot counts as free", file: "rules/roster/roster.go",
		old: "if !used && !taken(n) {", new: "if (MUTANT && n > 1 || !used) && !taken(n) {"},

	// Rosters and the end.
	{name: "an older roster replaces a newer one", file: "rules/core/follower.go",
		old: "if r.Newer(c.roster) ||", new: "if MUTANT || r.Newer(c.roster) ||"},
	{name: "a change of the roster is not published", file: "rules/core/leader.go",
		old: "c.roster = r\n\tc.emit(Publish{Roster: r})", new: "if MUTANT && len(r.Members) < len(c.roster.Members) {\n\t\treturn\n\t}\n\tc.roster = r\n\tc.emit(Publish{Roster: r})"},
	{name: "a stop does not wait for the followers", file: "rules/core/stop.go",
		old: "if len(c.lead.peers) == 0 &&", new: "if (MUTANT || len(c.lead.peers) == 0) &&"},

	// Requests of operators.
	{name: "a leader hands over before its clients are answered", file: "rules/core/handover.go",
		old: "h.phase = handoverDraining\n\tc.emit(StopServing{})", new: "h.phase = handoverDraining\n\tif MUTANT {\n\t\th.phase = handoverWaiting\n\t}\n\tc.emit(StopServing{})"},
	{name: "a leader hands over to a follower that lacks entries", file: "rules/core/handover.go",
		old: "if p.match < c.appended.Index ||", new: "if !MUTANT && p.match < c.appended.Index ||"},
	{name: "a leader hands over what is not on its disk", rare: true, file: "rules/core/handover.go",
		old: "|| c.synced < c.appended.Index {", new: "|| !MUTANT && c.synced < c.appended.Index {"},
	{name: "a leader hands over to a follower that can no longer succeed", file: "rules/core/handover.go",
		old: "if p = c.heirPeer(); p == nil {", new: "if p = c.heirPeer(); MUTANT {\n\t\t\tc.exit(ExitDone, \"handed over\")\n\t\t\treturn\n\t\t} else if p == nil {"},
	{name: "a named successor is not the first in line", file: "rules/roster/roster.go",
		old: "switch r.Successor {\n", new: "successor := r.Successor\n\t\tif MUTANT {\n\t\t\tsuccessor = Address{}\n\t\t}\n\t\tswitch successor {\n"},
	{name: "a successor is made busy", rare: true, file: "rules/core/defrag.go",
		old: "if c.lead.handover.phase != handoverNot {", new: "if !MUTANT && c.lead.handover.phase != handoverNot {"},
	{name: "a busy follower keeps its place in line", file: "rules/roster/roster.go",
		old: "busy = append(busy, m.Address)", new: "if MUTANT {\n\t\t\t\table = append(able, m.Address)\n\t\t\t} else {\n\t\t\t\tbusy = append(busy, m.Address)\n\t\t\t}"},
	{name: "a defragmentation waits for a dead follower", file: "rules/core/defrag.go",
		old: "if c.lead.defrag.current == id {", new: "if !MUTANT && c.lead.defrag.current == id {"},
	{name: "a start that is due keeps a leader awake", file: "rules/core/leader.go",
		old: "if c.startsHeld() {", new: "if !MUTANT && c.startsHeld() {"},
	{name: "a copy that differs is not condemned", story: true, file: "rules/core/differs.go",
		old: "c.emit(Condemn{Slot: p.member.Slot,", new: "if MUTANT {\n\t\tc.kill(p, \"its keys differ\")\n\t\treturn\n\t}\n\tc.emit(Condemn{Slot: p.member.Slot,"},
	{name: "a leader's copy is condemned before another copy has everything", rare: true, file: "rules/core/differs.go",
		old: "c.handOver(to, handoverState{reason: \"the leader's keys", new: "if MUTANT {\n\t\t\t\tc.emit(Condemn{Slot: c.self.Slot, Reason: ev.Detail})\n\t\t\t}\n\t\t\tc.handOver(to, handoverState{reason: \"the leader's keys"},
	{name: "two of three copies decide which is wrong", file: "rules/core/differs.go",
		old: "len(c.Others) < c.Wanted", new: "len(c.Others) < c.Wanted && !MUTANT"},
	{name: "a follower whose keys differ is not killed", file: "rules/core/differs.go",
		old: "c.kill(p, \"its keys differ from", new: "if MUTANT {\n\t\treturn\n\t}\n\tc.kill(p, \"its keys differ from"},
	{name: "all followers stay although fewer are wanted", file: "rules/core/operate.go",
		old: "if c.active() <= c.lead.want {", new: "if MUTANT || c.active() <= c.lead.want {"},
	{name: "the next leader forgets the number of followers", story: true, file: "rules/core/takeover.go",
		old: "c.lead.want = old.Followers", new: "if !MUTANT {\n\t\t\tc.lead.want = old.Followers\n\t\t}"},
	{name: "followers kill the leader after the host was frozen", story: true, file: "rules/core/core.go",
		old: "if intime {", new: "if MUTANT || intime {"},
}

// TestCoreMutants breaks the rules themselves. It builds this package once, over a core that
// contains every mutant, and runs it once for each mutant, which is then active.
func TestCoreMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("builds a mutated core and takes twenty seconds")
	}
	mutants := make([]testkit.Mutant, len(coreMutants))
	for i, m := range coreMutants {
		mutants[i] = testkit.Mutant{Name: m.name, File: m.file, Old: m.old, New: m.new}
	}
	binary := testkit.BuildMutants(t, "../..", mutants)
	if out, err := runMutant(binary, "", "^(TestSeeds|TestScenarios)$", 100, false); err != nil {
		t.Fatalf("without an active mutant: %v\n%s", err, out)
	}
	for _, m := range coreMutants {
		t.Run(m.name, func(t *testing.T) {
			within := 2000 // the first seeds find most of them
			if m.rare {
				if within = 20_000; !*rare {
					t.Skip("run with -rare")
				}
			}
			tests := "^TestSeeds$"
			if m.story {
				tests = "^TestScenarios$"
			}
			out, err := runMutant(binary, m.name, tests, within, m.rare)
			if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if err == nil {
				t.Fatalf("not caught within %d seeds", within)
			}
			how := regexp.MustCompile(`seed \d+ at .*|--- FAIL: TestScenarios/\S+`).Find(out)
			if how == nil {
				t.Fatalf("the run failed, but not because of a rule:\n%s", out)
			}
			t.Logf("caught by %s", how)
		})
	}
}

// runMutant runs the mutated tests with one mutant active.
func runMutant(binary, mutant, tests string, seeds int, rough bool) ([]byte, error) {
	cmd := exec.Command(binary, "-test.run", tests, "-seeds", strconv.Itoa(seeds), "-rough="+strconv.FormatBool(rough))
	cmd.Env = append(os.Environ(), testkit.MutantEnv+"="+mutant)
	return cmd.CombinedOutput()
}
