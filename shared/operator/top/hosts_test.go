package top

import (
	"errors"
	"testing"
	"time"

	"github.com/dynast-io/dynast/shared/member/hosts"
)

// TestScreensWithHosts: the hosts stand below the members. What cannot be known any more is said.
func TestScreensWithHosts(t *testing.T) {
	f := cluster()
	f.hosts = &hosts.List{At: start, Self: "one", Verdict: "Serving. 1 of 3 voting hosts is silent.", Hosts: []hosts.Host{
		{Name: "one", Address: "10.0.0.1:2380", Role: hosts.RoleLeader, Reachable: true, Status: &hosts.Status{Version: "v0.1.0"}},
		{Name: "two", Address: "10.0.0.2:2380", Role: hosts.RoleFollower, Reachable: true, Lag: 3, Status: &hosts.Status{Version: "v0.1.0"}},
		{Name: "three", Address: "10.0.0.3:2380", Role: hosts.RoleFollower, Lag: -1, LastContact: start.Add(-5 * time.Second)},
	}}
	checkScreen(t, lived(f), [2]int{80, 30}, "hosts-80x30.txt")
	f = cluster()
	f.hostsErr = errors.New("the engine of this host does not answer")
	checkScreen(t, lived(f), [2]int{80, 30}, "no-hosts-80x30.txt")
}
