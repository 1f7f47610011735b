package events

import (
	"os"
	"strings"
	"testing"

	"github.com/dynast-io/dynast/shared/core"
)

// coreKinds are all that the core reports, in the order of their numbers.
func coreKinds() (out []string) {
	defer func() { _ = recover() }() // there is no name after the last one
	for k := core.Kind(0); ; k++ {
		out = append(out, k.String())
	}
}

// Every kind of event is explained to operators.
func TestKindsAreDocumented(t *testing.T) {
	raw, err := os.ReadFile("../../docs/operations.md")
	if err != nil {
		t.Fatal(err)
	}
	all := append(coreKinds(), Started, Serving, Rebuilt, Ended, Stopped, DiskFull, DiskFreed, Lost)
	if len(all) < 25 {
		t.Fatalf("only %d kinds: %v", len(all), all)
	}
	for _, k := range all {
		if k != core.FollowingLeader.String() && !strings.Contains(string(raw), "`"+k+"`") {
			t.Errorf("%s is not explained in docs/operations.md", k)
		}
	}
}
