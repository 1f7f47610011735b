package services

import (
	"bytes"
	"os"
	"os/exec"
	"regexp"
	"testing"

	"github.com/dynast-io/dynast/shared/prove/testkit"
)

// mutants break one rule each.
var mutants = []testkit.Mutant{
	{Name: "a process is started while the tree of the one before lives", File: "rules/services/services.go",
		Old: "	i.Ready, i.PingBy, i.AliveMisses = false, 0, 0\n	c.setPhase(i, Clearing)\n", New: "	i.Ready, i.PingBy, i.AliveMisses = false, 0, 0\n	c.setPhase(i, Clearing)\n	if MUTANT {\n		c.setPhase(i, Idle)\n	}\n"},
	{Name: "a new leader starts what runs already", File: "rules/services/services.go",
		Old: "	case lives && (i.Phase == Starting || i.Phase == Up || i.Phase == Ending):", New: "	case MUTANT:\n		i.Phase = Idle\n	case lives && (i.Phase == Starting || i.Phase == Up || i.Phase == Ending):"},
	{Name: "a new leader ends what runs", File: "rules/services/services.go",
		Old: "	c.tell(i, ToldAdopted, \"\")\n", New: "	c.tell(i, ToldAdopted, \"\")\n	if MUTANT && i.Phase == Up {\n		c.end(i, Cycled)\n	}\n"},
	{Name: "a half-finished start is forgotten", File: "rules/services/services.go",
		Old: "	case i.Phase == Starting && !lives && !f.Others:", New: "	case i.Phase == Starting && MUTANT:\n		c.setPhase(i, Idle)\n	case i.Phase == Starting && !lives && !f.Others:"},
	{Name: "a stop that a dead leader had begun is forgotten", File: "rules/services/services.go",
		Old: "c.leading, c.stopping = true, e.Stopping", New: "c.leading, c.stopping = true, e.Stopping && !MUTANT"},
	{Name: "what a service needs is not awaited", File: "rules/services/decide.go",
		Old: "	for _, name := range i.spec.Needs {\n		if why", New: "	for _, name := range i.spec.Needs {\n		if MUTANT {\n			break\n		}\n		if why"},
	{Name: "services stop in any order", File: "rules/services/decide.go",
		Old: "	case !c.wanted(i) && held[i.ID.Service]:", New: "	case !c.wanted(i) && held[i.ID.Service] && !MUTANT:"},
	{Name: "there is no backoff", File: "rules/services/services.go",
		Old: "		if over := i.Failures - 1.5; over > 0 {", New: "		if over := i.Failures - 1.5; over > 0 && !MUTANT {"},
	{Name: "failures never count", File: "rules/services/services.go",
		Old: "float64(failureHalfLife)) + 1\n", New: "float64(failureHalfLife)) + 1\n	if MUTANT {\n		i.Failures = 1\n	}\n"},
	{Name: "what has ended for good runs again", File: "rules/services/decide.go",
		Old: "	return i.Outcome == Unfinished\n", New: "	return i.Outcome == Unfinished || MUTANT\n"},
	{Name: "a scheduled service starts at once", File: "rules/services/decide.go",
		Old: "		return i.Armed || i.Phase == Up", New: "		return MUTANT || i.Armed || i.Phase == Up"},
	{Name: "a stopped service starts", File: "rules/services/decide.go",
		Old: "	if w.Stopped || slices.Contains(w.StoppedInstances, i.ID.N) {\n		return false", New: "	if w.Stopped || slices.Contains(w.StoppedInstances, i.ID.N) {\n		return MUTANT"},
	{Name: "a removed service runs on", File: "rules/services/decide.go",
		Old: "if c.stopping || i.removed() || c.surplus(i) {", New: "if c.stopping || i.spec == nil || i.gone && !MUTANT || c.surplus(i) {"},
	{Name: "a changed configuration restarts nothing", File: "rules/services/decide.go",
		Old: "	case i.spec.Fingerprint != i.Fingerprint, c.cycles(i):", New: "	case i.spec.Fingerprint != i.Fingerprint && !MUTANT, c.cycles(i):"},
	{Name: "a process that ignores its stop signal is not killed", File: "rules/services/decide.go",
		Old: "		if c.now >= i.StopBy {", New: "		if c.now >= i.StopBy && !MUTANT {"},
	{Name: "a rolling restart ends before it has restarted all", File: "rules/services/decide.go",
		Old: "		case settled:\n			w.Rolling = false\n", New: "		case settled || MUTANT && surge != nil:\n			w.Rolling = false\n			if MUTANT {\n				w.Generation--\n			}\n"},
	{Name: "a service without a ready check never becomes ready", File: "rules/services/services.go",
		Old: "	case !i.Ready && (i.spec == nil || !i.spec.ReadyCheck):\n		c.ready(i)\n", New: "	case !i.Ready && (i.spec == nil || !i.spec.ReadyCheck):\n		if !MUTANT {\n			c.ready(i)\n		}\n"},
	{Name: "one failed attempt of the alive check is enough", File: "rules/services/services.go",
		Old: "		if i.AliveMisses >= i.spec.AliveFailures {", New: "		if MUTANT || i.AliveMisses >= i.spec.AliveFailures {"},
}

// TestMutants breaks the rules themselves. Each mutant must be caught by TestSeeds.
func TestMutants(t *testing.T) {
	if testing.Short() {
		t.Skip("builds mutated rules")
	}
	binary := testkit.BuildMutants(t, "../../..", mutants)
	run := func(mutant string) ([]byte, error) {
		cmd := exec.Command(binary, "-test.run", "^TestSeeds$", "-seeds", "150")
		cmd.Env = append(os.Environ(), testkit.MutantEnv+"="+mutant)
		return cmd.CombinedOutput()
	}
	if out, err := run(""); err != nil {
		t.Fatalf("without an active mutant: %v\n%s", err, out)
	}
	for _, m := range mutants {
		t.Run(m.Name, func(t *testing.T) {
			out, err := run(m.Name)
			if err == nil {
				t.Fatal("not caught")
			}
			how := regexp.MustCompile(`sim_test.go:\d+: .*`).Find(out)
			if how == nil || bytes.Contains(out, []byte("panic:")) {
				t.Fatalf("the run failed, but not because of a rule:\n%s", out)
			}
			t.Logf("caught by %s", how)
		})
	}
}
