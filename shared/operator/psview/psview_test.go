package psview

import (
	"strings"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/observe/ps"
	"github.com/dynast-io/dynast/shared/operator/term"
)

// A service that runs on another host has a row that says so.
func TestElsewhere(t *testing.T) {
	var b strings.Builder
	r := &ps.Report{Services: []ps.Service{{Name: "a", Elsewhere: "it runs on host-b"}, {Name: "b"}}}
	if err := Write(&b, r, time.Now(), term.Style{}); err != nil {
		t.Fatal(err)
	}
	lines := strings.Split(b.String(), "\n")
	if got := strings.Join(strings.Fields(lines[1]), " "); got != "a elsewhere it runs on host-b" {
		t.Errorf("got %q", got)
	}
	if got := strings.Join(strings.Fields(lines[2]), " "); got != "b no instances" {
		t.Errorf("got %q", got)
	}
}
