package services

import (
	"errors"
	"os"
	"os/exec"
	"regexp"
	"strconv"
	"testing"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// rulesMutants are rules that are broken on purpose in their source. old occurs once in the file.
// In new, MUTANT is true while this mutant is active.
var rulesMutants = []struct{ name, file, old, new string }{
	{"a record is saved after the wish", "services.go", "	// Records come first.", "	if MUTANT {\n\t\tfor k, e := range out {\n\t\t\tif s, ok := e.(Save); ok {\n\t\t\t\tc.out = append([]Effect{s}, c.out...)\n\t\t\t\tout[k] = Tell{ID: s.Record.ID}\n\t\t\t}\n\t\t}\n\t}\n\t// Records come first."},
	{"two Clears at the same time", "services.go", "if !i.clearing {", "if MUTANT || !i.clearing {"},
	{"a start does not wait for the delay", "decide.go", "c.now >= i.NotBefore {", "(MUTANT || c.now >= i.NotBefore) {"},
	{"a start does not wait for its dependencies", "decide.go", `c.blocked(i) == "" &&`, `(MUTANT || c.blocked(i) == "") &&`},
	{"a failed task counts as success", "decide.go", "case i.Outcome == Succeeded:\n", "case i.Outcome == Succeeded || MUTANT && i.Outcome == Failed:\n"},
	{"dependents are not waited for at a stop", "decide.go", "case i.spec != nil && !c.wanted(i) && held", "case !MUTANT && i.spec != nil && !c.wanted(i) && held"},
	{"no kill after the stop timeout", "decide.go", "if c.now >= i.StopBy {", "if !MUTANT && c.now >= i.StopBy {"},
	{"a kill before the stop timeout", "services.go", "i.Why, i.StopBy = why, c.now+timeout", "if MUTANT {\n\t\ttimeout /= 2\n\t}\n\ti.Why, i.StopBy = why, c.now+timeout"},
	{"a rolling restart does not wait", "decide.go", "if !w.Rolling {\n\t\treturn true", "if MUTANT || !w.Rolling {\n\t\treturn true"},
	{"a rolling restart does not wait for readiness", "decide.go", "!(other.Phase == Up && other.Ready) {", "!(other.Phase == Up && (MUTANT || other.Ready)) {"},
	{"a rolling restart never ends", "decide.go", "case settled:", "case !MUTANT && settled:"},
	{"a wake is lost", "decide.go", "i.NotBefore > c.decided &&", "(i.NotBefore > c.now || !MUTANT && i.NotBefore > c.decided) &&"},
	{"a watchdog is never due", "decide.go", "case i.Phase == Up && i.PingBy != 0:", "case !MUTANT && i.Phase == Up && i.PingBy != 0:"},
	{"a new leader restarts what runs", "services.go", "i.Process = main\n\t\tc.do(Adopt", "i.Process = main\n\t\tif MUTANT {\n\t\t\ti.Fingerprint++\n\t\t}\n\t\tc.do(Adopt"},
	{"pings before a takeover count", "services.go", "i.PingBy = c.now + i.spec.Watchdog // nobody", "if !MUTANT {\n\t\t\ti.PingBy = c.now + i.spec.Watchdog\n\t\t} // nobody"},
	{"leftovers of a start are ignored", "services.go", "	if others {\n", "	if others && !MUTANT {\n"},
	{"an interrupted task runs again", "services.go", "if i.spec != nil && i.spec.Restart == Never {", "if !MUTANT && i.spec != nil && i.spec.Restart == Never {"},
	{"a process tree is not cleared", "services.go", "c.setPhase(i, Clearing)\n\tc.do(EndChecks", "c.setPhase(i, Clearing)\n\tif MUTANT {\n\t\tc.setPhase(i, Idle)\n\t}\n\tc.do(EndChecks"},
	{"the first failure is delayed", "services.go", "if i.Failures > 1.5 {", "if MUTANT || i.Failures > 1.5 {"},
	{"failures do not decay", "services.go", "i.Failures*math.Exp2(", "i.Failures*math.Exp2(map[bool]float64{true: 0, false: 1}[MUTANT]*"},
	{"the limit is ignored", "services.go", "case s.Limit > 0 &&", "case !MUTANT && s.Limit > 0 &&"},
	{"an unknown status is a success", "services.go", "case i.spec.Restart != Always && exit.OK():", "case i.spec.Restart != Always && (exit.OK() || MUTANT && !exit.Known):"},
	{"an exit during a takeover is unknown", "services.go", "c.exited(i, f.Exit)", "if MUTANT {\n\t\t\tf.Exit = Exit{}\n\t\t}\n\t\tc.exited(i, f.Exit)"},
	{"an exit is not noted", "services.go", "i.LastExit, i.ExitedAt = exit, c.now", "if !MUTANT || exit.OK() {\n\t\ti.LastExit = exit\n\t}\n\ti.ExitedAt = c.now"},
	{"one failed check is enough", "services.go", "if i.AliveMisses >= i.spec.AliveFailures {", "if MUTANT || i.AliveMisses >= i.spec.AliveFailures {"},
	{"a schedule does not skip", "services.go", "if i.Armed || i.Phase != Idle {", "if !MUTANT && (i.Armed || i.Phase != Idle) {"},
	{"a scheduled instance stays armed", "services.go", "i.Outcome, i.Reason, i.Armed = o, reason, false", "i.Outcome, i.Reason, i.Armed = o, reason, MUTANT && i.Armed\n\tif i.Armed {\n\t\ti.Outcome = Unfinished\n\t}"},
	{"a restart of one instance restarts all", "services.go", "if e.Instance != 0 && i.ID.N != e.Instance {", "if !MUTANT && e.Instance != 0 && i.ID.N != e.Instance {"},
	{"generations start anew", "services.go", "w.Generation = max(w.Generation, i.Generation)", "if !MUTANT {\n\t\t\tw.Generation = max(w.Generation, i.Generation)\n\t\t}"},
	{"a start is lost while the process ends", "services.go", "		i.Why = Cycled // it", "		if MUTANT {\n\t\t\t\tcontinue\n\t\t\t}\n\t\t\ti.Why = Cycled // it"},
	{"an early READY is lost", "services.go", "i.Ready = true // a program", "i.Ready = !MUTANT // a program"},
	{"a changed ready check is not noticed", "services.go", "case !i.Ready && (i.spec == nil || !i.spec.ReadyCheck):", "case !i.Ready && !(MUTANT && i.StartedAt < c.now) && (i.spec == nil || !i.spec.ReadyCheck):"},
	{"after a boot, failed services stay failed", "services.go", "if e.Fresh && f.Main == (Process{}) {", "if !MUTANT && e.Fresh && f.Main == (Process{}) {"},
	{"events of earlier runs count", "services.go", "i != nil && i.Run == run {", "i != nil && (MUTANT || i.Run == run) {"},
}

// TestRulesMutants builds this package once, over rules that contain every mutant, and runs it
// once for each mutant.
func TestRulesMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("builds mutated rules and takes twenty seconds")
	}
	mutants := make([]testkit.Mutant, len(rulesMutants))
	for i, m := range rulesMutants {
		mutants[i] = testkit.Mutant{Name: m.name, File: "rules/services/" + m.file, Old: m.old, New: m.new}
	}
	binary := testkit.BuildMutants(t, "../../..", mutants)
	run := func(mutant string, seeds int) ([]byte, error) {
		cmd := exec.Command(binary, "-test.run", "^TestSeeds$", "-seeds", strconv.Itoa(seeds))
		cmd.Env = append(os.Environ(), testkit.MutantEnv+"="+mutant)
		return cmd.CombinedOutput()
	}
	if out, err := run("", 100); err != nil {
		t.Fatalf("without an active mutant: %v\n%s", err, out)
	}
	for _, m := range rulesMutants {
		t.Run(m.name, func(t *testing.T) {
			out, err := run(m.name, 2000)
			if exit := (*exec.ExitError)(nil); err != nil && !errors.As(err, &exit) {
				t.Fatal(err)
			}
			if err == nil {
				t.Fatal("not caught")
			}
			how := regexp.MustCompile(`seed \d+ at .*`).Find(out)
			if how == nil {
				t.Fatalf("the run failed, but not because of a rule:\n%s", out)
			}
			t.Logf("caught by %s", how)
		})
	}
}
