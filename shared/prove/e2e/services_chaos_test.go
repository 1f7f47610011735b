package e2e

import (
	"fmt"
	"os"
	"strconv"
	"testing"

	"github.com/dynast-io/dynast/shared/prove/chaos"
)

// serviceKills are the faults of TestServicesChaos: those of services, and the deaths, pauses and
// hand-overs of members in between.
const serviceKills = chaos.KillProgram + "=6," + chaos.KillTree + "=3," + chaos.KillInSpawn + "=6," + chaos.KillBetween + "=4," +
	chaos.KillAllPrograms + "=2," + chaos.StopProgram + "=3," + chaos.BurstOutput + "=3," + chaos.RestartService + "=6," +
	chaos.KillLeader + "=4," + chaos.KillFollower + "=2," + chaos.KillAll + "=2," + chaos.StopContinue + "=2," + chaos.Promote + "=1," + chaos.RestartAll + "=1"

// TestServicesChaos kills programs and members in a random order, and checks the promises of
// services. DYNAST_SERVICE_KILLS sets the number of faults.
func TestServicesChaos(t *testing.T) {
	if testing.Short() {
		t.Skip("takes its time")
	}
	seed, _ := seeded(t)
	faults := 40
	if n, err := strconv.Atoi(os.Getenv("DYNAST_SERVICE_KILLS")); err == nil {
		faults = n
	}
	r := runChaos(t, "--soak", "--max-faults", strconv.Itoa(faults), "--seed", fmt.Sprint(seed), "--services", "3", "--faults", serviceKills,
		"--between", "20ms", "--clients", "2", "--rate", "200")
	r.passed(t)
	s := r.report.Services
	if s == nil || s.Instances != 8 || s.Runs < s.Instances || s.Lines < 1000 || s.ExitsKnown == 0 || s.Answered == 0 {
		t.Fatalf("the run did too little: %+v", s)
	}
	count := 0
	for _, f := range r.report.FaultStats {
		count += f.Count
	}
	if count < faults {
		t.Errorf("the run injected %d faults, want %d", count, faults)
	}
	t.Logf("%d faults: %+v; %+v", count, r.report.FaultStats, *s)
}
