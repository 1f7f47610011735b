package hostsview

import (
	"strings"
	"testing"
	"time"
	"unicode/utf8"

	"github.com/dynast-io/dynast/shared/member/hosts"
	"github.com/dynast-io/dynast/shared/operator/term"
)

// TestWidth: the hosts fit on 80 columns, however long the names are, and a wide terminal shows them in
// full.
func TestWidth(t *testing.T) {
	now := time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)
	name, version := "a-host-with-a-name-that-is-longer-than-most-people-like", "v0.0.0-20261128234343-cdb522dabcde+dirty"
	l := &hosts.List{Self: name, Verdict: "Serving. 1 of 3 voting hosts is silent. If one more is lost, nothing is served until it is back or a survivor recovers.", Hosts: []hosts.Host{
		{Name: name, Address: "a-host-with-a-long-name.example.com:2380", Role: hosts.RoleLeader, Reachable: true, Status: &hosts.Status{Version: version},
			IfLost: "another host leads within about a second, and clients of this host have to use another one"},
		{Name: "two", Address: "[2001:db8:aaaa:bbbb:cccc:dddd:eeee:ffff]:2380", Role: hosts.RoleFollower, Lag: -1, LastContact: now.Add(-90 * time.Hour), IfLost: "nothing changes"},
	}}
	for _, width := range []int{0, 80, 120, 200} {
		var b strings.Builder
		s := term.Style{Width: width}
		if err := Write(&b, l, now, s); err != nil {
			t.Fatal(err)
		}
		for _, line := range strings.Split(b.String(), "\n") {
			if utf8.RuneCountInString(line) > s.Columns() {
				t.Errorf("%d columns: %q is wider", s.Columns(), line)
			}
		}
		if whole := strings.Contains(b.String(), name+" (this)") && strings.Contains(b.String(), version); whole != (width == 200) {
			t.Errorf("%d columns: the names are shown in full: %t\n%s", s.Columns(), whole, &b)
		}
	}
}
