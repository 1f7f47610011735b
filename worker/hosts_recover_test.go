package worker

import (
	"strings"
	"testing"

	api "github.com/dynast-io/dynast/shared/member/hosts"
)

// Only one survivor may form a new cluster.
func TestASecondRecoveryIsRefused(t *testing.T) {
	lost := func(name string) api.Host { return api.Host{Name: name, Role: api.RoleFollower} }
	recovered := lost("three")
	recovered.Foreign = true
	l := &api.List{Self: "four", Quorum: 3, Voting: 1, Hosts: []api.Host{lost("one"), lost("two"), recovered,
		{Name: "four", Role: api.RoleNoLeader, Reachable: true, Status: &api.Status{}}}}
	r := describeCopy(l)
	if got := refuseRecovery(l, r, false); !strings.Contains(got, "three belongs to another cluster") {
		t.Errorf("refused with %q, want that three belongs to another cluster", got)
	}
	if got := refuseRecovery(l, r, true); got != "" {
		t.Errorf("with force: refused with %q", got)
	}
	l.Hosts[2].Foreign = false
	if got := refuseRecovery(l, r, false); got != "" {
		t.Errorf("without another cluster: refused with %q", got)
	}
}
