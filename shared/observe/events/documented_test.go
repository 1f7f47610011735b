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
