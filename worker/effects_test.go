package worker

import (
	"os"
	"regexp"
	"testing"

	"github.com/dynast-io/dynast/shared/rules/core"
)

// Every report has a text, and the failure guide quotes the texts as they are.
func TestReportTexts(t *testing.T) {
	texts := map[string]string{}
	for _, k := range core.Kinds() {
		if reportTexts[k] == "" {
			t.Errorf("there is no text for %s", k)
		}
		texts[k.String()] = reportTexts[k]
	}
	guide, err := os.ReadFile("../docs/failures.md")
	if err != nil {
		t.Fatal(err)
	}
	quoted := 0
	for _, m := range regexp.MustCompile("`([^`]+)` \\(([a-z_]+)\\)").FindAllStringSubmatch(string(guide), -1) {
		want, ok := texts[m[2]]
		if !ok {
			continue // an event that the core does not report
		}
		quoted++
		if m[1] != want {
			t.Errorf("docs/failures.md quotes %s as %q, it is %q", m[2], m[1], want)
		}
	}
	if quoted < 10 {
		t.Errorf("only %d reports are quoted", quoted)
	}
}
