package events

import (
	"os"
	"strings"
	"testing"

	"github.com/dynast-io/dynast/shared/rules/core"
)

// Every kind of event is explained to operators.
func TestKindsAreDocumented(t *testing.T) {
	raw, err := os.ReadFile("../../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	all := Kinds()
	if len(all) < 25 {
		t.Fatalf("only %d kinds: %v", len(all), all)
	}
	for _, k := range all {
		if k != core.FollowingLeader.String() && !strings.Contains(string(raw), "`"+k+"`") {
			t.Errorf("%s is not explained in docs/operations.md", k)
		}
	}
}

// Every kind that needs an operator is in the guide to failures. The others are not levelled.
func TestLevelsAreDocumented(t *testing.T) {
	guide, err := os.ReadFile("../../../docs/failures.md")
	if err != nil {
		t.Fatal(err)
	}
	known := map[string]bool{}
	for _, k := range Kinds() {
		known[k] = true
		if LevelOf(k) != Info && !strings.Contains(string(guide), "("+k+")") && !strings.Contains(string(guide), "`"+k+"`") {
			t.Errorf("%s has the level %s and is not in docs/failures.md", k, LevelOf(k))
		}
		if LevelOf(k) != Info && Recovery(k) {
			t.Errorf("%s is a recovery with the level %s", k, LevelOf(k))
		}
	}
	for k := range levels {
		if !known[k] {
			t.Errorf("there is no kind %s", k)
		}
	}
	for k := range recoveries {
		if !known[k] {
			t.Errorf("there is no kind %s", k)
		}
	}
}

// A normal day has only events that need no operator.
func TestNormalEventsAreInfo(t *testing.T) {
	for _, k := range []core.Kind{core.LeaderLeft, core.TakingOver, core.TookOver, core.FollowingLeader, core.Spawning, core.MemberStarted, core.MemberJoined,
		core.MemberInSync, core.MemberLeaving, core.MemberLeft, core.Restored, core.Stopping, core.HandingOver, core.Scaled, core.Upgrading, core.Defragmentation} {
		if l := LevelOf(k.String()); l != Info {
			t.Errorf("%s has the level %s", k, l)
		}
	}
}
